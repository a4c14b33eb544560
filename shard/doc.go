// Package shard is how a snapshot is asked.
//
// A [Shard] is one file: an index, the ids of its rows, and their attributes. A
// [Tower] is the shards of one entity kind; it fans a [Query] out over them and
// merges what they find. To a tower each shard is a [Part], which may be elsewhere; a
// [Local] is one of this process. Package manifest says which shards are both towers of one model
// version, a snapshot, and package snapshots opens them from a store.
//
// # Goals
//
// An answer must not depend on the layout: the same rows in one shard or in seven
// give the same exact answer, to the order of ties. A returned id must be in the
// snapshot and pass the filter. Every answer says how much of the tower it is
// based on.
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
// What fans out, merges, keeps limits and explains reads no mapped file: a part copies
// what it returns, with the values of attributes that are limited, and its faults are
// errors. A part answers from its request alone, so that whoever has the same rows can
// answer instead.
//
// What has changed since a snapshot was built lies over it: an [Overlay] over the rows of a
// shard, and beside the shards parts of rows that are [InMemory]. [Tower.With] makes a tower
// of both, over the same shards. Package overlay says what they hold.
//
// The package has more than 3,000 lines because the fan-out, a part of this process, merging,
// diversity and explaining share one request and its reply, and none has a meaning without
// the others.
//
// Package builder writes snapshots; package server serves them; package bench
// measures them.
package shard
