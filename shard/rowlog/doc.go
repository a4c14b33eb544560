// Package rowlog is what logs of rows in a store have in common: rows in Parquet objects that
// are written once, under a day and a time,
//
//	queries/2026-11-25/20261125T081500.000Z-5f3a09c4b1d27e86.parquet
//
// whose order does not matter. The name has the day and the time at which the object was begun
// to be written, so that every row in it was there before, and 16 random digits, so that writers
// need not know of one another.
//
// A [Format] says which rows: its columns, its bounds and the class of its errors. It makes the
// bytes of an object and reads them. A [Log] reads all objects of a store, of a folder or one
// file, row by row, and deletes those that are too old, and rows of users who are forgotten.
// Packages shard/querylog and shard/outcomes have a format each, and shard/joined has one whose
// objects have names of another form; builder/feedback asks names for their times. Nobody else
// calls this.
//
// Any Parquet reader can read such objects as well. A reader passes over columns that it does not
// know, and takes those that are optional and not there for unknown, so that columns may be added
// without a new version.
//
// A log may have been copied from anywhere, so a reader trusts no byte of it. What a file says of
// its sizes is checked before anything of that size is allocated, and damage is an error of
// [Format.Damaged] that names the object.
package rowlog
