// Package input finds, opens and hashes the files that a build reads: files, folders and
// globs, on this machine and in buckets. Packages builder and builder/tower call it.
//
// # Finding
//
// A path is that of a file, a folder, or a glob, or a URL of one (s3, gs, azblob, as
// package shard/objects opens them). Of a folder it is all files in and below it, in the
// order of their whole paths, but for names that begin with _ or a dot, which jobs leave
// beside their output. What a file is its first bytes say: the caller's [Accept] decides
// by them, and files of another sort in a folder are left out too. All that is left out is
// counted and named in [Set.Notes]. The folder of a table of Delta Lake, Hudi or Iceberg
// is refused, since its files are not its rows. What cannot be listed or opened is an
// error.
//
// # Reading
//
// Each file is opened once, when it is found, and all readers share the descriptor; so a
// file that is replaced meanwhile is read as it was, and what [Set.Describe] hashes is
// what they read. [Set.Unchanged] tells whether one was written to in place. Pipes, and
// objects of buckets, are copied first to files of this machine that have no name, and
// vanish with the process; an object is copied whole as it was at one time.
package input
