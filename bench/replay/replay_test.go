package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"gocloud.dev/blob/memblob"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var update = flag.Bool("update", false, "write golden files anew")

// store has the snapshots of all tests.
var store *snapshots.Store

// Its snapshots: as it was recorded, the same towers under another version, with the
// vectors of apps shuffled, with half the users and another segment.
var recordedOn, renamed, shuffled, fewer manifest.Digest

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "replay-test-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // it is a temporary folder
	if err := buildAll(dir); err != nil {
		panic(err)
	}
	defer func() { _ = store.Close() }() // it was only read
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func buildAll(dir string) (err error) {
	ctx := context.Background()
	if err := synthetic.Write(ctx, dir, synthetic.Options{Apps: 1500, Users: 400, Dim: 12, Seed: 3}, nil); err != nil {
		return err
	}
	if store, err = snapshots.CreateStore(ctx, filepath.Join(dir, "store"), snapshots.Options{}); err != nil {
		return err
	}
	apps, users := filepath.Join(dir, synthetic.AppsFile), filepath.Join(dir, synthetic.UsersFile)
	mixed, half := filepath.Join(dir, "mixed.parquet"), filepath.Join(dir, "half.parquet")
	err = errors.Join(rewrite(apps, mixed, synthetic.AppIDColumn, func(rows []tower.Row) []tower.Row {
		for i := range rows[:len(rows)-1] { // everyone gets the vector of the next
			rows[i].Vector, rows[i+1].Vector = rows[i+1].Vector, rows[i].Vector
		}
		return rows
	}), rewrite(users, half, synthetic.UserIDColumn, func(rows []tower.Row) []tower.Row { return rows[:len(rows)/2] }))
	if err != nil {
		return err
	}
	segments, other := filepath.Join(dir, "segments.yaml"), filepath.Join(dir, "other.yaml")
	err = errors.Join(os.WriteFile(segments, []byte("free: free\nteen: min_age < 18\n"), 0o600), os.WriteFile(other, []byte("free: free\n"), 0o600))
	if err != nil {
		return err
	}
	for _, s := range []struct {
		digest                         *manifest.Digest
		version, apps, users, segments string
	}{
		{&recordedOn, "1", apps, users, segments}, {&renamed, "2", apps, users, segments},
		{&shuffled, "1", mixed, users, segments}, {&fewer, "1", apps, half, other},
	} {
		params := index.DefaultParams(index.Dot)
		params.M, params.EfConstruction = 8, 40
		report, err := builder.Build(ctx, store, builder.Options{
			Model: "feed", ModelVersion: s.version, Params: params, Threads: 2, Segments: s.segments,
			Apps:  builder.TowerOptions{Input: tower.Options{Paths: []string{s.apps}, IDColumn: synthetic.AppIDColumn}, Shards: 2},
			Users: builder.TowerOptions{Input: tower.Options{Paths: []string{s.users}, IDColumn: synthetic.UserIDColumn}, Shards: 1},
		})
		if err != nil {
			return err
		}
		*s.digest = report.Digest
	}
	return nil
}

// rewrite writes a tower again with its rows changed.
func rewrite(from, to, idColumn string, change func([]tower.Row) []tower.Row) (err error) {
	r, err := tower.Open(context.Background(), tower.Options{Paths: []string{from}, IDColumn: idColumn})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var rows []tower.Row
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		rows = append(rows, tower.Row{ID: row.ID, Vector: slices.Clone(row.Vector), Attributes: slices.Clone(row.Attributes)})
	}
	w, err := tower.CreateParquet(to, tower.ParquetOptions{IDColumn: idColumn, EmbeddingColumn: tower.DefaultEmbeddingColumn, Schema: r.Schema()})
	if err != nil {
		return err
	}
	for _, row := range change(rows) {
		if err := w.Append(&row); err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	return w.Close()
}

