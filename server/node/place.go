package node

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// spot is a number of a tower, of whatever snapshot: a shard of the next snapshot is to be where
// that of the last one is.
type spot struct {
	tower  shard.Kind
	number int
}

// key is what placement calls it.
func (s spot) key() string { return fmt.Sprintf("%s/%d", s.tower, s.number) }

// placed is who is to hold what, and what that was computed from.
type placed struct {
	listed  []placement.Member
	members []placement.Member // with those that are away
	shards  []placement.Shard
	holders map[string][]string // by key
}

// of returns who is to hold a shard.
func (p *placed) of(k key) []string { return p.holders[spot{k.tower, k.number}.key()] }

// placesOf returns what is to be placed. The bytes are those of the manifests of the newest
// release, which all nodes read alike; numbers that only others have, which routers use, have
// the bytes of those.
func placesOf(newest, others []*manifest.Manifest) []placement.Shard {
	bytes := bytesOf(others)
	for s, n := range bytesOf(newest) {
		bytes[s] = n
	}
	list := make([]placement.Shard, 0, len(bytes))
	for s, n := range bytes {
		list = append(list, placement.Shard{Key: s.key(), Bytes: max(n, 1)})
	}
	slices.SortFunc(list, func(a, b placement.Shard) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// bytesOf returns how many bytes the shards of some snapshots have. A file that several have
// counts once.
func bytesOf(list []*manifest.Manifest) map[spot]int64 {
	bytes := map[spot]int64{}
	counted := map[manifest.Digest]bool{}
	for _, m := range list {
		for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
			for number, sm := range m.Tower(kind).Shards {
				if !counted[sm.Digest] {
					bytes[spot{kind, number}] += sm.Size
				}
				counted[sm.Digest] = true
			}
		}
	}
	return bytes
}

// replace computes who is to hold what, if that is of other members or shards than before. An
// error leaves it as it is. The caller has the lock.
func (n *Node) replace(shards []placement.Shard) error {
	members := n.placeable()
	if n.mine != nil && slices.Equal(n.mine.listed, n.members) && slices.Equal(n.mine.members, members) && slices.Equal(n.mine.shards, shards) {
		return nil
	}
	plan, err := n.place(members, shards)
	if err != nil {
		return err
	}
	next := &placed{listed: n.members, members: members, shards: shards, holders: map[string][]string{}}
	for _, p := range plan.Shards() {
		next.holders[p.Key] = p.Members
	}
	n.mine = next
	if short := plan.Short(); len(short) > 0 {
		n.events.Held(events.Held{Change: events.HeldShort, Shards: len(short), Err: errors.New(short[0].Reason)})
	}
	return nil
}
