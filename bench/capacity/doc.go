// Package capacity reckons what a catalogue takes to be served: shards, memory, machines, how long
// queries take, builds, releases and the live log, and what it costs at prices that are given.
//
// # Goals
//
// Whoever reads a plan can tell what of it was measured, what is assumed and what is extrapolated,
// change any of it, and see what depends on it most. Nothing is known of anybody's machines or
// prices but what was given. The same input gives the same plan.
//
// # Design
//
// Sizes follow from the format of shard files. Nodes follow from [placement.Place], which is what
// nodes themselves compute, with room for the shards of an old and a new snapshot; and from what
// queries take of processors: a search of one shard that was measured ([Measured]), extrapolated by
// powers of rows and of what is asked for, and calls. The tail is simulated (package tail), each
// process on a machine of its own. Everything else that the plan depends on is an [Assumption] with a
// name, a source and bounds, and [Plan] reckons anew with each of them half and twice as much.
//
// Package machine measures a machine, and holds the simulation against clusters of processes. The
// command is tandem capacity; `tandem bench capacity` measures.
package capacity
