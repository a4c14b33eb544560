package feedback_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

var day = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

func options() feedback.JoinOptions {
	return feedback.JoinOptions{Day: day, Window: 24 * time.Hour, Late: 72 * time.Hour, Memory: feedback.DefaultMemory, Now: day.Add(50 * time.Hour)}
}

// logs are recorded queries and outcomes, in objects.
type logs struct {
	queries  [][]querylog.Query
	outcomes [][]outcomes.Outcome
}

// put writes the logs into a store.
func (l *logs) put(t require.TestingT, store *objectstest.Faults) {
	for n, list := range l.queries {
		data, err := querylog.Encode(list)
		require.NoError(t, err)
		store.Put(queryName(list, n), data, day)
	}
	for n, list := range l.outcomes {
		data, err := outcomes.Encode(list)
		require.NoError(t, err)
		store.Put(outcomeName(list, n), data, day)
	}
}

// name gives object n of a log a name that is the same on every run.
func name(key string, n int) string {
	return fmt.Sprintf("%s%016x.parquet", key[:strings.LastIndexByte(key, '-')+1], n)
}

func queryName(list []querylog.Query, n int) string {
	return name(querylog.Key(slices.MaxFunc(list, func(a, b querylog.Query) int { return a.Time.Compare(b.Time) }).Time), n)
}

func outcomeName(list []outcomes.Outcome, n int) string {
	return name(outcomes.Key(slices.MaxFunc(list, func(a, b outcomes.Outcome) int { return a.Received.Compare(b.Received) }).Received), n)
}

// draw draws logs of some days, of few users, apps and requests.
func draw(t *rapid.T) *logs {
	at := rapid.Custom(func(t *rapid.T) time.Time {
		return day.Add(time.Duration(rapid.IntRange(-50*60, 75*60).Draw(t, "minute")) * time.Minute)
	})
	app := rapid.StringMatching(`a[0-5]`)
	l := &logs{}
	for range rapid.IntRange(0, 6).Draw(t, "query files") {
		l.queries = append(l.queries, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) querylog.Query {
			q := querylog.Query{
				Time: at.Draw(t, "time"), RequestID: rapid.StringMatching(`r[0-9]`).Draw(t, "request"), Request: []byte("x"),
				UserID: rapid.StringMatching(`(u[0-3])?`).Draw(t, "user"), Model: "feed", ModelVersion: "7", Coverage: 1,
				Arm: rapid.StringMatching(`[xy]`).Draw(t, "arm"), Tower: rapid.SampledFrom([]shard.Kind{shard.Apps, shard.Apps, "", shard.Users}).Draw(t, "tower"),
			}
			for _, id := range rapid.SliceOfNDistinct(app, 0, 4, rapid.ID[string]).Draw(t, "apps") {
				q.Candidates = append(q.Candidates, querylog.Candidate{ID: id, Score: rapid.Float32Range(-1, 1).Draw(t, "score"), Team: q.Arm, Propensity: 0.5})
			}
			if rapid.Bool().Draw(t, "next") {
				q.Next = []querylog.Candidate{{ID: "next", Score: -2}}
			}
			return q
		}), 1, 6).Draw(t, "queries"))
	}
	for range rapid.IntRange(0, 6).Draw(t, "outcome files") {
		l.outcomes = append(l.outcomes, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) outcomes.Outcome {
			o := outcomes.Outcome{
				ID: rapid.StringMatching(`o[0-9][0-9]?`).Draw(t, "id"), AppID: app.Draw(t, "app"), Time: at.Draw(t, "time"),
				RequestID: rapid.StringMatching(`(r[0-9])?`).Draw(t, "request"), UserID: rapid.StringMatching(`u[0-3]`).Draw(t, "user"),
				Kind:     rapid.SampledFrom([]string{"open", "impression", "install", "play_time", "hide", "report", "liked", "shared"}).Draw(t, "kind"),
				HasValue: rapid.Bool().Draw(t, "has"),
			}
			if o.HasValue {
				o.Value = float64(rapid.IntRange(0, 100).Draw(t, "value"))
			}
			o.Received = o.Time.Add(time.Duration(rapid.IntRange(-20, 60).Draw(t, "later")) * time.Hour)
			return o
		}), 1, 8).Draw(t, "outcomes"))
	}
	return l
}

