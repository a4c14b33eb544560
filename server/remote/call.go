package remote

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// call is the memory of a request of Search.
type call struct {
	message          *shardv1.SearchRequest
	include, exclude *shardv1.Texts
}

func newCall() *call {
	return &call{message: &shardv1.SearchRequest{}, include: &shardv1.Texts{}, exclude: &shardv1.Texts{}}
}

// keptCall is how much a call may have to be kept for the next, in numbers and bytes of ids.
const keptCall = 1 << 17

// release ends the use of the memory.
func (c *call) release(pool *sync.Pool) {
	m := c.message
	if cap(m.Vectors)+cap(m.Taken)+cap(m.Limited)+cap(c.include.Text)+cap(c.exclude.Text) > keptCall {
		return
	}
	vectors, taken, limited := m.Vectors[:0], m.Taken[:0], m.Limited[:0]
	proto.Reset(m)
	m.Vectors, m.Taken, m.Limited = vectors, taken, limited
	pool.Put(c)
}

// write makes the message what a request asks.
func (c *call) write(state *shardv1.ShardState, r *shard.Request, names *Names) (err error) {
	m := c.message
	m.State, m.VectorCount, m.K, m.Ef, m.Target = state, uint32(len(r.Vectors)), uint32(r.K), uint32(r.Ef), r.Target
	m.Expected, m.Plan, m.Segment = uint32(r.Expected), tandemv1.Plan(r.Plan), r.Segment
	if r.K < 1 || r.K > maxK {
		return fmt.Errorf("k is %d, want 1 to %d of a shard: %w", r.K, maxK, index.ErrQuery)
	}
	if m.Vectors, err = appendVectors(m.Vectors, r.Vectors); err != nil {
		return err
	}
	if r.Floored {
		m.Floor = &r.Floor
	}
	if m.Filter, err = filterOf(r.Filter); err != nil {
		return err
	}
	if r.Included {
		m.Include = pack(c.include, r.Include)
	}
	if len(r.Exclude) > 0 {
		m.Exclude = pack(c.exclude, r.Exclude)
	}
	for _, field := range r.Limited {
		m.Limited = append(m.Limited, uint32(field))
	}
	m.Full = fieldValuesOf(r.Full)
	m.Taken, m.TakenFresh, err = names.splitTaken(r.Taken, m.Taken)
	return err
}

// pack makes texts those of a list.
func pack(t *shardv1.Texts, list []string) *shardv1.Texts {
	t.Text, t.Lengths = t.Text[:0], t.Lengths[:0]
	for _, text := range list {
		addText(t, text)
	}
	return t
}

// appendVectors appends the numbers of vectors, which must be of one dimension. The error is of
// class [index.ErrQuery].
func appendVectors(dst []float32, vectors [][]float32) ([]float32, error) {
	for i, v := range vectors {
		if len(v) != len(vectors[0]) || len(v) == 0 {
			return nil, fmt.Errorf("vector %d has %d components, and the first %d; want as many, at least 1: %w", i, len(v), len(vectors[0]), index.ErrQuery)
		}
		dst = append(dst, v...)
	}
	return dst, nil
}

// readReply makes reply what a node has replied to a request, after a check that it can be one.
func readReply(m *shardv1.SearchResponse, r *shard.Request, names *Names, reply *shard.Reply) error {
	if err := checkReply(m, r); err != nil {
		return err
	}
	values, err := readFieldValues("values", m.GetValues(), r.Limited)
	if err != nil {
		return err
	}
	metric := names.metric
	reply.Reset()
	reply.Hits = slices.Grow(reply.Hits, len(m.GetScores()))
	text := m.GetIds().GetText()
	for i, score := range m.GetScores() {
		n := m.Ids.Lengths[i]
		if n == 0 || n > shard.MaxIDLen {
			return fmt.Errorf("the id of hit %d has %d bytes; want 1 to %d", i, n, shard.MaxIDLen)
		}
		id := view(text[:n])
		text = text[n:]
		ref := m.Ordinals[i]
		switch {
		case ref == freshOrdinal:
			if ref, err = names.ref(id); err != nil {
				return err
			}
		case ref >= freshBit:
			return fmt.Errorf("hit %d has ordinal %d; want one of a shard", i, ref)
		}
		reply.Add(id, ref, score)
		if i > 0 && !before(&reply.Hits[i-1], &reply.Hits[i], metric) {
			return fmt.Errorf("hit %d is not after the one before it", i)
		}
		if len(m.GetValueCounts()) > 0 {
			count := m.ValueCounts[i]
			if uint64(count) > uint64(len(values)) {
				return fmt.Errorf("the values of hit %d are missing", i)
			}
			for _, v := range values[:count] {
				reply.AddValue(v)
			}
			values = values[count:]
		}
	}
	if len(values) > 0 {
		return fmt.Errorf("%d values are of no hit", len(values))
	}
	reply.Eligible, reply.Left, reply.Asked = int(m.GetEligible()), int(m.GetLeft()), int(m.GetAsked())
	reply.UnknownInclude, reply.UnknownExclude = int(m.GetUnknownInclude()), int(m.GetUnknownExclude())
	reply.Stats = readStats(m.GetStats())
	reply.Filter, reply.Search = time.Duration(m.GetFilterNanos()), time.Duration(m.GetSearchNanos())
	return nil
}

// checkReply returns an error unless the numbers of a reply are such that a fan-out can go on
// with them.
func checkReply(m *shardv1.SearchResponse, r *shard.Request) error {
	hits := len(m.GetScores())
	if len(m.GetOrdinals()) != hits || len(m.GetIds().GetLengths()) != hits {
		return fmt.Errorf("%d scores, %d ordinals and %d ids; want as many of each", hits, len(m.GetOrdinals()), len(m.GetIds().GetLengths()))
	}
	if n := len(m.GetValueCounts()); len(r.Limited) > 0 && n != hits || len(r.Limited) == 0 && n > 0 {
		return fmt.Errorf("%d counts of values for %d hits with %d limited attributes", n, hits, len(r.Limited))
	}
	if err := checkTexts("ids", m.GetIds()); err != nil {
		return err
	}
	const most = 1 << 40 // what no sum of counts of a tower's shards goes beyond an int with
	switch asked := int(m.GetAsked()); {
	case max(m.GetEligible(), m.GetLeft(), m.GetUnknownInclude(), m.GetUnknownExclude()) > most:
		return fmt.Errorf("a count is %d", max(m.GetEligible(), m.GetLeft(), m.GetUnknownInclude(), m.GetUnknownExclude()))
	case asked < 1 || asked > r.K:
		return fmt.Errorf("%d hits were looked for; want 1 to %d", asked, r.K)
	case hits > asked || uint64(hits) > m.GetLeft():
		return fmt.Errorf("%d hits, of %d that were looked for and %d that there are", hits, asked, m.GetLeft())
	case !r.Floored && hits < asked && uint64(hits) < m.GetLeft():
		return fmt.Errorf("%d hits, though %d were looked for, and there are %d", hits, asked, m.GetLeft())
	}
	return nil
}

func readStats(s *shardv1.SearchStats) index.Stats {
	return index.Stats{
		Plan: index.Plan(s.GetPlan()), Reason: index.Reason(s.GetReason()), Walk: index.Plan(s.GetWalk()), Ef: int(s.GetEf()),
		Scored: int(s.GetScored()), Expanded: int(s.GetExpanded()), Through: int(s.GetThrough()),
		Apart: s.GetApart(), GaveUp: s.GetGaveUp(), ExactCost: s.GetExactCost(), WalkCost: s.GetWalkCost(),
	}
}
