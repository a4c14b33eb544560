// Package release decides what serves now. A release is one entry of an append-only log
// in the store (see package appendlog) and says all of it: which snapshots serve, in
// which arm, and which part of the traffic each arm takes. So a change is one
// compare-and-swap on the generation, which is the entry's sequence number, whoever
// makes it and however many do; a rollback is one more entry; and a server that has read
// an entry knows everything.
//
// Whatever gets traffic, or more of it, is judged first by what its gates have found
// (package gates), beside what serves and what was asked lately. A rollback asks nobody.
//
// # Identity
//
// A release is known by the hash of its entry. In a store that was restored from a copy
// and has gone on, its generation is that of another release. So each entry carries the
// hash of the one before, and the id of its log, which changes only when a person accepts
// the log as it is: [Releases.Watch] follows one log, and another one from where it was
// accepted; [Releases.History] shows where a log does not hang together.
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
