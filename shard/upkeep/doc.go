// Package upkeep keeps short what a store has beside snapshots: its live log and its recorded
// queries. It is run where snapshots are collected, now and then, by whoever: it may run
// beside servers and builds and itself, and be killed.
//
// # The live log
//
// [Log] settles what no snapshot needs: what was upserted for a model version up to the
// position that the inputs of every snapshot of it reflect is in all of them, and what was
// upserted for one of which no snapshot came in time is given up. Then it writes a
// checkpoint, if the last is old, and deletes what one that is old enough sums up.
//
// # Users who are forgotten
//
// From the moment that a user is forgotten nothing of the user is in the state of the log,
// so nor is it in later checkpoints. What earlier entries and checkpoints have goes with
// them: a checkpoint is written in time for it to be old enough when the time to forget is
// over. [Forgetting] says what is left. Recorded queries are swept by package querylog.
package upkeep
