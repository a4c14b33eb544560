// Package bench measures recall against latency.
//
// [Run] asks an opened snapshot real queries, at every effort of a sweep and at
// every recall target, and compares what comes back with an exact scan. Its
// [Report] is a table for people and JSON for scripts. `tandem bench` calls it.
// [Load] asks a running server, from several clients at a time; `tandem load` calls
// that.
//
// # Goals
//
// A figure must mean what a caller of the server will see: the same fan-out, the
// same plans, the same merge. Queries must be real and must not have shaped,
// calibrated or measured the snapshot. Recall must not depend on how ties fall.
// Latencies of two settings must be comparable on a machine that is not quiet.
//
// # Design
//
// The queries of the app tower are user vectors, and those of the user tower app
// vectors. They are the rows of the highest [shard.SampleKey], where a build takes
// those of the lowest, so both are disjoint unless the tower is small; then the
// report says so.
//
// The truth is an exact scan for the largest k. A candidate counts when its score
// is as good as the k-th exact one, within [Tolerance], so a tie is no miss.
//
// One query is asked at a time. All settings of all k take turns in several
// rounds, each round in another order, so that a slow minute of the machine falls
// on all of them; a latency is the median over the rounds of the round's figure.
// The exact scan takes its turns on fewer queries: its cost hardly depends on the
// query, and it would take longer than all the rest.
//
// A load is a closed loop: each client has its own connection and asks again once
// it has its answer. It counts answers without decoding them, because it often has
// the server's processors to share; the server's CPU a query is taken from its
// process, so it means the same whether it does or not.
package bench
