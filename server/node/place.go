package node

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Member is a node of the cluster.
type Member struct {
	Name, Zone string
	Weight     int64 // bytes that it may map; 0 if that is not known
}

// Place is one number of a tower, of whatever snapshot, so that a shard of the next snapshot is
// where that of the last one is. Bytes are those of the shards of the newest release, one for
// each arm that differs.
type Place struct {
	Tower  shard.Kind
	Number int
	Bytes  int64
}

// Placer returns which members, by their names, are to hold each of some places: none where there
// is no room. It depends on nothing else than on what it is given, so that all nodes that are
// given the same find the same. An error leaves what is held as it is.
type Placer func(members []Member, places []Place) ([][]string, error)

// spot is a number of a tower.
type spot struct {
	tower  shard.Kind
	number int
}

// placed is who is to hold what.
type placed map[spot][]string

// has reports whether a member is to hold a shard.
func (p placed) has(name string, k key) bool {
	return slices.Contains(p[spot{k.tower, k.number}], name)
}

// placesOf returns what is to be placed, in the order of towers and numbers: the bytes are those
// of the manifests of the newest release, which all nodes read alike. Numbers that only others
// have, which routers use, have the bytes of those.
func placesOf(newest, others []*manifest.Manifest) []Place {
	bytes := map[spot]int64{}
	count := func(list []*manifest.Manifest, to map[spot]int64) {
		counted := map[manifest.Digest]bool{}
		for _, m := range list {
			for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
				for number, sm := range m.Tower(kind).Shards {
					if !counted[sm.Digest] {
						to[spot{kind, number}] += sm.Size
					}
					counted[sm.Digest] = true
				}
			}
		}
	}
	count(others, bytes)
	of := map[spot]int64{}
	count(newest, of)
	for s, n := range of {
		bytes[s] = n
	}
	list := make([]Place, 0, len(bytes))
	for s, n := range bytes {
		list = append(list, Place{s.tower, s.number, max(n, 1)})
	}
	slices.SortFunc(list, func(a, b Place) int {
		return cmp.Or(cmp.Compare(a.Tower, b.Tower), cmp.Compare(a.Number, b.Number))
	})
	return list
}

// place computes who is to hold what.
func (n *Node) place(members []Member, places []Place) (placed, error) {
	names, err := n.c.Place(slices.Clone(members), slices.Clone(places))
	if err != nil {
		return nil, fmt.Errorf("place shards: %w", err)
	}
	if len(names) != len(places) {
		return nil, fmt.Errorf("place shards: %d are placed, of %d", len(names), len(places))
	}
	p := placed{}
	for i, at := range places {
		p[spot{at.Tower, at.Number}] = names[i]
	}
	return p, nil
}
