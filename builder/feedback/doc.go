// Package feedback joins what was served with what users did, and says what follows.
//
// [Join] reads the recorded queries and the outcomes of a store (shard/querylog, shard/outcomes)
// and writes the joined set of a day (shard/joined): one row for each candidate that was served.
// [Measure] reads sets and reports hit rates, shares and play times with intervals by user, how
// much of the catalogue was shown, the verdict on interleaved answers, and what policies that were not
// served would have come to, where a release explores; [Export] has the Open Bandit Pipeline reckon
// that. [Plan] says how many requests an experiment takes. Package cmd/tandem calls them.
//
// # How outcomes are joined
//
// Outcomes of one id count once: the one that was received first. An outcome that names a request
// is of that request's answer and of no other, since only a sample of requests may be recorded: to
// look for another answer that had the app would give outcomes of requests that were not recorded
// to those that were. One that names none is of the latest answer of its user that had the app,
// within the window before it. What is not joined is counted by its reason.
//
// # Memory
//
// A join holds one object of a log, one part that is written, and about as much as
// [JoinOptions.Memory] beside: rows go to files of a local folder, dealt by hashes, and a file that
// is too large is dealt again. The files have no names once they are open, so that nothing is left
// of a process that is killed.
//
// The package has more than 3,000 lines because what is joined, what is measured of it and what would
// have come of other policies share one form of rows and one way to make intervals by user.
package feedback
