package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// freshOrdinal stands for the ordinal of a row that is named by its id.
const freshOrdinal = 1<<32 - 1

// maxK is how many rows a shard may be asked for.
const maxK = 1 << 24

// job is the memory of one search.
type job struct {
	request shard.Request
	include []string
	exclude []string
	fresh   []string // ids of rows that were taken
	taken   []uint32
	found   []bool
	replies []*shard.Reply
	lists   [][]shard.Hit // what is left of the replies' hits
	merged  []hit
}

// hit is one hit of a part.
type hit struct {
	*shard.Hit
	part int
}

// search answers a request.
func (h *Handler) search(ctx context.Context, s *held, m *shardv1.SearchRequest) (*shardv1.SearchResponse, error) {
	return h.searchPausing(ctx, s, m, nil)
}

// searchPausing answers a request, and calls pause, unless it is nil, in the midst of it.
func (h *Handler) searchPausing(ctx context.Context, s *held, m *shardv1.SearchRequest, pause func()) (*shardv1.SearchResponse, error) {
	j := h.jobs.Get().(*job)
	defer j.release(h)
	if err := j.read(ctx, s, m); err != nil {
		return nil, badQuery(err)
	}
	j.request.Pause = pause
	for len(j.replies) < len(s.parts) {
		j.replies = append(j.replies, new(shard.Reply))
	}
	for i := range s.parts {
		if err := j.ask(ctx, s, i, m.GetTaken()); err != nil {
			return nil, err
		}
	}
	j.merge(s.tower.Metric(), len(s.parts))
	out, err := j.reply(len(s.parts), h.o.MaxReplyBytes)
	if err != nil {
		return nil, err
	}
	out.InFlight = uint32(h.inFlight.Load())
	return out, nil
}

// release ends the use of the memory.
func (j *job) release(h *Handler) {
	clear(j.include)
	clear(j.exclude)
	clear(j.fresh)
	clear(j.merged)
	clear(j.lists)
	j.request = shard.Request{}
	room := cap(j.include) + cap(j.exclude) + cap(j.fresh) + cap(j.taken)
	for _, r := range j.replies {
		room += cap(r.Hits)
	}
	if room <= keptRoom && len(j.replies) <= keptReplies {
		h.jobs.Put(j)
	}
}

// What a job may have to be kept for the next: a few requests for very much would hold it for
// long.
const (
	keptRoom    = 1 << 15
	keptReplies = 64
)

// read makes the request what a message asks.
func (j *job) read(ctx context.Context, s *held, m *shardv1.SearchRequest) (err error) {
	r := &j.request
	*r = shard.Request{
		Moment: s.at, K: int(m.GetK()), Ef: int(m.GetEf()), Target: m.GetTarget(), Expected: int(m.GetExpected()), Plan: index.Plan(m.GetPlan()),
		Floored: m.Floor != nil, Floor: m.GetFloor(), Segment: m.GetSegment(), Included: m.GetInclude() != nil,
	}
	switch {
	case m.GetVectorCount() == 0:
		return errors.New("vector_count is 0; accepted: at least 1")
	case r.K < 1 || r.K > maxK:
		return fmt.Errorf("k is %d; accepted: 1 to %d", r.K, maxK)
	case r.Ef == 0 && !(r.Target > 0 && r.Target <= 1):
		return fmt.Errorf("target is %v; accepted: above 0 and at most 1", r.Target)
	case r.Expected > r.K:
		return fmt.Errorf("expected is %d; accepted: 0 to k, %d", r.Expected, r.K)
	case m.GetPlan() < 0 || m.GetPlan() > tandemv1.Plan_PLAN_GRAPH_WALK:
		return fmt.Errorf("plan is %d; accepted: 0 to %d", m.GetPlan(), tandemv1.Plan_PLAN_GRAPH_WALK)
	}
	if r.Vectors, err = readVectors(m.GetVectors(), m.GetVectorCount()); err != nil {
		return err
	}
	for _, list := range []struct {
		name string
		from *shardv1.Texts
		to   *[]string
	}{{"include", m.GetInclude(), &j.include}, {"exclude", m.GetExclude(), &j.exclude}, {"taken_fresh", m.GetTakenFresh(), &j.fresh}} {
		if err := checkTexts(list.name, list.from); err != nil {
			return err
		}
		*list.to = appendTexts((*list.to)[:0], list.from)
	}
	r.Include, r.Exclude = j.include, j.exclude
	if r.Limited, err = readLimited(m.GetLimited(), s); err != nil {
		return err
	}
	if m.GetFull() != nil {
		if r.Full, err = readFieldValues("full", m.GetFull(), r.Limited); err != nil {
			return err
		}
	}
	r.Filter, err = readFilter(ctx, m.GetFilter(), s.tower)
	return err
}

