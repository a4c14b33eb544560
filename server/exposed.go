package server

import (
	"cmp"
	"context"
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// onceKey is a hash of who asks, for which experiment, and which generation answers; 0 where the
// request does not say who asks.
func onceKey(r *tandemv1.RetrieveRequest, generation uint64) uint64 {
	user := cmp.Or(r.UserId, r.RequestKey)
	if user == "" {
		return 0
	}
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(user) // it never fails
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(r.Experiment)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(strconv.AppendUint(make([]byte, 0, 20), generation, 10))
	return d.Sum64()
}

// maxSeen is how many keys are remembered: beyond it the oldest go, and are seen anew.
const maxSeen = 1 << 18

// seen remembers the keys that came last, in bounded memory. A nil one remembers none, and 0 is
// always seen: it stands for no key.
type seen struct {
	mu   sync.Mutex
	keys map[uint64]struct{}
	ring []uint64 // in the order in which they came
	at   int      // where the next one goes
}

func newSeen(most int) *seen { return &seen{keys: map[uint64]struct{}{}, ring: make([]uint64, most)} }

func (s *seen) has(key uint64) bool {
	if key == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, is := s.keys[key]
	return is
}

func (s *seen) add(key uint64) {
	if s == nil || key == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, is := s.keys[key]; is {
		return
	}
	if oldest := s.ring[s.at]; oldest != 0 {
		delete(s.keys, oldest)
	}
	s.keys[key], s.ring[s.at] = struct{}{}, key
	s.at = (s.at + 1) % len(s.ring)
}

// nextOf returns the candidates that would come after those that were found for a query: the next
// page. The answer is what it would be without. There are fewer where the deadline comes first,
// and none after an answer that was short.
func (r *recorder) nextOf(ctx context.Context, q *query, found *shard.Answer) []querylog.Candidate {
	n := len(found.Candidates)
	if r.o.next == 0 || n == 0 || n < q.K {
		return nil
	}
	rank := n
	if q.After != nil {
		rank += q.After.Rank
	}
	last := &found.Candidates[n-1]
	further := q.Query
	further.Attributes, further.Explain, further.Observe, further.MinCoverage = nil, nil, nil, 0
	further.K = min(r.o.next, maxCandidates-rank)
	further.After = &shard.Cursor{Score: last.Score, ID: last.ID, Rank: rank, Most: maxCandidates}
	if further.K <= 0 {
		return nil
	}
	more, err := q.tower.Search(ctx, &further)
	if err != nil {
		return nil // it is beside the answer, which there is
	}
	next := make([]querylog.Candidate, len(more.Candidates))
	for i, c := range more.Candidates {
		next[i] = querylog.Candidate{ID: c.ID, Score: c.Score}
	}
	return next
}
