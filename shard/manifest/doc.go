// Package manifest says what a snapshot consists of: its shards by their digests, the
// schemas and segments of its towers, what it was built from, with which parameters, and
// what its gates found then.
//
// A [Manifest] is the root of trust: it is named by the SHA-256 of its bytes and names its
// shards by the SHA-256 of theirs. It also records each shard's own checksum, which covers
// every byte and which opening the shard verifies anyway; so a server knows that it maps
// the shards the manifest means without reading them twice.
//
// Values are safe for any number of goroutines that read them.
package manifest
