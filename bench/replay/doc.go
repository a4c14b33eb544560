// Package replay asks a snapshot what a server was asked before, and compares the
// answers: whether it is fit to be released, found before any user sees it.
//
// [Run] reads a log of recorded queries (package querylog), asks each of them again of
// a snapshot that it opens in this process, and sums up in a [Report] how the answers
// differ from the recorded ones, by segment and arm; [Thresholds] say how much they may.
// `tandem replay` calls both.
//
// # Goals
//
// A query takes the way that it takes in a server: the same rules, plans, fan-out and
// merge, and the same errors. What cannot be compared is left out and counted, with the
// reason, and never taken for a difference or for the lack of one. Two latencies that
// are divided by one another were measured on one machine at the same time.
//
// # Design
//
// The snapshot is served by a [server.Service] without a network. A request is as it
// was recorded, but that a model version it was pinned to is not. A vector of one model
// means nothing to another, so a query by vector is asked only of the model version
// that answered it; a query by user or app is asked with the vector that the snapshot
// itself has. An answer that lacked shards is no measure of one that does not.
//
// Recorded latencies are those of a server under its load, so they are shown and not
// compared. With a baseline, such as the snapshot that serves now, each query is asked
// of both, one after the other, each being the first in turn; the ratio of the mean
// latencies is of those. One query is asked at a time, and the first of them unmeasured
// before, of both. Beside the means stand the intervals that they are known to, which
// thresholds do not ask for.
package replay
