// Package audit measures the recall of live queries while they are served: some of them are
// answered again by an exact scan, on the same snapshot with the same things laid over it,
// and what was answered is compared with that.
//
// # Goals
//
// Who is on call knows what the recall of each arm, plan and segment is now, and is woken
// when it has fallen, and not otherwise. Queries that are answered meanwhile do not notice.
//
// # Design
//
// [Auditor.Offer] is told of each query that was answered, and takes some of them: of an arm
// at random, each with the same probability, so that what is audited is what is asked; and of
// a plan or a segment that is rarely asked the next one, once it was not audited for a while.
// What is taken waits in a queue with a bound on its length, its bytes and its age, and holds
// its snapshot open; once its arm answers no more it is dropped ([Auditor.Serve]).
//
// [Auditor.Run] audits one after the other on a thread of lower priority than the process has, in
// slices of some 0.2 ms, and sleeps between them for so long that it takes no more than its
// share of a processor, by the clock of that thread. Where the thread is woken late, since others
// want its processor, it sleeps longer.
//
// Each audit is a recall@k, from 0 to 1, beside a reference: the recall that the manifest
// measured of such queries (reference.go). Audits make up strata: all of an arm, those of
// each plan, those of each segment. A stratum (stratum.go) keeps a window of the last audits,
// and a [Sequence], which bounds the mean of now however often it is looked at. Where the
// upper bound is below the floor, an alarm is raised. Queries that give an ef are a stratum of
// their own, which never raises one: nobody promised them anything.
//
// On the router of a cluster the exact answer is found by nodes, which [Config].Exact asks, and each
// of which does such scans within a budget of its own ([Scans]). There is a stratum for each node
// (nodes.go), by which one with a damaged graph is found that is but a small part of all answers.
//
// Where a release says so, an alarm takes its snapshot off traffic (rollback.go).
//
// Only what was answered by all shards is audited; what else is missing is coverage.
package audit