var began = time.Date(2026, 11, 25, 8, 15, 0, 0, time.UTC)

// record asks the recorded snapshot requests, a minute apart, and returns the queries.
func record(t *testing.T, requests ...*tandemv1.RetrieveRequest) (queries []querylog.Query) {
	t.Helper()
	snapshot, err := snapshots.Open(t.Context(), store, recordedOn)
	require.NoError(t, err)
	service := server.NewService(slog.New(slog.DiscardHandler))
	service.Serve(snapshot)
	defer service.Close()
	for i, r := range requests {
		r.RequestId = fmt.Sprint("r", i)
		answer, err := service.Retrieve(t.Context(), connect.NewRequest(r))
		require.NoError(t, err)
		q, err := server.RecordedQuery(began.Add(time.Duration(i)*time.Minute), time.Millisecond, r, answer.Msg)
		require.NoError(t, err)
		queries = append(queries, q)
	}
	return queries
}

// logOf returns a log of some queries.
func logOf(t *testing.T, queries []querylog.Query) *querylog.Log {
	t.Helper()
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	t.Cleanup(func() { _ = bucket.Close() })
	for part := range slices.Chunk(queries, 50) {
		data, err := querylog.Encode(part)
		require.NoError(t, err)
		require.NoError(t, bucket.Create(t.Context(), querylog.Key(part[len(part)-1].Time), data))
	}
	return querylog.Of(bucket)
}

// byUser returns requests of n users.
func byUser(n int) (requests []*tandemv1.RetrieveRequest) {
	for i := range n {
		r := &tandemv1.RetrieveRequest{UserId: synthetic.UserID(int64(i)), K: 10, ModelVersion: "1"}
		switch i % 4 {
		case 1:
			r.Segment = "free"
		case 2:
			r.Segment, r.Filter = "teen", `"ios" in platforms`
		}
		requests = append(requests, r)
	}
	return requests
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	o.Store = store
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	return r
}

// strict is broken by any difference.
var strict = Thresholds{MinOverlap: new(1.0), MaxFailed: new(0.0), MaxScoreShift: new(0.0)}

func TestSameSnapshot(t *testing.T) {
	queries := record(t, byUser(120)...)
	for i := range queries {
		queries[i].Arm = []string{"control", "candidate"}[i%2]
	}
	for _, against := range []manifest.Digest{recordedOn, renamed} {
		var read []int
		r := run(t, Options{Log: logOf(t, queries), Against: string(against), Progress: func(n int) { read = append(read, n) }})
		require.Equal(t, []int{1, 65, 120}, fix(read))
		require.Equal(t, Change{Overlap: 1, OverlapP1: 1, OverlapMin: 1}, r.Overall.Change)
		require.Equal(t, []int{120, 120, 0}, []int{r.Read, r.Overall.Queries, r.Overall.Failed})
		require.Empty(t, r.LeftOut)
		require.Empty(t, r.Failures)
		require.Empty(t, strict.Broken(r))
		require.Equal(t, against, r.Against.Digest)
		require.Equal(t, []int{1500, 400}, []int{r.Against.Apps, r.Against.Users})
		require.Equal(t, began, r.First)
		require.Equal(t, began.Add(119*time.Minute), r.Last)
		require.Equal(t, Latency{1000, 1000, 1000}, r.Overall.Recorded)
		require.Positive(t, r.Overall.Replayed.P50)
		require.LessOrEqual(t, r.Overall.Replayed.P50, r.Overall.Replayed.P99)
		var names []string
		for _, g := range slices.Concat(r.Segments, r.Arms) {
			names = append(names, fmt.Sprint(g.Name, " ", g.Queries))
			require.Equal(t, 1.0, g.OverlapMin)
			require.Nil(t, g.Baseline)
		}
		require.Equal(t, []string{" 60", "free 30", "teen 30", "candidate 60", "control 60"}, names)
	}
}

