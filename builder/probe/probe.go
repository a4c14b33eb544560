// Package probe asks a snapshot what it should answer, and picks who asks.
//
// [Exact] scores whole vectors against queries and keeps the best. It reads no code,
// no graph and no plan, so that whatever is wrong with those cannot be wrong with it.
// [Pick] and [HeldOut] choose rows by the hash of their ids, so that the same rows are
// chosen whatever the order of the input and the layout of the shards.
//
// Packages builder/compare and builder/gate are its callers.
package probe

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/parallel"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
)

// Hit is a row of an exact answer.
type Hit struct {
	ID    string
	Score float32 // the metric's value
	shard int32
	row   uint32 // ordinal
}

// Answers are exact answers to a list of queries, among all rows of a tower and among
// those of each segment.
type Answers struct {
	// All has the best rows for each query, best first, ties by id.
	All [][]Hit
	// Segments has the same for each segment of the tower that was asked for, in the
	// order in which they were.
	Segments [][][]Hit

	members []index.Bitset // by segment and shard
	shards  int
}

// InSegment reports whether a row of an answer is in the segment of that position.
func (a *Answers) InSegment(segment int, h Hit) bool {
	return a.members[segment*a.shards+int(h.shard)].Has(h.row)
}

const (
	block = 256 // rows that are scored together
	batch = 32  // queries that are asked together
)

// Exact returns the k best rows of t for each query, by the metric over whole vectors.
// It scores on as many goroutines as there are processors; the answers do not depend on
// their number.
func Exact(ctx context.Context, t *shard.Tower, queries [][]float32, k int, segments []string) (*Answers, error) {
	a := &Answers{All: make([][]Hit, len(queries)), shards: len(t.Local())}
	listed := make([][]uint32, 0, len(segments)*a.shards) // the ordinals of members
	for _, name := range segments {
		a.Segments = append(a.Segments, make([][]Hit, len(queries)))
		for _, s := range t.Local() {
			b := index.NewBitset(s.Rows())
			s.InSegment(name, b)
			a.members = append(a.members, b)
			listed = append(listed, b.Append(nil))
		}
	}
	err := Each(ctx, (len(queries)+batch-1)/batch, func(i int) error {
		from, to := i*batch, min((i+1)*batch, len(queries))
		a.answer(t, queries[from:to], from, k, listed)
		return nil
	})
	return a, err
}

// answer answers a batch of queries.
func (a *Answers) answer(t *shard.Tower, queries [][]float32, from, k int, listed [][]uint32) {
	segments := len(a.Segments)
	tops := make([]top, len(queries)*(1+segments))
	for i := range tops {
		tops[i] = newTop(t, k)
	}
	scorer := NewScorer(t, queries)
	scores := make([]float32, block)
	at := make([]int, segments) // how far each list of members is read
	for number, s := range t.Local() {
		clear(at)
		for first := 0; first < s.Rows(); first += block {
			n := min(block, s.Rows()-first)
			scorer.Load(s, first, n)
			for q := range queries {
				scorer.Score(q, scores[:n])
				tops[q*(1+segments)].addRange(number, first, scores[:n])
				for g := range segments {
					list := listed[g*a.shards+number]
					to := &tops[q*(1+segments)+1+g]
					for _, row := range list[at[g]:] {
						if int(row) >= first+n {
							break
						}
						to.add(number, row, scores[int(row)-first])
					}
				}
			}
			for g := range segments {
				list := listed[g*a.shards+number]
				for at[g] < len(list) && int(list[at[g]]) < first+n {
					at[g]++
				}
			}
		}
	}
	for q := range queries {
		a.All[from+q] = tops[q*(1+segments)].sorted()
		for g := range segments {
			a.Segments[g][from+q] = tops[q*(1+segments)+1+g].sorted()
		}
	}
}

type threadsKey struct{}

// WithThreads has searches and [Each] use so many goroutines instead of as many as there are
// processors, as beside queries that are answered.
func WithThreads(ctx context.Context, threads int) context.Context {
	return context.WithValue(ctx, threadsKey{}, threads)
}

func threads(ctx context.Context) int {
	if n, ok := ctx.Value(threadsKey{}).(int); ok {
		return n
	}
	return runtime.GOMAXPROCS(0)
}

// Each calls f with 0 to n-1 on as many goroutines as there are processors (see
// [WithThreads]), until one fails or ctx ends, and returns why. A mapped file that cannot be
// read is a failure.
func Each(ctx context.Context, n int, f func(i int) error) error {
	var mu sync.Mutex
	var failed error
	note := func(err error) (ended bool) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			failed = err
		}
		return failed != nil
	}
	parallel.Chunks(threads(ctx), n, 1, func(_, i int) {
		if !note(ctx.Err()) {
			note(guarded(f, i))
		}
	})
	note(ctx.Err())
	return failed
}

