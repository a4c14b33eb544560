// Package objects is the object store that snapshots, releases and live events live
// in: a flat space of named objects in a folder, on S3, Google Cloud Storage or Azure
// Blob Storage, through gocloud.dev/blob.
//
// It promises what the rest is built on. An object appears whole or not at all. Of any
// number of writers, on any number of machines, that create one name, one wins and the
// others are told so ([ErrExists]). What was written is durable when the call returns.
//
// In a folder this package writes by itself, since gocloud.dev's driver for folders
// neither waits for the disk nor decides between two processes: it looks whether the
// name exists and then renames over it. Here a temporary file is written and synced,
// then linked to its name, which fails if there is one, and the folder is synced.
package objects
