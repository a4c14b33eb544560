// Package partition is the rows of a tower on their way to the shards: judged, dealt to
// shards by the hash of their ids, and written to one object for each task, from which each
// shard is read by itself.
//
// [Rows] and [Lines] read an input and judge it, a [Writer] deals what is left to shards in
// bounded memory, a [Reader] gives the rows of one shard back, and a [Summary] is what a task
// found. Summaries merge to what one task over everything would have found, whatever the
// tasks were and in whatever order they come. Package builder calls all of it: for a build on
// one machine with one task for each input, and for one on many.
//
// Objects come from a store, and may be anything: a Reader trusts no byte of them. Their
// format is in shard/format.md.
package partition
