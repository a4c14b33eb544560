// Package querylog is the format of recorded queries: requests that a server has
// answered, with their answers, in Parquet objects of a store.
//
//	queries/2026-11-25/20261125T081500.000Z-5f3a09c4b1d27e86.parquet
//
// The name has the day and the time at which the object was begun to be written, so
// that every query in it was answered before, and 16 random digits. [Encode] makes the
// bytes of such an object, [Key] its name; package server calls them. A [Log] reads all
// objects of a store, of a folder or one file, query by query; package bench/replay
// calls it. Any Parquet reader can read them as well: beside the whole request, as
// protobuf, what people look for first has columns of its own.
//
// A log may have been copied from anywhere, so a reader trusts no byte of it. What a
// file says of its sizes is checked before anything of that size is allocated, and
// damage is an error of class [ErrDamaged] that names the object.
package querylog
