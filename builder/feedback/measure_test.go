package feedback_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
)

func measureOptions() feedback.MeasureOptions {
	return feedback.MeasureOptions{Days: []time.Time{day}, K: []int{1, 3, 10}, Hits: feedback.DefaultHits, Memory: feedback.DefaultMemory}
}

// served is a request as its client saw it: what it got, and which of it its user opened.
type served struct {
	user, arm, segment string
	apps               []string
	opened             map[string]bool
	teams              []string
}

// logsOf returns what servers record of requests.
func logsOf(list []served) *logs {
	l := &logs{queries: [][]querylog.Query{{}}, outcomes: [][]outcomes.Outcome{{}}}
	for i, s := range list {
		at := day.Add(time.Duration(i) * time.Second)
		q := querylog.Query{Time: at, RequestID: fmt.Sprint("r", i), Request: []byte("x"), UserID: s.user, ModelVersion: "7", Coverage: 1, Arm: s.arm, Segment: s.segment, Snapshot: "snap"}
		for j, id := range s.apps {
			c := querylog.Candidate{ID: id}
			if s.teams != nil {
				c.Team = s.teams[j]
			}
			q.Candidates = append(q.Candidates, c)
			if s.opened[id] {
				l.outcomes[0] = append(l.outcomes[0], outcomes.Outcome{ID: fmt.Sprint(i, "-", id), RequestID: q.RequestID, UserID: s.user, AppID: id, Kind: "open", Time: at, Received: at})
			}
		}
		l.queries[0] = append(l.queries[0], q)
	}
	if len(l.queries[0]) == 0 {
		l.queries = nil
	}
	if len(l.outcomes[0]) == 0 {
		l.outcomes = nil
	}
	return l
}

// TestHitRates has hit rates be, to the last digit, what is computed from the answers that clients
// got.
func TestHitRates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) served {
			s := served{
				user: rapid.StringMatching(`u[0-9]`).Draw(t, "user"), arm: rapid.StringMatching(`[xy]`).Draw(t, "arm"), segment: rapid.StringMatching(`(teen)?`).Draw(t, "segment"),
				apps: rapid.SliceOfNDistinct(rapid.StringMatching(`a[0-9]`), 0, 10, rapid.ID[string]).Draw(t, "apps"), opened: map[string]bool{},
			}
			for _, id := range rapid.SliceOfN(rapid.StringMatching(`a[0-9]`), 0, 3).Draw(t, "opened") {
				s.opened[id] = true
			}
			return s
		}), 1, 30).Draw(t, "requests")
		store := objectstest.NewFaults()
		logsOf(list).put(t, store)
		bucket := store.Bucket("x")
		_, err := feedback.Join(context.Background(), bucket, options())
		require.NoError(t, err)
		report, err := feedback.Measure(context.Background(), bucket, measureOptions())
		require.NoError(t, err)

		require.Equal(t, int64(len(list)), report.Requests)
		for _, h := range report.HitRates {
			requests, hits := 0, 0
			for _, s := range list {
				if h.By == "arm" && h.Name != s.arm || h.By == "segment" && h.Name != s.segment {
					continue
				}
				requests++
				if slices.ContainsFunc(s.apps[:min(h.K, len(s.apps))], func(id string) bool { return s.opened[id] }) {
					hits++
				}
			}
			require.Equal(t, []int64{int64(requests), int64(hits)}, []int64{h.Requests, h.Hits})
			require.Equal(t, float64(hits)/float64(requests), h.Rate) //nolint:testifylint // to the last digit
			if h.Interval != nil {
				require.LessOrEqual(t, h.Interval.Lower, h.Rate)
				require.GreaterOrEqual(t, h.Interval.Upper, h.Rate)
			}
		}
		for _, g := range report.Groups {
			shown, hits := 0, 0
			for _, s := range list {
				for i, id := range s.apps {
					if g.By == "arm" && g.Name != s.arm || g.By == "segment" && g.Name != s.segment || g.By == "rank" && g.Name != fmt.Sprint(i+1) {
						continue
					}
					shown++
					if s.opened[id] {
						hits++
					}
				}
			}
			require.Equal(t, []int64{int64(shown), int64(hits)}, []int64{g.Exposures, g.Hits}, "%s %s", g.By, g.Name)
		}
		counts := map[string]int{}
		for _, s := range list {
			for _, id := range s.apps {
				counts[id]++
			}
		}
		// The mean difference of all pairs, over twice the mean.
		apart, sum := 0.0, 0.0
		for _, a := range counts {
			sum += float64(a)
			for _, b := range counts {
				apart += math.Abs(float64(a - b))
			}
		}
		want := 0.0
		if n := float64(len(counts)); n > 0 {
			want = apart / (2 * n * sum)
		}
		require.InDelta(t, want, report.Days[0].Gini, 1e-12)
		require.Equal(t, int64(len(counts)), report.Days[0].Apps)
	})
}

// TestIntervalsByUser has intervals as wide as users differ, not as their exposures are many: users
// of whom each opens all or nothing are worth one exposure each.
func TestIntervalsByUser(t *testing.T) {
	var list []served
	for i := range 40 {
		opened := map[string]bool{}
		if i%4 == 0 {
			opened["a"] = true
		}
		for range 5 {
			list = append(list, served{user: fmt.Sprint("u", i), arm: "x", apps: []string{"a"}, opened: opened})
		}
	}
	store := objectstest.NewFaults()
	logsOf(list).put(t, store)
	bucket := store.Bucket("x")
	_, err := feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	o := measureOptions()
	o.Apps = func(_ context.Context, snapshot string) (int64, bool, error) { return 4, snapshot == "snap", nil }
	report, err := feedback.Measure(t.Context(), bucket, o)
	require.NoError(t, err)
	all := report.Groups[0]
	require.Equal(t, []int64{200, 40, 50}, []int64{all.Exposures, all.Users, all.Hits})
	// Wilson's interval of 10 of 39: the variance by user is that of 40 draws, of 39 degrees.
	require.InDelta(t, 0.1409, all.Interval.Lower, 1e-3)
	require.InDelta(t, 0.4042, all.Interval.Upper, 1e-3)
	require.Equal(t, []feedback.Catalogue{{Snapshot: "snap", Exposures: 200, Shown: 1, Apps: new(int64(4)), Starved: new(int64(3)), Coverage: new(0.25)}}, report.Snapshots)
}

