package builder

import (
	"fmt"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
	"github.com/tandem-ann/tandem/index"
)

// sourceGraph reads a coder/hnsw export as a graph over the rows with these ids,
// ascending. The export must have a node for each id and no other; its vectors
// are not used, so it may have been built on transformed ones.
func sourceGraph(f input.File, keys hnswexport.KeyType, ids []string) (*index.SourceGraph, error) {
	g, err := hnswexport.Decode(f, f.Size(), keys)
	if err != nil {
		return nil, fmt.Errorf("read graph %s: %w", f.Name(), err)
	}
	if err := sameIDs(g.Keys, ids); err != nil {
		return nil, fmt.Errorf("graph %s: %w", f.Name(), err)
	}
	source := &index.SourceGraph{}
	for _, l := range g.Layers {
		lists := make([][]uint32, len(ids))
		for i, node := range l.Nodes {
			lists[node] = l.Neighbors(i)
			if lists[node] == nil {
				lists[node] = []uint32{}
			}
		}
		source.Layers = append(source.Layers, lists)
	}
	return source, nil
}

// sameIDs compares two ascending lists.
func sameIDs(keys, ids []string) error {
	for i, j := 0, 0; i < len(keys) || j < len(ids); i, j = i+1, j+1 {
		switch {
		case j == len(ids) || i < len(keys) && keys[i] < ids[j]:
			return fmt.Errorf("has a node %q, which is not among the %d rows", keys[i], len(ids))
		case i == len(keys) || ids[j] < keys[i]:
			return fmt.Errorf("has no node for the row %q; it has %d nodes for %d rows", ids[j], len(keys), len(ids))
		}
	}
	return nil
}