// fix returns the numbers with the first of a run of equal ones left.
func fix(read []int) []int {
	for i := range read[:len(read)-1] {
		read[i]++ // before the query is counted
	}
	return read
}

func TestShuffledSnapshot(t *testing.T) {
	r := run(t, Options{Log: logOf(t, record(t, byUser(80)...)), Against: string(shuffled)})
	require.Less(t, r.Overall.Overlap, 0.3)
	require.Greater(t, r.Overall.OverlapLow, 0.8)
	require.Greater(t, r.Overall.TopChanged, 0.8)
	require.Zero(t, r.Overall.Failed)
	broken := Thresholds{MinOverlap: new(0.9), MaxScoreShift: new(0.01), MaxLatencyP99: 1}.Broken(r)
	require.GreaterOrEqual(t, len(broken), 3)
	require.Regexp(t, `^min-overlap is 0.9, the mean overlap is 0\.[0-9]{4}$`, broken[0])
	require.Regexp(t, `^max-score-shift is 0.01, the score shift is `, broken[1])
	require.Regexp(t, `^max-latency-p99 is 1ns, the 99th percentile is `, broken[len(broken)-1])
}

func TestBaseline(t *testing.T) {
	queries := record(t, byUser(60)...)
	o := Options{Log: logOf(t, queries), Against: string(shuffled), Baseline: string(renamed)}
	r := run(t, o)
	b := r.Overall.Baseline
	require.Equal(t, []int{60, 60}, []int{b.Asked, b.Queries})
	require.Equal(t, r.Overall.Change, b.Change, "the baseline answers as it was recorded")
	require.InDelta(t, b.Replayed.Mean/b.Latency.Mean, b.LatencyRatio, 1e-9)
	require.Equal(t, 60, r.WarmUp)
	for name, x := range map[string]struct {
		mean float64
		in   *Interval
	}{
		"ratio": {b.LatencyRatio, b.Intervals.LatencyRatio}, "latency": {b.Replayed.Mean, &b.Intervals.Latency},
		"overlap": {b.Overlap, &b.Intervals.Overlap}, "rank": {b.RankChange, b.Intervals.RankChange},
		"score": {b.ScoreShift, b.Intervals.ScoreShift}, "mean score": {b.MeanScoreShift, b.Intervals.MeanScoreShift},
	} {
		require.Less(t, x.in.Lower, x.mean, name)
		require.Greater(t, x.in.Upper, x.mean, name)
	}
	require.Equal(t, renamed, r.Baseline.Digest)
	require.Len(t, Thresholds{MaxLatencyRatio: new(0.0)}.Broken(r), 1)
	require.Empty(t, Thresholds{MaxLatencyRatio: new(1e9)}.Broken(r))

	// The baseline does not know some of the users.
	o.Against, o.Baseline = string(recordedOn), string(fewer)
	queries = record(t, &tandemv1.RetrieveRequest{UserId: synthetic.UserID(0), K: 3}, &tandemv1.RetrieveRequest{UserId: synthetic.UserID(399), K: 3})
	o.Log = logOf(t, queries)
	r = run(t, o)
	require.Equal(t, []int{2, 0, 2, 1}, []int{r.Overall.Queries, r.Overall.Failed, r.Overall.Baseline.Asked, r.Overall.Baseline.Queries})
	require.Empty(t, r.Failures)
	require.Equal(t, "not_found", r.BaselineFailures[0].Code)
}

func TestWarmUpIsNotMeasured(t *testing.T) {
	n := WarmUp + 30
	r := run(t, Options{Log: logOf(t, record(t, byUser(n)...)), Against: string(recordedOn)})
	require.Equal(t, []int{WarmUp, n, n}, []int{r.WarmUp, r.Read, r.Overall.Queries})
	// A query that fails has failed once.
	r = run(t, Options{Log: logOf(t, record(t, &tandemv1.RetrieveRequest{UserId: synthetic.UserID(399), K: 3})), Against: string(fewer), Baseline: string(fewer)})
	require.Equal(t, []int{1, 1, 1, 1}, []int{r.WarmUp, r.Overall.Failed, r.Failures[0].Queries, r.BaselineFailures[0].Queries})
	require.Nil(t, r.Overall.Intervals)
}

