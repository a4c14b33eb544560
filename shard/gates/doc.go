// Package gates keeps what the gates have found of snapshots, and says what all of it
// amounts to.
//
// # Goals
//
// No run takes back what another has found unless it looked at the same thing. What did not
// run, or found nothing either way, is told as such and never passes for a pass. Whoever
// reads why a snapshot was refused reads the decisive thing first. What depends on the
// moment, what is released and what is asked, is looked at anew when it counts.
//
// # Design
//
// A gate takes its checks down in [Findings], against the limits of [Thresholds]. Most of
// them measure a snapshot: they are those of package builder/gate. The two that need no more
// than manifests are here: [CheckContract] and [CheckFilters], of which the latter asks
// whether recorded queries could be asked again.
//
// A run is a [Recorded], appended to the log of its snapshot in the store by [Record]; the
// report in a snapshot's manifest counts as the oldest. [Judge] makes one [Verdict] of all
// runs, [JudgeNow] after it has run these two gates anew: that is what a release goes by
// (package release). What every gate came to is a [Row]; what refuses a snapshot is a
// [FailedError], which names the likely causes.
//
// Values are safe for any number of goroutines that read them.
package gates