// key names a row.
type key struct {
	request string
	seq     int
	rank    int
}

// expect is the model: it looks at all exposures for each outcome.
func expect(l *logs) (rows map[string]int, counts joined.Counts) {
	type seen struct {
		o    outcomes.Outcome
		name string
		row  int
	}
	var all []seen
	for n, list := range l.outcomes {
		object := outcomeName(list, n)
		written, _ := rowlog.Written(object)
		if written.Before(day.Add(-48*time.Hour-time.Minute)) || !written.Before(day.Add(120*time.Hour)) {
			continue // it is not read
		}
		for i, o := range list {
			all = append(all, seen{o, object, i})
		}
	}
	inside := func(at time.Time) bool { return !at.Before(day.Add(-24*time.Hour)) && at.Before(day.Add(48*time.Hour)) }
	onDay := func(at time.Time) bool { return !at.Before(day) && at.Before(day.Add(24*time.Hour)) }
	type answer struct {
		q    querylog.Query
		name string
		row  int
	}
	var answers []answer
	for n, list := range l.queries {
		object := queryName(list, n)
		for i, q := range list {
			if !inside(q.Time) {
				continue
			}
			if q.Tower == shard.Users {
				if onDay(q.Time) {
					counts.NotApps++
				}
				continue
			}
			answers = append(answers, answer{q, object, i})
		}
	}
	slices.SortFunc(answers, func(a, b answer) int {
		return cmp.Or(a.q.Time.Compare(b.q.Time), cmp.Compare(a.q.RequestID, b.q.RequestID), cmp.Compare(a.name, b.name), cmp.Compare(a.row, b.row))
	})
	slices.SortFunc(all, func(a, b seen) int {
		return cmp.Or(a.o.Received.Compare(b.o.Received), cmp.Compare(a.name, b.name), cmp.Compare(a.row, b.row))
	})
	got := map[key][]outcomes.Outcome{}
	first := map[string]outcomes.Outcome{}
	for _, s := range all {
		o := s.o
		if f, again := first[o.ID]; again {
			counts.Repeated++
			arrived := o.Time.Equal(o.Received) && f.Time.Equal(f.Received)
			f.Received, f.Caller = o.Received, o.Caller
			if arrived {
				f.Time = o.Time
			}
			if f != o {
				counts.Differing++
			}
			continue
		}
		first[o.ID] = o
		if !inside(o.Time) {
			continue
		}
		if onDay(o.Time) {
			counts.OfDay++
		}
		best, requests, shown := -1, 0, 0
		for i, a := range answers {
			if o.RequestID != "" && a.q.RequestID != o.RequestID || o.RequestID == "" && a.q.UserID != o.UserID {
				continue
			}
			requests++
			if !slices.ContainsFunc(a.q.Candidates, func(c querylog.Candidate) bool { return c.ID == o.AppID }) {
				continue
			}
			shown++
			if !a.q.Time.After(o.Time) || best < 0 && o.RequestID != "" {
				best = i
			}
		}
		if best >= 0 {
			if gap := o.Time.Sub(answers[best].q.Time).Abs(); gap > 24*time.Hour {
				best = -1
			}
		}
		switch {
		case best >= 0 && onDay(answers[best].q.Time):
			counts.Joined++
			if onDay(o.Time) {
				counts.ToDay++
			}
			a := answers[best]
			at := slices.IndexFunc(a.q.Candidates, func(c querylog.Candidate) bool { return c.ID == o.AppID })
			got[key{a.q.RequestID, best, at + 1}] = append(got[key{a.q.RequestID, best, at + 1}], o)
		case !onDay(o.Time):
		case best >= 0:
			counts.ToOther++
		case o.RequestID == "":
			counts.NoExposure++
		case requests == 0:
			counts.NoRequest++
		case shown == 0:
			counts.NotShown++
		default:
			counts.Outside++
		}
	}
	rows = map[string]int{}
	for i, a := range answers {
		if !onDay(a.q.Time) {
			continue
		}
		counts.Requests++
		if len(a.q.Candidates) == 0 {
			counts.Empty++
			rows[fmt.Sprint(a.q.Time.Unix(), a.q.RequestID, " empty 0 ", a.q.Arm)]++
		}
		for j, c := range a.q.Candidates {
			counts.Shown++
			kinds := map[string]float64{}
			for _, o := range got[key{a.q.RequestID, i, j + 1}] {
				kinds[o.Kind]++
				if o.Kind == "play_time" {
					kinds["seconds"] += o.Value
					if !o.HasValue {
						counts.Valueless++
					}
				}
			}
			rows[fmt.Sprint(a.q.Time.Unix(), a.q.RequestID, " shown ", j+1, " ", a.q.Arm, c.ID, c.Score, kinds)]++
		}
		for j, c := range a.q.Next {
			counts.Next++
			rows[fmt.Sprint(a.q.Time.Unix(), a.q.RequestID, " next ", len(a.q.Candidates)+j+1, " ", a.q.Arm, c.ID, c.Score)]++
		}
	}
	return rows, counts
}

