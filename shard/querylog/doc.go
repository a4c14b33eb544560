// Package querylog is the format of recorded queries: requests that a server has
// answered, with their answers, in Parquet objects of a store.
//
//	queries/2026-11-25/20261125T081500.000Z-5f3a09c4b1d27e86.parquet
//
// The name has the day and the time at which the object was begun to be written, so
// that every query in it was answered before, and 16 random digits. [Encode] makes the
// bytes of such an object, [Key] its name; package server calls them. A [Log] reads all
// objects of a store, of a folder or one file, query by query; package bench/replay
// calls it. [ReadLiveFilters] sums up what they asked for, for the gates. [Log.Sweep] deletes
// those that are too old, and queries of users who are forgotten.
//
// Any Parquet reader can read them as well. The whole request is bytes, which only package
// server understands; what people, gates and those who compare answers with outcomes look for has
// columns of its own. Of bindings these have the names and the kinds (see [eligibility.Kind]),
// and never the values.
//
// Package shard/rowlog is the form of files and names, and reads them; damage is an error of
// class [ErrDamaged].
package querylog
