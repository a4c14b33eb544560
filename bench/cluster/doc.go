// Package cluster measures a cluster of processes of this machine, and judges all that it
// answers, while something goes wrong all the time: nodes are killed, stopped, slowed and cut
// off, the store is away, caches and the list of members are lost, processes are restarted and
// are of another version, nodes come and go, routers are killed, disks are full, the store is
// restored to some seconds before, and releases are switched.
//
// # Goals
//
// A query that fails, and an answer that is not what one machine with the same snapshot would
// give at the same position, is counted, whichever fault was the cause; latencies are those of
// callers who ask whatever becomes of others. What was drawn from a seed can be drawn again.
// Nothing that was started outlives the run.
//
// # Design
//
// A [Site] is the store, one server that has all shards itself, nodes, each behind a [Proxy],
// and routers, which find nodes by a file. Before anything goes wrong, servers of one snapshot
// each are asked for what there is to know ([Oracle]): every user's apps in their order, with
// scores, by the exact scan, which of them filters leave, and what is answered at the default
// recall. Then a writer takes apps down and restores them, a sender asks routers at times that
// are drawn beforehand, so that a latency counts from when its query was to be sent (see package
// overload), and faults come one after the other. Each fault ends with a wait until as many
// nodes hold each shard as are to.
//
// An answer is judged by the snapshot, the generation and the position that it names. By the
// writes that were acknowledged before, an app is up at that position, down, or either; what is
// taken down after it may be missing, and is missing once the fence and the deadline have passed
// since the takedown was acknowledged. No process answers from an earlier position than it has.
//
// Queries may fail that the fence has refused, in faults that say so, and by the one router whose
// disk is full; and those that were on their way to a router that is killed. Nothing else may.
//
// The package has more than 3,000 lines because faults, load and judge know the same site: what may
// fail while a fault goes on is what the judge allows of the answers that the load has got.
package cluster