// readRows returns the rows of a set, as the model writes them.
func readRows(t require.TestingT, bucket *objects.Bucket, s *joined.Set) map[string]int {
	rows := map[string]int{}
	for r, err := range s.Rows(context.Background(), bucket) {
		require.NoError(t, err)
		switch r.Role {
		case joined.RoleEmpty:
			rows[fmt.Sprint(r.Time.Unix(), r.RequestID, " empty 0 ", r.Arm)]++
			continue
		case joined.RoleNext:
			rows[fmt.Sprint(r.Time.Unix(), r.RequestID, " next ", r.Rank, " ", r.Arm, r.AppID, r.Score)]++
			continue
		}
		kinds := map[string]float64{}
		for kind, n := range map[string]int64{"open": r.Opens, "impression": r.Impressions, "install": r.Installs, "play_time": r.PlayTimes, "hide": r.Hides, "report": r.Reports} {
			if n > 0 {
				kinds[kind] = float64(n)
			}
		}
		for _, w := range r.Own {
			kinds[w.Kind] = float64(w.Count)
		}
		if r.PlayTimes > 0 {
			kinds["seconds"] = r.PlayTime
		}
		rows[fmt.Sprint(r.Time.Unix(), r.RequestID, " shown ", r.Rank, " ", r.Arm, r.AppID, r.Score, kinds)]++
	}
	return rows
}

// TestJoin compares joined sets with a model that looks at every exposure for every outcome.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := draw(t)
		store := objectstest.NewFaults()
		l.put(t, store)
		bucket := store.Bucket("joiner")
		o := options()
		o.PartBytes = rapid.SampledFrom([]int{1, 3000, 0}).Draw(t, "part bytes")
		done, err := feedback.Join(context.Background(), bucket, o)
		require.NoError(t, err)
		require.True(t, done.Fresh)
		rows, counts := expect(l)
		require.Equal(t, counts, done.Set.Counts)
		require.Equal(t, rows, readRows(t, bucket, done.Set))
		c := done.Set.Counts
		require.Equal(t, c.OfDay, c.ToDay+c.ToOther+c.NoRequest+c.NotShown+c.NoExposure+c.Outside, "outcomes of the day whose end is told")

		writes := store.Requests("joiner", objectstest.Write, "")
		again, err := feedback.Join(context.Background(), bucket, o)
		require.NoError(t, err)
		require.False(t, again.Fresh)
		require.Equal(t, writes, store.Requests("joiner", objectstest.Write, ""), "nothing is written where nothing is new")
	})
}

// many returns n requests of as many users, with an open each, in objects of some each.
func many(n, each int) *logs {
	l := &logs{}
	for i := range n {
		if i%each == 0 {
			l.queries, l.outcomes = append(l.queries, nil), append(l.outcomes, nil)
		}
		at := day.Add(time.Duration(i) * time.Second)
		q := querylog.Query{Time: at, RequestID: fmt.Sprint("r", i), Request: []byte("x"), UserID: fmt.Sprint("u", i), ModelVersion: "7", Coverage: 1, Arm: "x"}
		for j := range 10 {
			q.Candidates = append(q.Candidates, querylog.Candidate{ID: fmt.Sprint("a", j)})
		}
		o := outcomes.Outcome{ID: fmt.Sprint("o", i), UserID: fmt.Sprint("u", i), AppID: fmt.Sprint("a", i%10), Kind: "open", Time: at.Add(time.Minute), Received: at.Add(time.Minute)}
		if i%2 == 0 {
			o.RequestID = q.RequestID
		}
		last := len(l.queries) - 1
		l.queries[last], l.outcomes[last] = append(l.queries[last], q), append(l.outcomes[last], o)
	}
	return l
}

