// Package engines measures index engines beside one another: ours, coder/hnsw, and
// those that a driver of bench/peers wraps, on one set of vectors.
//
// [ReadSet] reads a [Set], [Run] measures it. The [Report] is a table for people,
// JSON for scripts and an SVG plot. `tandem bench engines` calls it.
//
// # Goals
//
// What is compared must be the engines, and nothing else: the same rows, queries,
// truth, clock and minute of the machine. An engine must be judged at its best
// effort for a recall, not at the effort that happened to be tried. A figure that
// cannot be had must be missing, not zero.
//
// # Design
//
// One query is asked at a time, on one thread, and timed by itself where it is
// answered, so that talking to a driver costs nothing. Recall counts an answer's
// row when its score, computed here, is as good as the k-th exact one within
// [Tolerance]: ties are no misses, and a row counts once.
//
// First, every engine builds alone. Then each effort is asked once, from the
// least, to find its recall and count its distances; the sweep of an engine ends
// when it misses next to nothing, as more effort has nothing left to find. Then all
// (engine, effort, k) take turns in several rounds, each round in another order,
// each turn after a few queries that do not count; a figure is the median over the
// rounds. A slow setting is asked fewer queries in a turn, as many as fit
// [turnTime].
//
// The floor of a walk of our index is the time of its distance computations alone:
// what some walks score is recorded, and scored again in turns of their own.
//
// The queries that are asked never shaped nor calibrated our index: a sample that
// is disjoint from them does, as in the builder.
//
// To compare at a recall, the efforts of an engine that no other effort of it beats
// in both recall and speed make its front, and its speed is interpolated on that,
// linear in recall and in the logarithm of the speed. Settings that did the same work
// are one point.
//
// The package has more than 3,000 lines because the comparison under filters is the same
// experiment as that without: the same sets, engines, drivers, truth and rounds, with other
// reports.
package engines
