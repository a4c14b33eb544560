package builder

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// A note on scans is for shards where they are slow.
func TestNoteOnScans(t *testing.T) {
	missed := []index.Effort{{K: 10, Target: 0.99, Recall: 0.9}, {K: 100, Target: 0.99, Recall: 0.95}, {K: 1000, Target: 0.99, Recall: 0.992}, {K: 10, Target: 0.999, Recall: 0.9}}
	reached := []index.Effort{{K: 10, Target: 0.99, Recall: 0.99}}
	s := &scans{}
	require.Empty(t, s.note(shard.Apps, 3))
	s.count(0, fewRows, missed)
	s.count(1, 1_000_000, reached)
	require.Empty(t, s.note(shard.Apps, 3))
	s.count(1, fewRows+1, missed)
	missed[0].Recall = 0.93
	s.count(2, 1_000_000, missed)
	require.Equal(t, "apps: a query that names no recall target is compared with all rows of 2 of 3 shards, which is exact and slow: "+
		"the searches of the graph that are faster are sure of no more than 0.930 of the best 10, 0.950 of the best 100, and 0.99 is wanted; a lower target makes it faster",
		s.note(shard.Apps, 3))
}