// TestVerdict has the credits of interleaved answers, and the exact sign test.
func TestVerdict(t *testing.T) {
	var list []served
	for i := range 20 {
		opened := map[string]bool{"b": i < 15, "a": i == 19}
		list = append(list, served{user: fmt.Sprint("u", i), apps: []string{"a", "b"}, teams: []string{"x", "y"}, opened: opened})
	}
	list = append(list, served{user: "one", apps: []string{"a"}, teams: []string{"x"}, opened: map[string]bool{"a": true}})
	store := objectstest.NewFaults()
	logsOf(list).put(t, store)
	bucket := store.Bucket("x")
	_, err := feedback.Join(t.Context(), bucket, options())
	require.NoError(t, err)
	report, err := feedback.Measure(t.Context(), bucket, measureOptions())
	require.NoError(t, err)
	require.Len(t, report.Verdicts, 1)
	v := report.Verdicts[0]
	require.Equal(t, [2]string{"x", "y"}, v.Arms)
	require.Equal(t, []int64{20, 20, 1, 15, 1, 15, 4}, []int64{v.Requests, v.Users, v.Credits[0], v.Credits[1], v.Prefer[0], v.Prefer[1], v.Ties})
	require.InDelta(t, 2*17.0/65536, v.P, 1e-12) // of 16: none or one
	require.InDelta(t, 15.0/16, *v.Share, 1e-12)
	require.Greater(t, v.Interval.Lower, 0.5)
	require.LessOrEqual(t, v.Interval.Upper, 1.0)
}

// TestSignTest compares with counting all outcomes of n coins.
func TestSignTest(t *testing.T) {
	for n := range int64(13) {
		for wins := range n + 1 {
			as := 0
			for coins := range 1 << n {
				heads := int64(0)
				for bit := range n {
					heads += int64(coins >> bit & 1)
				}
				if max(heads, n-heads) >= max(wins, n-wins) {
					as++
				}
			}
			require.InDelta(t, float64(as)/float64(int64(1)<<n), feedback.SignTest(wins, n-wins), 1e-12, "%d of %d", wins, n)
		}
	}
}

// TestPlan has plans that are in tables, and ones whose power is counted.
func TestPlan(t *testing.T) {
	plan, err := feedback.NewPlan(feedback.PlanOptions{Rate: 0.1, Lift: 0.5, Prefer: 0.7, Decisive: 0.5, Power: 0.8, Level: 0.05})
	require.NoError(t, err)
	require.Equal(t, int64(2*686), plan.Compared) // Fleiss, of 10% and 15%, without the correction for continuity
	require.Equal(t, 2*plan.Deciding, plan.Interleaved)
	for n := plan.Deciding - 1; n < plan.Deciding+20; n++ {
		if n < plan.Deciding {
			require.Less(t, signPower(n, 0.7), 0.8)
		} else {
			require.GreaterOrEqual(t, signPower(n, 0.7), 0.8, "%d", n)
		}
	}
	for want, o := range map[string]feedback.PlanOptions{
		"rate is 0; accepted: above 0 and below 1":                                                  {Rate: 0, Lift: 0.1, Prefer: 0.6, Decisive: 0.1, Power: 0.8, Level: 0.05},
		"prefer is 0.5; accepted: above 0.5 and below 1":                                            {Rate: 0.1, Lift: 0.1, Prefer: 0.5, Decisive: 0.1, Power: 0.8, Level: 0.05},
		"decisive is 2; accepted: above 0, up to 1":                                                 {Rate: 0.1, Lift: 0.1, Prefer: 0.6, Decisive: 2, Power: 0.8, Level: 0.05},
		"lift is 10; accepted: above 0, and so that the rate is below 1 with it":                    {Rate: 0.1, Lift: 10, Prefer: 0.6, Decisive: 0.1, Power: 0.8, Level: 0.05},
		"prefer is 0.5001, which takes more than 1048576 deciding requests to find; accepted: more": {Rate: 0.1, Lift: 0.1, Prefer: 0.5001, Decisive: 0.1, Power: 0.8, Level: 0.05},
	} {
		_, err := feedback.NewPlan(o)
		require.EqualError(t, err, want)
	}
}

// signPower sums the probabilities of all numbers of wins in which the sign test rejects at 5%.
func signPower(n int64, prefer float64) (power float64) {
	p := math.Pow(1-prefer, float64(n)) // of no win
	for wins := range n + 1 {
		if 2*wins > n && feedback.SignTest(wins, n-wins) <= 0.05 {
			power += p
		}
		p *= prefer / (1 - prefer) * float64(n-wins) / float64(wins+1)
	}
	return power
}

// TestDayIsNotJoined has a report of a day without a set be an error.
func TestDayIsNotJoined(t *testing.T) {
	_, err := feedback.Measure(t.Context(), objectstest.NewFaults().Bucket("x"), measureOptions())
	require.ErrorContains(t, err, "the day 2026-11-25 is not joined: ")
	_, err = joined.Read(t.Context(), objectstest.NewFaults().Bucket("x"), "2026-11-25")
	require.ErrorContains(t, err, "read joined set: ")
}
