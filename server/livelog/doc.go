// Package livelog has a server follow the live log of its store (see package live) and lay it
// over the snapshots that it has mapped (see package overlay).
//
// # Goals
//
// Whatever answers, answers with all that the server has read of the log, and each answer is
// of one position: that of its towers, of the takedowns that its candidates are judged by,
// and of the proof that says how old it is. No snapshot answers before it has what others
// have, and none from before what was answered with already. Queries wait for nothing.
//
// # Design
//
// A [Follower] has one replica of the log. Each snapshot that is mapped has a [Layer], which
// is made of the whole state when the snapshot is opened, and goes on with each entry for as
// long as the snapshot is open, whether or not it answers. What a layer amounts to at one
// position is a [Laid], which does not change. When an entry was applied to all layers, and
// the replica has remembered its position, each layer is given its next one: one pointer,
// which a request takes once, at its start.
//
// A layer that cannot apply an entry, as where the files of its snapshot cannot be read,
// stays where it was: the proof of its position grows old, and the fence ends its answers. It
// is made anew with a later entry, and every now and then.
//
// A node of a cluster has shards, and not snapshots: it has a [ShardLayer] for each, and answers
// at the position that it is asked at, which is that of other nodes too. So such a layer has
// what there was at its last positions.
//
// The follower also judges the age of proofs ([Follower.Past]) and tells of what becomes of
// the log (see package events). Which errors callers see is for package server.
package livelog
