// Package joined is the format of exposures that are joined with outcomes: one row for each
// candidate that was served, with what its user did with it, in Parquet objects of a store, by days
// in UTC.
//
//	joined/2026-11-25/part-0000-5f3a09c4b1d27e86.parquet
//	joined/2026-11-25/_joined.json
//
// The digits are the beginning of the SHA-256 of the part, so that a part never changes. The set of
// a day is what its [Set], `_joined.json`, names, and is whole or not there: parts are written
// before it, and what it does not name is deleted after. Package builder/feedback writes sets;
// [Read] and [Rows] read them, and so does any Parquet reader. [Sweep] deletes those of days that are
// old, and takes out what is of users who are forgotten.
//
// Readers of sets that are written meanwhile find a part missing, which is an error of class
// [ErrChanged], and read again. Nothing of a file is trusted: damage is an error of class
// [ErrDamaged] that names the object.
package joined
