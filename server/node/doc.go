// Package node is what a node of a cluster holds: some shards of the snapshots that serve, with
// the live log laid over each. A [Node] is the [remote.Holder] of the shard RPC. What routers
// make of nodes is not here.
//
// # Goals
//
// A node decides by itself what it holds, from the store and from who there is, and says what
// that is: nobody tells it, and nothing has to be agreed. It answers from what it was asked for,
// or refuses. What it is to hold it loads beside what answers, within its memory. It lets go of
// nothing that a router relies on. Whatever fails is told, and tried again.
//
// # Design
//
// The log of releases names the snapshots that are to serve, and routers those that they use
// (see [Node.Uses]). Of the members and the bytes of the shards of the newest release, package
// placement computes who is to hold which number of each tower, of whatever snapshot: every node
// computes the same of the same. Where two see different members for a while, a shard is on more
// nodes than it need be, or on fewer, and routers go by what nodes say.
//
// A member that is not listed any more keeps its shards for a time ([Config].Grace): others load
// them then, and not while it restarts. Where a shard would have no other member that time is none.
//
// One goroutine, [Node.keep], compares what is to be with what is, and begins what is missing:
// what routers use first, then what the newest release needs. Each shard is a [slot]. A load
// downloads a shard, maps, verifies and warms it, and lays the live log over it; two of them are
// under way at a time. A query takes what is open of a slot, which is closed when it is replaced
// or let go of and the last query on it has ended.
//
// A shard is let go of
//
//   - when its snapshot is not needed: the newest release does not have it, and for a time
//     ([Config].Keep) no router has used it. Where memory is short, that is at once.
//   - when another is to hold it, since members have changed. Routers may ask nobody else for
//     it yet, and this may be the last that has it: so it stays until all who are to hold it
//     have said that they do ([Config].Holds), and some time more, in which routers hear of them.
//     Then it is given out no more, and they are asked once more before it is closed: two nodes
//     that were told of different members may each have relied on the other. Nothing else ends
//     it, no time and no want of memory, for as long as the snapshot is needed.
//
// So the last copy of a shard that routers use stays. What does not fit beside what stays is not
// loaded, and that is told.
package node