// readVectors returns vectors, which share the memory of their numbers.
func readVectors(numbers []float32, count uint32) ([][]float32, error) {
	if count == 0 && len(numbers) == 0 {
		return nil, nil
	}
	if count == 0 || uint64(count) > uint64(len(numbers)) || len(numbers)%int(count) != 0 {
		return nil, fmt.Errorf("vectors has %d numbers; want as many for each of vector_count, %d", len(numbers), count)
	}
	dim := len(numbers) / int(count)
	vectors := make([][]float32, count)
	for i := range vectors {
		vectors[i] = numbers[i*dim : (i+1)*dim : (i+1)*dim]
	}
	return vectors, nil
}

// readLimited returns positions of attributes that may be limited.
func readLimited(list []uint32, s *held) ([]int, error) {
	if len(list) == 0 {
		return nil, nil
	}
	schema := s.tower.Schema()
	if len(list) > schema.Len() {
		return nil, fmt.Errorf("limited has %d attributes; the schema has %d", len(list), schema.Len())
	}
	out := make([]int, len(list))
	for i, field := range list {
		if int64(field) >= int64(schema.Len()) || !shard.Limitable(schema.Field(int(field)).Type) {
			return nil, fmt.Errorf("limited has attribute %d; accepted: those of the schema, which has %d, that may be limited", field, schema.Len())
		}
		out[i] = int(field)
	}
	return out, nil
}

// ask asks one of the parts.
func (j *job) ask(ctx context.Context, s *held, i int, taken []uint32) error {
	p, reply := s.parts[i], j.replies[i]
	r := j.request
	if i == 0 {
		if err := checkOrdinals("taken", taken, p); err != nil {
			return badQuery(err)
		}
		r.Taken = taken
	} else {
		if err := j.takenOf(p, &r); err != nil {
			return err
		}
		j.raiseFloor(&r, s.tower.Metric())
	}
	err := p.Search(ctx, &r, reply)
	if reply.Kept != nil {
		reply.Kept.Release()
		reply.Kept = nil
	}
	return err
}

// takenOf makes the request have the part's names of the fresh rows that were taken.
func (j *job) takenOf(p part, r *shard.Request) error {
	j.taken = j.taken[:0]
	if len(j.fresh) > 0 {
		n := len(j.fresh)
		j.taken, j.found = slices.Grow(j.taken, n)[:n], slices.Grow(j.found[:0], n)[:n]
		if err := p.Refs(r.Moment, j.fresh, j.taken, j.found); err != nil {
			return err
		}
		kept := j.taken[:0]
		for i, ref := range j.taken {
			if j.found[i] {
				kept = append(kept, ref)
			}
		}
		j.taken = kept
	}
	r.Taken = j.taken
	return nil
}

// raiseFloor lets a part of fresh rows leave out what is worse than the rows of the snapshot
// that were found, if those are enough.
func (j *job) raiseFloor(r *shard.Request, metric index.Metric) {
	if found := j.replies[0].Hits; len(found) == r.K && len(r.Full) == 0 {
		last := found[len(found)-1].Score
		if !r.Floored || metric.Better(last, r.Floor) {
			r.Floored, r.Floor = true, last
		}
	}
}

// checkOrdinals returns an error unless all are those of a shard, as far as its part knows.
func checkOrdinals(name string, ordinals []uint32, p part) error {
	l, ok := p.(interface{ Shard() *shard.Shard })
	if !ok || len(ordinals) == 0 {
		return nil
	}
	rows := l.Shard().Rows()
	for _, ordinal := range ordinals {
		if int64(ordinal) >= int64(rows) {
			return fmt.Errorf("%s has ordinal %d; the shard has %d rows", name, ordinal, rows)
		}
	}
	return nil
}