func guarded(f func(int) error, i int) (err error) {
	defer sections.Guard(&err)()
	return f(i)
}

// Scorer scores rows of a tower against queries by the metric. It is for one goroutine.
type Scorer struct {
	metric  index.Metric
	queries []float32 // padded, scaled to norm 1 under cosine
	rows    []float32
	loaded  int
	stride  int
	dim     int
	vector  []float32
}

// NewScorer returns a scorer of the vectors of t.
func NewScorer(t *shard.Tower, queries [][]float32) *Scorer {
	s := &Scorer{metric: t.Metric(), dim: t.Dim(), stride: kernel.Stride(t.Dim())}
	s.queries = make([]float32, len(queries)*s.stride)
	for i, q := range queries {
		s.place(s.queries[i*s.stride:], q)
	}
	return s
}

// place copies a vector, as it is compared, to where its padding is zero.
func (s *Scorer) place(dst, v []float32) {
	copy(dst[:s.dim], v)
	if s.metric != index.Cosine {
		return
	}
	if norm := Norm(v); norm > 0 {
		for i := range dst[:s.dim] {
			dst[i] = float32(float64(dst[i]) / norm)
		}
	}
}

// Load makes n rows of a shard from first on those that are scored.
func (s *Scorer) Load(from *shard.Shard, first, n int) {
	s.begin(n)
	for i := range n {
		s.load(i, from, uint32(first+i))
	}
}

// LoadRows makes rows those that are scored.
func (s *Scorer) LoadRows(rows []Row) {
	s.begin(len(rows))
	for i, r := range rows {
		s.load(i, r.shard, r.ordinal)
	}
}

func (s *Scorer) begin(n int) {
	s.loaded = n
	s.rows = slices.Grow(s.rows[:0], n*s.stride)[:n*s.stride]
	clear(s.rows)
}

func (s *Scorer) load(i int, from *shard.Shard, ordinal uint32) {
	s.vector = from.Index().Vector(ordinal, s.vector[:0])
	s.place(s.rows[i*s.stride:], s.vector)
}

// Score sets out to the scores of the loaded rows against one of the queries.
func (s *Scorer) Score(query int, out []float32) {
	q := s.queries[query*s.stride : (query+1)*s.stride]
	if s.metric == index.L2 {
		kernel.L2Range(q, s.rows, 0, out[:s.loaded])
	} else {
		kernel.DotRange(q, s.rows, 0, out[:s.loaded])
	}
}

// Norm returns the Euclidean norm of v.
func Norm(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(float64(x) * float64(x))
	}
	return math.Sqrt(sum)
}

// top keeps the best hits of one query, ties by id. A hit's id is looked up only where
// scores are equal, and costs as little where all are.
type top struct {
	tower *shard.Tower
	k     int
	hits  []Hit
	worst Hit // the k-th of those that were pruned
	full  bool
}

func newTop(t *shard.Tower, k int) top { return top{tower: t, k: k} }

func (t *top) addRange(number, first int, scores []float32) {
	for i, score := range scores {
		t.add(number, uint32(first+i), score)
	}
}

// add considers a row.
func (t *top) add(number int, row uint32, score float32) {
	h := Hit{Score: score, shard: int32(number), row: row}
	if t.full && t.order(&t.worst, &h) < 0 {
		return
	}
	t.hits = append(t.hits, h)
	if len(t.hits) >= 4*t.k+block {
		t.prune()
	}
}

// prune leaves the k best, in order.
func (t *top) prune() {
	slices.SortFunc(t.hits, func(a, b Hit) int { return t.order(&a, &b) })
	if len(t.hits) >= t.k {
		t.hits = t.hits[:t.k]
		t.worst, t.full = t.hits[t.k-1], true
	}
}

// order compares two hits: the better score first, then the lower id.
func (t *top) order(a, b *Hit) int {
	switch metric := t.tower.Metric(); {
	case metric.Better(a.Score, b.Score):
		return -1
	case metric.Better(b.Score, a.Score):
		return 1
	}
	in := t.tower.Local()[a.shard]
	if a.shard == b.shard { // whose rows are in the order of their ids
		return cmp.Compare(in.Index().Row(a.row), in.Index().Row(b.row))
	}
	return cmp.Compare(in.ID(a.row), t.tower.Local()[b.shard].ID(b.row))
}

// sorted returns the best hits with their ids.
func (t *top) sorted() []Hit {
	t.prune()
	for i := range t.hits {
		h := &t.hits[i]
		h.ID = t.tower.Local()[h.shard].ID(h.row)
	}
	return slices.Clip(t.hits)
}
