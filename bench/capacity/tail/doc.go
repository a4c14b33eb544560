// Package tail simulates how long queries take that are fanned out over shards: what each process
// does takes a processor of its machine for some time, and waits for one where all are busy.
//
// # Goals
//
// What goes in can be measured one process at a time: how long a search of one shard takes, and
// what a call and a query cost a router. What comes out are quantiles of whole queries, which no
// measurement of one process shows: the slowest of many shards, and what waits behind what.
// The same seed gives the same answer.
//
// # Design
//
// It is a simulation of discrete events. A [Cluster] says which processes are on which machine, so
// it is as well one of sixteen nodes that share two processors as one of nodes of their own. Work
// is taken in the order in which it comes, by whichever processor is free, to its end: pieces
// are far shorter than what a kernel gives a process at a time. A processor that has nothing to do
// sleeps, and takes a while to wake.
//
// A query is sent by a client, decoded by a router, perhaps asks a node for the vector of its user, and
// then one replica of each shard: the one of two that are drawn that has fewer requests. What takes
// longer than most is asked of another replica too, within the budgets of package router. The last
// answer ends it, but for one in some hundred queries in which a shard is asked again.
//
// [Simulate] is called by package capacity, and by what validates it against real processes.
package tail
