// Package remote has shards of other machines asked as if they were of this one: the shard
// RPC of package shardv1, of which [NewHandler] is the side of a node and [Node] that of a
// router.
//
// # Goals
//
// What a part that is elsewhere replies is what it would reply here, to the bit. A node
// answers from the snapshot, the shard and the position that it was asked for, or refuses by
// name. Whatever one side sends, the other takes a bounded time and memory for it. A call
// costs little more than its bytes.
//
// # Design
//
// A node keeps nothing between calls. A shard and the fresh rows that belong to it are one
// part for a router: the node asks each part of the tower that it holds, and merges what they
// find. Rows of a snapshot are named by their ordinals, which are the same on every node, and
// fresh rows by their ids, since nodes put them into memory in different ways; the router
// gives those numbers of its own, see [Names].
//
// Calls go in frames over connections of their own, see frame.go, of which there are as many as
// calls are under way at a time. Only the status of a node, which is a stream, and audits, which
// nobody waits for, go by Connect. A node answers other calls of Connect too: those of anybody with a client of it, and of routers of before.
//
// Lists are in columns, which the generated code reads and writes without an allocation for
// each row. Every reply is checked before it is believed: merging relies on its order.
//
// The package has more than 3,000 lines because both sides of each call, and of what carries it, are
// here: what one writes the other reads, and a change of a message or a frame is a change of both.
package remote