// TestJoinInLittleMemory has files dealt again and again, with the same rows as an outcome.
func TestJoinInLittleMemory(t *testing.T) {
	store := objectstest.NewFaults()
	many(1000, 100).put(t, store)
	bucket := store.Bucket("joiner")
	o := options()
	first, err := feedback.Join(t.Context(), bucket, o)
	require.NoError(t, err)
	require.Equal(t, int64(1000), first.Set.Counts.Joined)
	rows := readRows(t, bucket, first.Set)
	o.Memory, o.Again = feedback.LeastMemory, true
	second, err := feedback.Join(t.Context(), bucket, o)
	require.NoError(t, err)
	require.Equal(t, rows, readRows(t, bucket, second.Set))
	require.Equal(t, first.Set.Counts, second.Set.Counts)
}

// TestJoinOfOneKey has an error where no dealing helps.
func TestJoinOfOneKey(t *testing.T) {
	l := many(200, 100)
	for _, list := range l.queries {
		for i := range list {
			list[i].RequestID = "test"
		}
	}
	store := objectstest.NewFaults()
	l.put(t, store)
	o := options()
	o.Memory = feedback.LeastMemory
	_, err := feedback.Join(t.Context(), store.Bucket("joiner"), o)
	require.ErrorIs(t, err, feedback.ErrMemory)
	require.ErrorContains(t, err, "join 2026-11-25: too little memory: what is of one request id takes ")
}

// TestLateOutcomes has outcomes that come later make another generation, and leave no part of the
// one before.
func TestLateOutcomes(t *testing.T) {
	l := many(40, 20)
	late := l.outcomes[1]
	l.outcomes = l.outcomes[:1]
	store := objectstest.NewFaults()
	l.put(t, store)
	bucket := store.Bucket("joiner")
	first, err := feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	require.Equal(t, 1, first.Set.Generation)

	(&logs{outcomes: [][]outcomes.Outcome{late}}).put(t, store)
	second, err := feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	require.True(t, second.Changed)
	require.Equal(t, 2, second.Set.Generation)
	require.Equal(t, int64(40), second.Set.Counts.Joined)
	require.Len(t, store.Keys("joined/"), 2+len(second.Set.Parts), "the set, its inputs, its parts")

	// Nothing of the day: the same rows under the same names.
	other := late[0]
	other.ID, other.Time, other.Received = "other", day.Add(30*time.Hour), day.Add(30*time.Hour)
	other.UserID, other.RequestID = "nobody", ""
	(&logs{outcomes: [][]outcomes.Outcome{{other}}}).put(t, store)
	third, err := feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	require.True(t, third.Fresh)
	require.False(t, third.Changed)
	require.Equal(t, 2, third.Set.Generation)
	require.Equal(t, second.Set.Parts, third.Set.Parts)

	days, err := joined.Days(t.Context(), bucket)
	require.NoError(t, err)
	require.Equal(t, []string{"2026-11-25"}, days)
}

