package remote_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var remotely = flag.Int("remotely", 600, "how many queries TestPartsOverNetwork asks")

// filters are conditions with what they bind, of all types.
var filters = []struct {
	text   string
	values map[string]any
}{
	{`flag`, nil},
	{`!flag || genre in ["a", "ü"]`, nil},
	{`"ab" in tags && year <= user.year`, map[string]any{"year": int64(7)<<53 - 1}},
	{`genre in user.genres`, map[string]any{"genres": []any{"a", "", "ü"}}},
	{`price < user.price && released > user.now`, map[string]any{"price": 3.25, "now": clock.Add(-500 * time.Hour)}},
	{`released in user.times || user.free`, map[string]any{"times": []any{clock, clock.Add(time.Hour)}, "free": true}},
	{`year in user.years`, map[string]any{"years": []any{int64(0), int64(3) << 53, int64(8)<<53 + 1}}},
	{`cost > user.cost && has(price)`, map[string]any{"cost": 1.0 / 3}},
	{`genre == "none"`, nil},
}

// query draws a query.
func (w *world) query(t testing.TB, tower *shard.Tower, exact bool) *shard.Query {
	d := w.d
	q := &shard.Query{K: 1 + d.IntN(60), Target: pick(d, 0.9, 0.99, 1), MinCoverage: 1}
	for range pick(d, 1, 1, 1, 3) {
		q.Vectors = append(q.Vectors, d.vector(w.dim))
	}
	if d.chance(1) {
		q.Vectors = [][]float32{make([]float32, w.dim+1)}
	}
	if d.chance(30) {
		q.Ef, q.Target = 1+d.IntN(60), 0
	}
	if exact {
		q.Ef, q.Target = 0, 1
	}
	if d.chance(20) {
		q.Plan = pick(d, index.ExactScan, index.GraphWalk)
		if exact {
			q.Plan = index.ExactScan
		}
	}
	if d.chance(50) {
		f := pick(d, filters...)
		filter, err := tower.Compile(f.text)
		require.NoError(t, err)
		bound, err := filter.Bind(t.Context(), f.values)
		require.NoError(t, err)
		q.Filter = &bound
	}
	q.Segment = pick(d, "", "", "", "flagged", "late")
	some := func(n int) (list []string) {
		for range n {
			list = append(list, pick(d, pick(d, w.ids...), pick(d, w.ids...), "nobody", w.freshID()))
		}
		return list
	}
	if d.chance(30) {
		q.Exclude = some(d.IntN(40))
	}
	if d.chance(20) {
		q.Include = some(1 + d.IntN(150))
	}
	if d.chance(20) {
		q.Self = some(1)[0]
	}
	w.rest(q, some)
	return q
}

// rest draws what is returned, limited and explained.
func (w *world) rest(q *shard.Query, some func(int) []string) {
	d := w.d
	if d.chance(25) {
		q.AtMost = []shard.AtMost{{Field: fieldGenre, N: pick(d, 1, 2, 20)}, {Field: pick(d, fieldFlag, fieldTags, fieldYear), N: pick(d, 1, 3, 40)}}
	}
	if d.chance(50) {
		for range 1 + d.IntN(3) {
			q.Attributes = append(q.Attributes, d.IntN(fields))
		}
		if d.chance(20) {
			q.MaxText = 1 + d.IntN(200)
		}
	}
	if d.chance(30) {
		q.Explain = append(some(12), q.Self)
	}
	if d.chance(20) {
		q.After = &shard.Cursor{Score: float32(d.IntN(9) - 4), ID: pick(d, w.ids...), Rank: d.IntN(30)}
	}
}

// freshID returns the id of some fresh row, at any position.
func (w *world) freshID() string {
	l := pick(w.d, pick(w.d, w.parts...)...)
	if len(l.fresh) == 0 {
		return "nobody"
	}
	s := pick(w.d, l.fresh...).Shard()
	return s.ID(uint32(w.d.IntN(s.Rows())))
}

