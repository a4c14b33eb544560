package remote

import (
	"fmt"
	"strings"
	"sync"
	"unsafe"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index"
)

// freshBit is in the refs of fresh rows, and in no ordinal.
const freshBit = 1 << 31

// maxFresh is how many fresh rows a shard may have at a position.
const maxFresh = 1 << 24

// Names has the refs of the fresh rows of one shard at one position: numbers for their ids,
// whichever node has told of them. All that is asked of the shard at that position, on any
// node, is asked with the same Names. It is safe for any number of goroutines.
//
// It grows with the ids that were returned, of which there are as many as fresh rows of the
// shard, and at most maxFresh, whatever nodes say.
type Names struct {
	metric index.Metric

	mu   sync.RWMutex
	refs map[string]uint32
	ids  []string
}

// NewNames returns the names of a shard at a position, whose tower compares by that metric.
func NewNames(metric index.Metric) *Names { return &Names{metric: metric} }

// ref returns the ref of an id, which it copies.
func (n *Names) ref(id string) (uint32, error) {
	n.mu.RLock()
	ref, ok := n.refs[id]
	n.mu.RUnlock()
	if ok {
		return ref, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if ref, ok = n.refs[id]; ok {
		return ref, nil
	}
	if len(n.ids) >= maxFresh {
		return 0, fmt.Errorf("%d fresh rows were returned of one shard; want at most as many", maxFresh)
	}
	if n.refs == nil {
		n.refs = map[string]uint32{}
	}
	id, ref = strings.Clone(id), freshBit|uint32(len(n.ids))
	n.refs[id] = ref
	n.ids = append(n.ids, id)
	return ref, nil
}

// split appends to dst the ordinals of refs, in which those of fresh rows have no place of their
// own, and returns the ids of these.
func (n *Names) split(refs []uint32, dst []uint32) (ordinals []uint32, fresh *shardv1.Texts, err error) {
	for _, ref := range refs {
		if ref < freshBit {
			dst = append(dst, ref)
			continue
		}
		dst = append(dst, freshOrdinal)
		if fresh, err = n.add(fresh, ref); err != nil {
			return nil, nil, err
		}
	}
	return dst, fresh, nil
}

// splitTaken appends to dst the ordinals of refs, and returns the ids of fresh rows.
func (n *Names) splitTaken(refs []uint32, dst []uint32) (ordinals []uint32, fresh *shardv1.Texts, err error) {
	for _, ref := range refs {
		if ref < freshBit {
			dst = append(dst, ref)
			continue
		}
		if fresh, err = n.add(fresh, ref); err != nil {
			return nil, nil, err
		}
	}
	return dst, fresh, nil
}

// add adds the id of a fresh row to texts, nil for none.
func (n *Names) add(t *shardv1.Texts, ref uint32) (*shardv1.Texts, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	at := int(ref &^ freshBit)
	if at >= len(n.ids) {
		return nil, fmt.Errorf("row %d is of no hit of this shard at this position: %w", ref, index.ErrQuery)
	}
	if t == nil {
		t = &shardv1.Texts{}
	}
	addText(t, n.ids[at])
	return t, nil
}

// view returns bytes as a string, which is good for as long as they do not change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
