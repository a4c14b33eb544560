// Package shard is what a snapshot is made of and how it is asked.
//
// A [Shard] is one file: an index, the ids of its rows, and their attributes. A
// [Tower] is the shards of one entity kind; it fans a [Query] out over them and
// merges what they find. A [Snapshot] is both towers of one model version, listed
// by a [Manifest] and kept in a [Store].
//
// # Goals
//
// An answer must not depend on the layout: the same rows in one shard or in seven
// give the same exact answer, to the order of ties. A returned id must be in the
// snapshot and pass the filter. Every answer says how much of the tower it is
// based on. Whatever is in a store is whole, and is what its name says.
//
// # Design
//
// A row belongs to the shard that the hash of its id names, so a lookup by id asks
// one shard, and the ids that a query includes and excludes are divided among the
// shards before they are asked. Within a shard, rows are in ascending order of their
// ids and an index breaks ties by row, so ties break by id everywhere. A filter is
// bound once a query and evaluated once a shard into a dense bitset, which both the walk and
// the scan read. A [Segment] is a filter with a name: each shard file has the
// bitmap of its rows, which only needs merging. Limits on equal values ([AtMost]) are
// kept by the merge.
//
// A manifest is the root of trust: it is named by the SHA-256 of its bytes and
// names its shards by the SHA-256 of theirs. It also records each shard's own
// checksum, which covers every byte and which opening the shard verifies anyway;
// so a server knows that it maps the shards the manifest means without reading
// them twice.
//
// Package builder writes snapshots; package server serves them; package bench
// measures them.
package shard
