// Package release decides what serves now. A release is one entry of an append-only log
// in the store (see package appendlog) and says all of it: which snapshots serve, in
// which arm, and which part of the traffic each arm takes. So a change is one
// compare-and-swap on the generation, which is the entry's sequence number, whoever
// makes it and however many do; a rollback is one more entry; and a server that has read
// an entry knows everything.
//
// # Traffic
//
// A request falls into one of 1000 buckets, and each bucket belongs to one arm:
//
//	bucket = xxhash64(salt + "\x00" + key) mod 1000
//
// The key is the request's request_key, or else its user_id. Each release lists the
// buckets of its arms, so that anyone can work out later who was in which arm. When
// weights change, an arm that grows takes buckets of arms that shrink, and no others
// move: who is in an arm stays there while it grows.
package release