// merge makes merged the best hits of all parts, best first, ties by id: as many as were looked
// for. An id is in one part only. Hits below the floor are left out if there are several parts:
// one may have left out such that rank before those of another.
func (j *job) merge(metric index.Metric, parts int) {
	j.lists, j.merged = j.lists[:0], j.merged[:0]
	total := 0
	for _, r := range j.replies[:parts] {
		hits := r.Hits
		if parts > 1 && j.request.Floored {
			for len(hits) > 0 && metric.Better(j.request.Floor, hits[len(hits)-1].Score) {
				hits = hits[:len(hits)-1]
			}
		}
		j.lists = append(j.lists, hits)
		total += len(hits)
	}
	n := min(total, j.looked(parts))
	j.merged = slices.Grow(j.merged, n)
	for len(j.merged) < n {
		best := -1
		for i, list := range j.lists {
			if len(list) > 0 && (best < 0 || before(&list[0], &j.lists[best][0], metric)) {
				best = i
			}
		}
		j.merged = append(j.merged, hit{&j.lists[best][0], best})
		j.lists[best] = j.lists[best][1:]
	}
}

// before orders hits best first, ties by id.
func before(a, b *shard.Hit, metric index.Metric) bool {
	if a.Score != b.Score {
		return metric.Better(a.Score, b.Score)
	}
	return a.ID < b.ID
}

// looked returns how many hits were looked for, as [shard.Reply].Asked has it.
func (j *job) looked(parts int) int {
	if len(j.request.Full) == 0 {
		return j.request.K
	}
	left := 0
	for _, r := range j.replies[:parts] {
		left += r.Left
	}
	return min(j.request.K, max(left, 1))
}

// reply returns what was found as it is sent. It has at most about so many bytes.
func (j *job) reply(parts, most int) (*shardv1.SearchResponse, error) {
	size, values := 0, 0
	for _, h := range j.merged {
		size += len(h.ID) + 12
		for _, v := range h.Values {
			size += len(v.Text) + 12
			values++
		}
	}
	if size > most {
		return nil, refusef(BadQuery, "%d rows of a shard, with what limits need of them, have %d bytes; accepted: up to %d: %v", len(j.merged), size, most, index.ErrQuery)
	}
	out := &shardv1.SearchResponse{
		Scores: make([]float32, len(j.merged)), Ordinals: make([]uint32, len(j.merged)),
		Ids: &shardv1.Texts{Text: make([]byte, 0, size-12*len(j.merged)), Lengths: make([]uint32, 0, len(j.merged))},
	}
	if len(j.request.Limited) > 0 {
		out.ValueCounts, out.Values = make([]uint32, len(j.merged)), &shardv1.FieldValues{}
	}
	for i, h := range j.merged {
		out.Scores[i], out.Ordinals[i] = h.Score, h.Ref
		if h.part > 0 {
			out.Ordinals[i] = freshOrdinal
		}
		addText(out.Ids, h.ID)
		if out.Values != nil {
			out.ValueCounts[i] = uint32(len(h.Values))
			addFieldValues(out.Values, h.Values)
		}
	}
	j.count(out, parts)
	return out, nil
}

// count adds what the parts have counted. Each was asked about all ids to include and to
// exclude: those that one has, the others do not.
func (j *job) count(out *shardv1.SearchResponse, parts int) {
	include, exclude := -(parts-1)*len(j.request.Include), -(parts-1)*len(j.request.Exclude)
	stats := j.replies[0].Stats
	out.Stats = &shardv1.SearchStats{
		Plan: tandemv1.Plan(stats.Plan), Reason: uint32(stats.Reason), Walk: tandemv1.Plan(stats.Walk), Ef: uint32(stats.Ef),
		Apart: stats.Apart, GaveUp: stats.GaveUp, ExactCost: stats.ExactCost, WalkCost: stats.WalkCost,
	}
	for _, r := range j.replies[:parts] {
		out.Eligible += uint64(r.Eligible)
		out.Left += uint64(r.Left)
		include += r.UnknownInclude
		exclude += r.UnknownExclude
		out.Stats.Scored += uint64(r.Stats.Scored)
		out.Stats.Expanded += uint64(r.Stats.Expanded)
		out.Stats.Through += uint64(r.Stats.Through)
		out.FilterNanos += uint64(r.Filter)
		out.SearchNanos += uint64(r.Search)
	}
	out.UnknownInclude, out.UnknownExclude = uint64(max(include, 0)), uint64(max(exclude, 0))
	out.Asked = uint32(j.looked(parts))
}