// TestJoinOnFaultyStore has a join fail at each of its requests in each way: whatever is there then
// is a whole set, the old one or the new one, and the next join makes the new one.
func TestJoinOnFaultyStore(t *testing.T) {
	before, after := many(10, 10), many(20, 10)
	o := options()
	o.PartBytes = 40_000
	for _, op := range []objectstest.Op{objectstest.Read, objectstest.List, objectstest.Write, objectstest.Delete} {
		for _, fault := range []objectstest.Fault{objectstest.Fail, objectstest.Lose} {
			for skip := 0; ; skip++ {
				store := objectstest.NewFaults()
				before.put(t, store)
				bucket := store.Bucket("joiner")
				first, err := feedback.Join(t.Context(), bucket, o)
				require.NoError(t, err)
				after.put(t, store)
				store.Inject(objectstest.Rule{Op: op, Client: "faulty", Skip: skip, Fault: fault, Err: objectstest.ErrDenied})
				_, err = feedback.Join(t.Context(), store.Bucket("faulty"), o)
				if store.Requests("faulty", op, "") <= skip {
					require.NoError(t, err)
					break
				}
				require.Error(t, err, "%s %s %d", op, fault, skip)
				s, err := joined.Read(t.Context(), bucket, "2026-11-25")
				require.NoError(t, err)
				rows := readRows(t, bucket, s)
				if s.Generation == 1 {
					require.Equal(t, first.Set.Parts, s.Parts)
				}
				require.NotEmpty(t, rows)
				done, err := feedback.Join(t.Context(), bucket, o)
				require.NoError(t, err)
				require.Equal(t, int64(20), done.Set.Counts.Requests)
				require.Equal(t, int64(20), done.Set.Counts.Joined)
				require.Len(t, store.Keys("joined/"), 2+len(done.Set.Parts))
				readRows(t, bucket, done.Set)
			}
		}
	}
}

// TestDamagedLog has an object that is cut be an error that names it, or be skipped and named in the
// set.
func TestDamagedLog(t *testing.T) {
	store := objectstest.NewFaults()
	many(40, 20).put(t, store)
	bucket := store.Bucket("joiner")
	cut := store.Keys("outcomes/")[0]
	data, _ := store.Data(cut)
	store.Put(cut, bytes.Clone(data[:len(data)-3]), day)
	_, err := feedback.Join(t.Context(), bucket, options())
	require.ErrorIs(t, err, outcomes.ErrDamaged)
	require.ErrorContains(t, err, cut)
	require.Empty(t, store.Keys("joined/"))
	o := options()
	o.SkipDamaged = true
	done, err := feedback.Join(t.Context(), bucket, o)
	require.NoError(t, err)
	require.Len(t, done.Set.Outcomes.Damaged, 1)
	require.Contains(t, done.Set.Outcomes.Damaged[0], cut)
	require.Equal(t, int64(20), done.Set.Counts.Joined)
	_, err = feedback.Join(t.Context(), bucket, options())
	require.ErrorIs(t, err, outcomes.ErrDamaged, "what was skipped is not taken for good")
}

// TestPartIsGone has a reader say that the set has changed, and the next join write the part again.
func TestPartIsGone(t *testing.T) {
	store := objectstest.NewFaults()
	many(20, 20).put(t, store)
	bucket := store.Bucket("joiner")
	done, err := feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	store.Remove("joined/2026-11-25/" + done.Set.Parts[0].Name)
	var last error
	for _, err := range done.Set.Rows(t.Context(), bucket) {
		last = err
	}
	require.ErrorIs(t, last, joined.ErrChanged)
	again, err := feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	require.True(t, again.Fresh)
	require.False(t, again.Changed)
	readRows(t, bucket, again.Set)
}

// TestJoinIsAskedWrongly has each option refused by its name.
func TestJoinIsAskedWrongly(t *testing.T) {
	for want, change := range map[string]func(*feedback.JoinOptions){
		"day is not given": func(o *feedback.JoinOptions) { o.Day = time.Time{} },
		"window is 0s; accepted: more than 0, up to 744h0m0s": func(o *feedback.JoinOptions) { o.Window = 0 },
		"late is -1ns; accepted: at least 0":                  func(o *feedback.JoinOptions) { o.Late = -1 },
		"memory is 1 bytes; accepted: at least 65536":         func(o *feedback.JoinOptions) { o.Memory = 1 },
		"part bytes are -1; accepted: 0 to 50331648":          func(o *feedback.JoinOptions) { o.PartBytes = -1 },
	} {
		o := options()
		change(&o)
		_, err := feedback.Join(t.Context(), objectstest.NewFaults().Bucket("joiner"), o)
		require.EqualError(t, err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	store := objectstest.NewFaults()
	many(10, 10).put(t, store)
	_, err := feedback.Join(ctx, store.Bucket("joiner"), options())
	require.True(t, errors.Is(err, context.Canceled), "%v", err)
}
