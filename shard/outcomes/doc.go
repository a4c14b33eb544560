// Package outcomes is the format of outcomes, what users did with apps that were served, in
// Parquet objects of a store.
//
//	outcomes/2026-11-25/20261125T081500.000Z-5f3a09c4b1d27e86.parquet
//
// Each server writes objects of its own, whose names have the day and the time at which they were
// begun to be written, and 16 random digits; package server calls [Encode] and [Key] for it. There
// is no order among outcomes, and the same may be in several objects, or twice in one: outcomes of
// one id count once, and whoever joins them keeps one of each. A [Log] reads all objects of a
// store, of a folder or one file, and [Log.Sweep] deletes those that are too old, and outcomes of
// users who are forgotten.
//
// Package shard/rowlog is the form of files and names, and reads them without trust; damage is an
// error of class [ErrDamaged].
package outcomes