func TestFailures(t *testing.T) {
	requests := append(byUser(40),
		&tandemv1.RetrieveRequest{UserId: synthetic.UserID(300), K: 5},
		&tandemv1.RetrieveRequest{UserId: synthetic.UserID(301), K: 5},
		&tandemv1.RetrieveRequest{UserId: synthetic.UserID(302), K: 5},
	)
	queries := record(t, requests...)
	// A request that breaks the rules, as only a log has it.
	hostile := queries[0]
	hostile.Request, hostile.RequestID = []byte("\x1a\x01u\x30\xff\xff\xff\xff\x0f"), "hostile" // k is 2^32-1
	queries = append(queries, hostile)
	r := run(t, Options{Log: logOf(t, queries), Against: string(fewer)})
	require.Equal(t, []int{44, 10 + 3 + 1}, []int{r.Overall.Queries, r.Overall.Failed})
	require.Equal(t, []Failure{
		{"invalid_argument", 11, `segment "teen" is none of the app tower's; accepted: free`},
		{"not_found", 3, `user_id "` + synthetic.UserID(300) + `" is not in the user tower of model feed 1; query by an id that it has, or by vector`},
	}, r.Failures)
	require.Equal(t, []string{"max-failed is 0.3, 0.3182 of the queries failed"}, Thresholds{MaxFailed: new(0.3)}.Broken(r))
	require.Empty(t, Thresholds{MaxFailed: new(0.32), MinOverlap: new(1.0)}.Broken(r), "those that are answered are answered as before")
}

// TestFallbacksAreLeftOut: an answer that is the same for every user says nothing of how
// answers change, whichever side gave it.
func TestFallbacksAreLeftOut(t *testing.T) {
	known, unknown := synthetic.UserID(4), synthetic.UserID(300) // fewer has the first 200
	ask := func(user string) *tandemv1.RetrieveRequest {
		return &tandemv1.RetrieveRequest{UserId: user, K: 5, Fallback: tandemv1.Fallback_FALLBACK_MEAN_USER}
	}
	queries := record(t, ask(known), ask(unknown), ask(known), ask("nobody"))
	require.Equal(t, []string{"", "", "", "FALLBACK_MEAN_USER"}, []string{queries[0].Fallback, queries[1].Fallback, queries[2].Fallback, queries[3].Fallback})
	queries[2].ShardsCut = 1
	r := run(t, Options{Log: logOf(t, queries), Against: string(fewer)})
	require.Equal(t, map[string]int{CutShort: 1, ByFallback: 2}, r.LeftOut)
	require.Equal(t, []int{4, 1, 0}, []int{r.Read, r.Overall.Queries, r.Overall.Failed})
	require.Equal(t, 1.0, r.Overall.OverlapMin)

	r = run(t, Options{Log: logOf(t, queries), Against: string(recordedOn), Baseline: string(fewer)})
	require.Equal(t, map[string]int{CutShort: 1, ByFallback: 1, BaselineByFallback: 1}, r.LeftOut)
	require.Equal(t, []int{2, 0, 1, 1}, []int{r.Overall.Queries, r.Overall.Failed, r.Overall.Baseline.Asked, r.Overall.Baseline.Queries})
	require.Equal(t, 1.0, r.Overall.Baseline.OverlapMin)
}

