// Package objects is the object store that snapshots, releases and live events live
// in: a flat space of named objects in a folder, on S3, Google Cloud Storage or Azure
// Blob Storage, through gocloud.dev/blob. The packages below it link the clients of those:
// who opens s3:// URLs imports package s3.
//
// # What it promises
//
// An object appears whole or not at all. Of any number of writers, on any number of
// machines, that create one name with bytes of their own, one wins and the others are
// told so ([ErrExists]), even if the store's answers are lost.
//
// What was written is durable when the call returns nil: a file, its name, and the names
// of the folders that it is in. Where the disk does not confirm it, the error is of class
// [ErrNotDurable]: the change can be seen, and a crash of the machine may undo it.
// Creating the same object again tries to confirm it. (What a file system says after it
// has lost a write once is its own matter: some say that all is well.)
//
// What cannot be read is not absent, and what cannot be listed is not empty: an error of
// class [ErrNotFound] says that the store was asked and has no such object. A store that
// is not where it was is of class [ErrGone]. A folder is the one that was opened while its
// path leads to the same device and inode; a file system that is mounted there again may
// be another one by that, and opening the bucket again, or [Bucket.Reopen], takes it.
// Nothing is written into a folder that has taken its place, nor is it made again.
//
// # What waits for how long
//
// Each attempt at a request to a cloud has a timeout, which grows by a second for each
// 256 KiB that it moves; it includes what the client library tries by itself. What may
// pass, such as silence, a broken connection, a cut body or a store that is too busy, is
// tried four times, with pauses between, while the caller's context lasts; the error says
// how often, for how long and what happened last. So a request to a store that never
// answers fails after some four times the timeout. A list is a request for each thousand
// names. [Bucket.Reader] and [Bucket.Upload], which may take hours, fail when nothing
// moves for the timeout, and an upload when the parts on their way, up to 48 MiB, are not
// taken at 256 KiB a second. They are not tried again here: who reads can go on where it
// ended.
//
// A request that was given up may have reached the store, and take effect later: a Create
// that failed may still create, a Write may still write over, a Delete may still delete.
//
// Nothing can end a system call on a file system that hangs, such as one of a network
// whose server does not answer: calls on a folder then wait with it, whatever their
// context says. Mount such file systems so that they return errors (for NFS, soft), or
// use a bucket.
//
// # Folders
//
// In a folder this package reads and writes by itself, since gocloud.dev's driver for
// folders neither waits for the disk nor decides between two processes: it looks whether
// the name exists and then renames over it. Here a temporary file is written and synced,
// then linked to its name, which fails if there is one, and the folder is synced. The
// file system must therefore have hard links, and sync folders; FAT and some file systems
// of networks and containers do not, which [Bucket.CheckWritable] finds out before there
// is work to lose. (Renaming without replacing, which some of them know, is decided on
// each machine for itself.) Symbolic links are followed, in lists too, within the folder
// and out of it.
package objects