// differ says in what answers differ but for times, and, of towers whose fresh rows are other
// parts, but for what names parts.
func differ(want, got *shard.Answer, parts bool) string {
	for _, answer := range []*shard.Answer{want, got} {
		answer.FanOut, answer.Merge = 0, 0
		for i := range answer.Shards {
			answer.Shards[i].Filter, answer.Shards[i].Search = 0, 0
		}
		if parts {
			continue
		}
		answer.Shards = nil
		for i := range answer.Explained {
			answer.Explained[i].Shard = ""
		}
	}
	a, b := reflect.ValueOf(*want), reflect.ValueOf(*got)
	for i := range a.NumField() {
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); !reflect.DeepEqual(x, y) {
			return fmt.Sprintf("%s:\n%+v, want\n%+v", a.Type().Field(i).Name, y, x)
		}
	}
	return ""
}

func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, xOK := errors.AsType[*shard.TextError](a)
	y, yOK := errors.AsType[*shard.TextError](b)
	return a.Error() == b.Error() && errors.Is(a, index.ErrQuery) == errors.Is(b, index.ErrQuery) && xOK == yOK && reflect.DeepEqual(x, y)
}

// What is asked of shards over the network is answered as by those of this process, at each
// position: of snapshots to the bit whatever the plan, and with fresh rows, which one part has
// here that are several there, where it is exact.
//
//	go test ./server/remote -run TestPartsOverNetwork -remotely 10000
func TestPartsOverNetwork(t *testing.T) {
	failed, limited := 0, 0
	for asked, seed := 0, uint64(1); asked < *remotely; seed++ {
		w := newWorld(t, seed, 50+int(seed*131%700), 1+int(seed%4))
		path, h := remote.NewHandler(w, remote.Options{})
		n := ask(t, serve(t, path, h))
		var towers []*shard.Tower
		for position := range w.positions {
			towers = append(towers, w.remoteTower(t, n, position))
			require.Equal(t, w.whole[position].SegmentRows(), towers[position].SegmentRows())
		}
		for range min(150, *remotely-asked) {
			position := w.d.IntN(len(w.positions))
			q := w.query(t, w.ground, position > 0)
			if q.Workers = 1; position > 0 { // one after the other, see near
				q.Workers = w.d.IntN(3)
			}
			q.Moment = shard.Moment{Snapshot: string(w.digest), Position: w.positions[position], Time: clock}
			want, wantErr := w.whole[position].Search(t.Context(), q)
			got, err := towers[position].Search(t.Context(), q)
			require.Truef(t, sameError(wantErr, err), "seed %d, position %d: %+v: %v, want %v", seed, position, q, err, wantErr)
			if wantErr == nil {
				require.Emptyf(t, differ(want, got, position == 0), "seed %d, position %d: %+v", seed, position, q)
			}
			asked++
			if err != nil {
				failed++
			}
			if len(q.AtMost) > 0 {
				limited++
			}
			w.vectors(t, position, towers[position])
		}
		require.Zero(t, w.held)
	}
	t.Logf("%d queries, %d of them in error, %d with limits", *remotely, failed, limited)
	if *remotely >= 600 {
		require.Positive(t, failed)
		require.Greater(t, limited, *remotely/10)
	}
}

// vectors compares embeddings.
func (w *world) vectors(t testing.TB, position int, tower *shard.Tower) {
	ids := []string{"nobody", pick(w.d, w.ids...), w.freshID(), "", pick(w.d, w.ids...)}
	at := shard.Moment{Position: w.positions[position], Time: clock}
	want, err := w.whole[position].Vectors(t.Context(), at, ids)
	require.NoError(t, err)
	got, err := tower.Vectors(t.Context(), at, ids)
	require.NoError(t, err)
	require.Equal(t, want, got)
	for i, id := range ids {
		if got[i] != nil {
			continue
		}
		want, err := w.whole[position].OutsideWindow(t.Context(), at, id)
		require.NoError(t, err)
		got, err := tower.OutsideWindow(context.Background(), at, id)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}