func TestLeftOut(t *testing.T) {
	vector := make([]float32, 12)
	vector[3] = 1
	queries := record(t,
		&tandemv1.RetrieveRequest{Vector: vector, K: 5}, &tandemv1.RetrieveRequest{Vectors: []*tandemv1.Vector{{Values: vector}}, K: 5},
		&tandemv1.RetrieveRequest{AppId: synthetic.AppID(4), K: 5}, &tandemv1.RetrieveRequest{UserId: synthetic.UserID(4), K: 5},
	)
	queries[3].Coverage = 0.5
	r := run(t, Options{Log: logOf(t, queries), Against: string(recordedOn), Baseline: string(renamed)})
	require.Equal(t, map[string]int{LacksShards: 1}, r.LeftOut)
	require.Equal(t, []int{4, 3, 0, 1}, []int{r.Read, r.Overall.Queries, r.Overall.Failed, r.Overall.Baseline.Asked},
		"the baseline is not asked by vector")
	require.Equal(t, 1.0, r.Overall.OverlapMin)
	r = run(t, Options{Log: logOf(t, queries), Against: string(renamed)})
	require.Equal(t, map[string]int{LacksShards: 1, OtherVersion: 2}, r.LeftOut)
	require.Equal(t, 1, r.Overall.Queries)

	r = run(t, Options{Log: logOf(t, queries[:2]), Against: string(renamed)})
	require.Zero(t, r.Overall.Queries)
	all := Thresholds{MinOverlap: new(0.0), MaxFailed: new(1.0), MaxScoreShift: new(2.0), MaxLatencyRatio: new(9.0), MaxLatencyP99: time.Hour}
	require.Equal(t, []string{
		"max-failed is 1, no query was asked", "min-overlap is 0, no query was answered", "max-score-shift is 2, no query was answered",
		"max-latency-ratio is 9, no query was answered by a baseline too", "max-latency-p99 is 1h0m0s, no query was answered",
	}, all.Broken(r), "nothing is not enough")
	require.NoError(t, r.WriteTable(io.Discard))

	page, err := server.RecordedRequest(&queries[2])
	require.NoError(t, err)
	page.PageToken = "of some answer"
	queries[2].Request, err = proto.Marshal(page)
	require.NoError(t, err)
	r = run(t, Options{Log: logOf(t, queries), Against: string(recordedOn)})
	require.Equal(t, map[string]int{LacksShards: 1, LaterPage: 1}, r.LeftOut)
	require.Equal(t, []int{4, 2, 0}, []int{r.Read, r.Overall.Queries, r.Overall.Failed})

	queries[0].Explored, queries[1].Candidates[0].Team = true, "control"
	r = run(t, Options{Log: logOf(t, queries), Against: string(recordedOn)})
	require.Equal(t, 1, r.LeftOut[Explored])
	require.Equal(t, 1, r.LeftOut[Interleaved])
}

func TestBoundsAndSample(t *testing.T) {
	log := logOf(t, record(t, byUser(120)...))
	r := run(t, Options{Log: log, Against: string(recordedOn), Since: began.Add(10 * time.Minute), Until: began.Add(30 * time.Minute)})
	require.Equal(t, []int{20, 20}, []int{r.Read, r.Overall.Queries})
	require.Equal(t, []time.Time{began.Add(10 * time.Minute), began.Add(29 * time.Minute)}, []time.Time{r.First, r.Last})
	segments := func(r *Report) (n []int) {
		for _, g := range r.Segments {
			n = append(n, g.Queries)
		}
		return n
	}
	r = run(t, Options{Log: log, Against: string(recordedOn), Limit: 40})
	require.Equal(t, []int{120, 40}, []int{r.Read, r.Overall.Queries})
	require.Equal(t, segments(r), segments(run(t, Options{Log: log, Against: string(recordedOn), Limit: 40})), "the same sample")
	r = run(t, Options{Log: log, Against: string(recordedOn), Limit: 1000})
	require.Equal(t, 120, r.Overall.Queries)
}

