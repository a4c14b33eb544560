package shard_test

import (
	"context"
	"encoding/gob"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

var piped = flag.Int("piped", somePiped, "how many queries TestPartsOverPipes asks")

// pipedPart is a part at the other end of a pipe, over which only bytes go. Nothing is
// kept there from one call to the next.
type pipedPart struct {
	info shard.Info

	mu   sync.Mutex // one call at a time
	out  *gob.Encoder
	in   *gob.Decoder
	full int // calls that said which values are full
}

// pipedCall is a call of a method of a part.
type pipedCall struct {
	Method    string
	Moment    shard.Moment
	Vectors   [][]float32
	K, Ef     int
	Expected  int
	Target    float64
	Plan      index.Plan
	Floored   bool
	Floor     float32
	Filtered  bool
	Filter    string
	Bindings  map[string]any
	Segment   string
	Included  bool
	Include   []string
	Exclude   []string
	Limited   []int
	Full      []shard.FieldValue
	Taken     []uint32
	IDs       []string
	Refs      []uint32
	Fields    []int
	Most      int
	Requested int // values
}

// pipedResult is what it returns.
type pipedResult struct {
	Error     string
	BadQuery  bool
	Hits      []shard.Hit
	Counts    [5]int
	Stats     index.Stats
	Explained []shard.ExplainedRow
	Vectors   [][]float32
	Rows      int
	Values    []pipedValue
}

// pipedValue is an attribute.
type pipedValue struct {
	Type   attribute.Type
	Text   string
	List   []string
	Bool   bool
	Int    int64
	Float  float64
	Single float32
	Time   time.Time
}

func init() {
	gob.Register(time.Time{})
	gob.Register([]any{})
}

func newPipedValue(v attribute.Value) (p pipedValue) {
	switch p.Type = v.Type(); p.Type {
	case attribute.Keyword:
		p.Text = v.Keyword()
	case attribute.KeywordList:
		p.List = v.Keywords()
	case attribute.Bool:
		p.Bool = v.Bool()
	case attribute.Int:
		p.Int = v.Int()
	case attribute.Float:
		p.Float = v.Float()
	case attribute.Float32:
		p.Single = v.Float32()
	case attribute.Timestamp:
		p.Time = v.Time()
	}
	return p
}

func (p *pipedValue) value() attribute.Value {
	switch p.Type {
	case attribute.Keyword:
		return attribute.OfKeyword(p.Text)
	case attribute.KeywordList:
		return attribute.OfKeywords(p.List)
	case attribute.Bool:
		return attribute.OfBool(p.Bool)
	case attribute.Int:
		return attribute.OfInt(p.Int)
	case attribute.Float:
		return attribute.OfFloat(p.Float)
	case attribute.Float32:
		return attribute.OfFloat32(p.Single)
	case attribute.Timestamp:
		return attribute.OfTimestamp(p.Time)
	}
	return attribute.Value{}
}

// overPipe returns a part that is elsewhere, and ends with the test.
func overPipe(t testing.TB, s *shard.Shard) *pipedPart {
	compiler, err := eligibility.NewCompiler(s.Attributes().Schema())
	require.NoError(t, err)
	return localOverPipe(t, shard.NewLocal(s, compiler))
}

// localOverPipe is overPipe of a shard with what lies over it.
func localOverPipe(t testing.TB, local *shard.Local) *pipedPart {
	compiler, err := eligibility.NewCompiler(local.Shard().Attributes().Schema())
	require.NoError(t, err)
	callIn, callOut := io.Pipe()
	resultIn, resultOut := io.Pipe()
	var served sync.WaitGroup
	served.Go(func() {
		in, out := gob.NewDecoder(callIn), gob.NewEncoder(resultOut)
		for {
			var c pipedCall
			if in.Decode(&c) != nil {
				return // it was closed
			}
			r := c.run(local, compiler)
			if out.Encode(&r) != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		require.NoError(t, errors.Join(callOut.Close(), resultIn.Close()))
		served.Wait()
	})
	return &pipedPart{info: local.Info(), out: gob.NewEncoder(callOut), in: gob.NewDecoder(resultIn)}
}

// run makes the call where the part is.
func (c *pipedCall) run(local *shard.Local, compiler *eligibility.Compiler) (r pipedResult) {
	ctx := context.Background()
	request := &shard.Request{
		Moment: c.Moment, Vectors: c.Vectors, K: c.K, Ef: c.Ef, Expected: c.Expected, Target: c.Target, Plan: c.Plan, Segment: c.Segment, Floored: c.Floored, Floor: c.Floor,
		Included: c.Included, Include: c.Include, Exclude: c.Exclude, Limited: c.Limited, Full: c.Full, Taken: c.Taken,
	}
	var err error
	if c.Filtered {
		var filter *eligibility.Filter
		if filter, err = compiler.Compile(c.Filter); err == nil {
			var bound eligibility.Bound
			bound, err = filter.Bind(ctx, c.Bindings)
			request.Filter = &bound
		}
	}
	switch {
	case err != nil:
	case c.Method == "search":
		var reply shard.Reply
		if err = local.Search(ctx, request, &reply); err == nil {
			r.Hits, r.Stats = reply.Hits, reply.Stats
			r.Counts = [...]int{reply.Eligible, reply.Left, reply.Asked, reply.UnknownInclude, reply.UnknownExclude}
			if reply.Kept != nil {
				reply.Kept.Release()
			}
		}
	case c.Method == "explain":
		r.Explained, err = local.Explain(ctx, request, c.IDs)
	case c.Method == "vectors":
		r.Vectors = make([][]float32, len(c.IDs))
		err = local.Vectors(ctx, c.Moment, c.IDs, r.Vectors)
	default:
		values := make([]attribute.Value, c.Requested)
		r.Rows, err = local.Attributes(ctx, c.Moment, c.Refs, c.Fields, c.Most, values)
		for _, v := range values {
			r.Values = append(r.Values, newPipedValue(v))
		}
	}
	if err != nil {
		r = pipedResult{Error: err.Error(), BadQuery: errors.Is(err, index.ErrQuery)}
	}
	return r
}

// call makes a call from here.
func (p *pipedPart) call(c *pipedCall) (r pipedResult, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(c.Full) > 0 {
		p.full++
	}
	if err := errors.Join(p.out.Encode(c), p.in.Decode(&r)); err != nil {
		return r, err
	}
	switch {
	case r.BadQuery:
		err = &badQuery{r.Error}
	case r.Error != "":
		err = errors.New(r.Error)
	}
	return r, err
}

// badQuery is an error of class index.ErrQuery.
type badQuery struct{ text string }

func (e *badQuery) Error() string { return e.text }
func (e *badQuery) Unwrap() error { return index.ErrQuery }

func newPipedCall(method string, r *shard.Request) *pipedCall {
	c := &pipedCall{
		Method: method, Moment: r.Moment, Vectors: r.Vectors, K: r.K, Ef: r.Ef, Expected: r.Expected, Target: r.Target, Plan: r.Plan, Segment: r.Segment, Floored: r.Floored, Floor: r.Floor,
		Included: r.Included, Include: r.Include, Exclude: r.Exclude, Limited: r.Limited, Full: r.Full, Taken: r.Taken,
	}
	if r.Filter != nil {
		c.Filtered, c.Filter, c.Bindings = true, r.Filter.String(), r.Filter.Bindings()
	}
	return c
}

func (p *pipedPart) Info() shard.Info { return p.info }

func (p *pipedPart) Search(_ context.Context, r *shard.Request, reply *shard.Reply) error {
	got, err := p.call(newPipedCall("search", r))
	if err != nil {
		return err
	}
	reply.Reset()
	for _, h := range got.Hits {
		reply.Add(h.ID, h.Ref, h.Score)
		for _, v := range h.Values {
			reply.AddValue(v)
		}
	}
	reply.Eligible, reply.Left, reply.Asked, reply.UnknownInclude, reply.UnknownExclude = got.Counts[0], got.Counts[1], got.Counts[2], got.Counts[3], got.Counts[4]
	reply.Stats = got.Stats
	return nil
}

func (p *pipedPart) Explain(_ context.Context, r *shard.Request, ids []string) ([]shard.ExplainedRow, error) {
	c := newPipedCall("explain", r)
	c.IDs = ids
	got, err := p.call(c)
	return got.Explained, err
}

func (p *pipedPart) Vectors(_ context.Context, at shard.Moment, ids []string, dst [][]float32) error {
	got, err := p.call(&pipedCall{Method: "vectors", Moment: at, IDs: ids})
	for i, v := range got.Vectors {
		if dst[i] = nil; len(v) > 0 { // gob has no nil
			dst[i] = v
		}
	}
	return err
}

func (p *pipedPart) Attributes(_ context.Context, at shard.Moment, refs []uint32, fields []int, most int, dst []attribute.Value) (int, error) {
	got, err := p.call(&pipedCall{Method: "attributes", Moment: at, Refs: refs, Fields: fields, Most: most, Requested: len(dst)})
	for i := range got.Values {
		dst[i] = got.Values[i].value()
	}
	return got.Rows, err
}

// TestPartsOverPipes asks the same random queries of shards of this process and of shards
// of which nothing but bytes is known here. The answers are the same, whatever is asked.
func TestPartsOverPipes(t *testing.T) {
	asked, failed, full := 0, 0, 0
	for number := uint64(1000); asked < *piped; number++ {
		dir, err := os.MkdirTemp(t.TempDir(), "store")
		require.NoError(t, err)
		s := newTrialSet(t, dir, *trialsSeed, number)
		var parts []shard.Part
		for _, local := range s.tower.Local() {
			parts = append(parts, overPipe(t, local))
		}
		remote, err := shard.NewTowerOf(shard.Apps, parts, len(parts), s.metric, s.dim, s.tower.Schema())
		require.NoError(t, err)
		require.Empty(t, remote.Local())
		require.Equal(t, s.tower.SegmentRows(), remote.SegmentRows())
		d := drawer{rand.New(rand.NewPCG(*trialsSeed, ^number))}
		for range min(500, *piped-asked) {
			trial := s.draw(d)
			s.drawRest(d, &trial.query)
			want, wantErr := s.tower.Search(t.Context(), &trial.query)
			got, err := remote.Search(t.Context(), &trial.query)
			require.True(t, sameAnswer(want, got) && sameError(wantErr, err), "%s: %s: %v, want %v", s.name, &trial, err, wantErr)
			asked++
			if err != nil {
				failed++
			}
		}
		for _, p := range parts {
			full += p.(*pipedPart).full
		}
		ids := []string{"nobody", s.rows[0].id, s.rows[len(s.rows)/2].id, "", s.rows[0].id}
		want, err := s.tower.Vectors(t.Context(), shard.Moment{}, ids)
		require.NoError(t, err)
		got, err := remote.Vectors(t.Context(), shard.Moment{}, ids)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Nil(t, got[0])
		require.NotNil(t, got[1])
		require.NoError(t, s.tower.Close())
		require.NoError(t, os.RemoveAll(dir))
	}
	t.Logf("%d queries, %d of them in error; %d calls said which values are full", asked, failed, full)
	if asked >= 1000 {
		require.Greater(t, full, asked/100)
		require.Greater(t, failed, asked/200)
	}
}

// drawRest adds what a trial does not look at: what is returned and explained.
func (s *trialSet) drawRest(d drawer, q *shard.Query) {
	q.Workers = d.IntN(3)
	if d.chance(25) {
		q.AtMost = []shard.AtMost{{Field: trialGenre, N: pickOne(d, 1, 2, 20)}, {Field: pickOne(d, trialFlag, trialTags, trialYear), N: pickOne(d, 1, 3, 40)}}
	}
	if d.chance(50) {
		for range 1 + d.IntN(3) {
			q.Attributes = append(q.Attributes, d.IntN(trialFields))
		}
		if d.chance(20) {
			q.MaxText = 1 + d.IntN(200)
		}
	}
	if d.chance(30) {
		q.Explain = append(q.Explain, "nobody", s.rows[d.IntN(len(s.rows))].id, s.rows[d.IntN(len(s.rows))].id, q.Self)
		q.Explain = append(q.Explain, q.Exclude...)
		q.Explain = append(q.Explain, q.Include[:min(len(q.Include), 5)]...)
	}
	if d.chance(1) {
		q.Vectors = [][]float32{make([]float32, s.dim+1)}
	}
}

// sameAnswer compares answers but for the time that they took.
func sameAnswer(a, b *shard.Answer) bool {
	for _, answer := range []*shard.Answer{a, b} {
		if answer == nil {
			continue
		}
		answer.FanOut, answer.Merge = 0, 0
		for i := range answer.Shards {
			answer.Shards[i].Filter, answer.Shards[i].Search = 0, 0
		}
	}
	return reflect.DeepEqual(a, b)
}

func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, xOK := errors.AsType[*shard.TextError](a)
	y, yOK := errors.AsType[*shard.TextError](b)
	return a.Error() == b.Error() && errors.Is(a, index.ErrQuery) == errors.Is(b, index.ErrQuery) && xOK == yOK && reflect.DeepEqual(x, y)
}
