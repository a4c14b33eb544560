package overlay

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
)

// Of a user who was forgotten the log has a hash, so the snapshot's row is found by the
// hashes of all its users: 16 bytes each, which are kept from the first one on who is
// forgotten.

// hashed is the row of a user, by the beginning of the hash.
type hashed struct {
	prefix  uint64
	ordinal uint32
}

func prefixOf(h live.UserHash) uint64 { return binary.BigEndian.Uint64(h[:]) }

// hashOf returns the hash of a user, which it takes at least one who is forgotten for.
func hashOf(forgotten live.Forgotten, id string) live.UserHash {
	h, _ := forgotten.Lookup(id)
	return h
}

// hashesOf returns the users of each shard, ascending by their hashes.
func hashesOf(locals []*shard.Local, forgotten live.Forgotten) [][]hashed {
	all := make([][]hashed, len(locals))
	for number, l := range locals {
		s := l.Shard()
		list := make([]hashed, s.Rows())
		for ordinal := range list {
			list[ordinal] = hashed{prefixOf(hashOf(forgotten, s.ID(uint32(ordinal)))), uint32(ordinal)}
		}
		slices.SortFunc(list, func(a, b hashed) int { return cmp.Compare(a.prefix, b.prefix) })
		all[number] = list
	}
	return all
}
