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
// Package builder/tower reads the files; package builder/synthetic makes some.
package builder
