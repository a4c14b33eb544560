// Package builder turns the files of both towers into a snapshot in a store.
//
// [Build] streams the rows of each tower, rejects those that cannot be served,
// spills the rest to one staging folder for each shard, and then builds one shard
// after the other, so that memory is bounded by a shard and not by the input. A
// sample of each tower's vectors is kept: users calibrate and measure the app
// tower, apps the user tower. The gates (package builder/gate) run on the staged
// snapshot, and their report is in its manifest, which is published last. The same inputs and
// parameters give the same snapshot to the byte, on any number of threads.
//
// [MakePlan] and [Steps] do the same on many machines: a plan fixes what all must have alike, tasks
// deal the rows to shards, each shard is built by itself, and a last step measures, runs the gates
// and publishes. Each step reads from the store what those before it left there, and leaves one
// object of its own, so that it can be killed and done again anywhere; the digest is that of [Build].
// What a build is until it is committed is in packages builder/plan and builder/partition.
//
// The package has more than 3,000 lines because a build on one machine and one in steps are the same
// code over the same state, which differ in where rows and shards lie meanwhile: apart, they would
// have to be kept alike for digests to be equal.
//
// Package builder/tower reads the files; package builder/synthetic makes some.
package builder