func TestRunFails(t *testing.T) {
	log := logOf(t, record(t, byUser(1)...))
	replay := func(o Options) error {
		o.Store = store
		_, err := Run(t.Context(), o)
		return err
	}
	err := replay(Options{Log: log, Against: string(recordedOn), Since: began.Add(time.Hour)})
	require.ErrorIs(t, err, ErrNoQueries)
	require.EqualError(t, err, "mem://queries/: no recorded queries")
	require.ErrorIs(t, replay(Options{Log: log, Against: "ffff"}), snapshots.ErrNoSnapshot)
	require.ErrorIs(t, replay(Options{Log: log, Against: string(recordedOn), Baseline: "ffff"}), snapshots.ErrNoSnapshot)
	damaged := record(t, byUser(1)...)
	damaged[0].Request = []byte("nonsense")
	err = replay(Options{Log: logOf(t, damaged), Against: string(recordedOn)})
	require.ErrorIs(t, err, querylog.ErrDamaged)
	require.ErrorContains(t, err, `request "r0"`)
	stopped, cancel := context.WithCancel(t.Context())
	_, err = Run(stopped, Options{Log: log, Store: store, Against: string(recordedOn), Progress: func(int) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	for want, o := range map[string]Options{
		"log or store is missing":     {},
		"limit is -1, want 0 to 1000": {Log: log, Limit: -1},
		"until is 2026-11-25T08:15:00Z, want a time after 2026-11-25T08:15:00Z": {Log: log, Since: began, Until: began},
	} {
		if o.Log != nil {
			o.Store = store
		}
		require.ErrorContains(t, o.Validate(), want)
	}
	for want, th := range map[string]Thresholds{
		"min-overlap is 1.5, want 0 to 1":          {MinOverlap: new(1.5)},
		"max-failed is -1, want 0 to 1":            {MaxFailed: new(-1.0)},
		"max-score-shift is 3, want 0 to 2":        {MaxScoreShift: new(3.0)},
		"max-latency-ratio is -1, want at least 0": {MaxLatencyRatio: new(-1.0)},
		"max-latency-p99 is -1s, want at least 0":  {MaxLatencyP99: -time.Second},
	} {
		require.EqualError(t, th.Validate(), want)
	}
	require.NoError(t, strict.Validate())
}

func TestCompare(t *testing.T) {
	list := func(scores ...any) (out []querylog.Candidate) {
		for i := 0; i < len(scores); i += 2 {
			out = append(out, querylog.Candidate{ID: scores[i].(string), Score: float32(scores[i+1].(int))})
		}
		return out
	}
	for name, test := range map[string]struct {
		before, after []querylog.Candidate
		want          change
	}{
		"both empty":    {nil, nil, change{overlap: 1}},
		"empty now":     {list("a", 1), nil, change{ids: 1, top: true}},
		"empty before":  {nil, list("a", 1), change{ids: 1, top: true}},
		"same":          {list("a", 4, "b", 2), list("a", 4, "b", 2), change{overlap: 1, ids: 2, common: true, scored: true, before: 3, after: 3}},
		"swapped":       {list("a", 4, "b", 2), list("b", 4, "a", 2), change{1, 2, true, 1, 0.5, true, true, 3, 3}},
		"other":         {list("a", 4), list("b", 2), change{0, 1, false, 0, 0, true, true, 4, 2}},
		"longer":        {list("a", 4), list("a", 4, "b", 2), change{0.5, 2, true, 0, 0, false, true, 4, 3}},
		"sign":          {list("a", -1), list("a", 1), change{1, 1, true, 0, 2, false, true, -1, 1}},
		"zero":          {list("a", 0), list("a", 0), change{overlap: 1, ids: 1, common: true, scored: true}},
		"twice is once": {list("a", 1, "b", 1), list("a", 1, "a", 1), change{0.5, 2, true, 0, 0, false, true, 1, 1}},
	} {
		require.Equal(t, test.want, compare(test.before, test.after), name)
	}
	got := sumUp([]change{{1, 2, true, 1, 0.5, true, true, 3, 3}, {0, 1, false, 0, 0, true, true, 3, 1}, {overlap: 1}, {overlap: 1, common: true}})
	require.Equal(t, Change{Overlap: 0.75, OverlapLow: 0.25, RankChange: 0.5, TopChanged: 0.5, ScoreShift: 0.25, MeanScoreShift: relative(3, 2)}, got)
}

func TestNamesAreBounded(t *testing.T) {
	var n names
	for i := range 5 * maxNames {
		require.Equal(t, min(i, maxNames), n.number(fmt.Sprint(i)))
	}
	require.Equal(t, 3, n.number("3"))
	require.Len(t, n.list, maxNames+1)
	require.Equal(t, others, n.list[maxNames])
}

// golden is a report with something of everything.
func golden() *Report {
	c := Change{0.9312, 0.2, 0.1, 0.021, 1.234, 0.12, 0.0123, -0.0045}
	l := Latency{1234, 1100.4, 5321}
	x := Intervals{Interval{0.9, 0.95}, &Interval{1, 1.5}, &Interval{0.01, 0.02}, &Interval{-0.005, 0.004}, Interval{-1, 2000}, nil}
	of := x
	of.LatencyRatio = &Interval{0.9, 1.5}
	g := func(name string, queries, failed int) Group {
		return Group{Name: name, Queries: queries, Failed: failed, Change: c, Intervals: &x, Recorded: Latency{900, 850, 2345678}, Replayed: l,
			Baseline: &BaselineGroup{Asked: queries - 1, Queries: queries - failed - 1, Change: c, Intervals: &of, Replayed: l, Latency: Latency{1000, 99.91, 4000}, LatencyRatio: 1.234}}
	}
	return &Report{
		Log: "store/queries/", Read: 1010, First: began, Last: began.Add(time.Hour), LeftOut: map[string]int{OtherVersion: 8, LacksShards: 2},
		Against:          Snapshot{Digest: "0123456789abcdef", Model: "feed", ModelVersion: "2", Apps: 1500, Users: 400},
		Baseline:         &Snapshot{Digest: "fedcba9876543210", Model: "feed", ModelVersion: "1", Apps: 1400, Users: 390},
		Failures:         []Failure{{"not_found", 3, `user_id "u" is not in the user tower`}},
		BaselineFailures: []Failure{{"invalid_argument", 1, "segment"}},
		Overall:          g("", 1000, 3), Segments: []Group{g("", 600, 1), g("teen", 400, 2)}, Arms: []Group{g("", 1000, 3)},
		Broken: []string{"min-overlap is 0.95, the mean overlap is 0.9312"},
		WarmUp: 200, Processors: 4, Kernel: "avx2", Go: "go1.26", Platform: "linux/amd64",
	}
}

func TestReport(t *testing.T) {
	r := golden()
	var text, data bytes.Buffer
	require.NoError(t, r.WriteTable(&text))
	require.NoError(t, r.WriteJSON(&data))
	for name, got := range map[string][]byte{"report.txt": text.Bytes(), "report.json": data.Bytes()} {
		path := filepath.Join("testdata", name)
		if *update {
			require.NoError(t, os.WriteFile(path, got, 0o644))
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got))
	}
	var back Report
	require.NoError(t, json.Unmarshal(data.Bytes(), &back))
	require.Equal(t, *r, back)
	var plain bytes.Buffer
	r.Overall.Intervals, r.Segments[1].Baseline.Intervals = nil, nil
	require.NoError(t, r.WriteTable(&plain))
	require.Regexp(t, `all( +-){5} *\n`, plain.String())
	plain.Reset()
	r.Baseline, r.BaselineFailures, r.LeftOut, r.Failures, r.Broken = nil, nil, nil, nil, nil
	require.NoError(t, r.WriteTable(&plain))
	require.NotContains(t, plain.String(), "baseline")
}
