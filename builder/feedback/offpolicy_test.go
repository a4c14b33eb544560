package feedback_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// exploring is a release: the last places of a share of answers are drawn from the ranks after k up
// to pool.
type exploring struct {
	generation      int64
	share           float64
	k, places, pool int
}

// answered is a request of a release, as who draws knows it.
type answered struct {
	of     exploring
	user   string
	arm    string
	ranks  []string // all that rank, best first
	draws  []int    // ranks at the last places; nil if they are not drawn
	opened map[string]bool
	target []string // nil if the target has no answer
	plain  bool     // without propensities
}

func (a *answered) shown() []string {
	list := slices.Clone(a.ranks[:a.of.k])
	for i, rank := range a.draws {
		list[a.of.k-a.of.places+i] = a.ranks[rank]
	}
	return list
}

// next is what ranks after the answer, without what was drawn of it.
func (a *answered) next() (list []string) {
	shown := a.shown()
	for _, id := range a.ranks[a.of.k:] {
		if !slices.Contains(shown, id) {
			list = append(list, id)
		}
	}
	return list
}

// logged is with which probability the release serves an app at a place.
func (a *answered) logged(place int, app string) float64 {
	rank := slices.Index(a.ranks, app)
	switch {
	case rank == place && place < a.of.k-a.of.places:
		return 1
	case place < a.of.k-a.of.places:
		return 0
	case rank == place:
		return 1 - a.of.share
	case rank >= a.of.k && rank < a.of.pool:
		return a.of.share / float64(a.of.pool-a.of.k)
	}
	return 0
}

// serves is with which probability a policy serves an app at a place.
func (a *answered) serves(policy string, place int, app string) float64 {
	rank := slices.Index(a.ranks, app)
	fixed := policy == feedback.PolicyRanked || place < a.of.k-a.of.places
	switch {
	case policy == feedback.PolicyTarget && place < len(a.target) && a.target[place] == app:
		return 1
	case policy == feedback.PolicyTarget:
		return 0
	case fixed && rank == place:
		return 1
	case !fixed && rank >= a.of.k && rank < a.of.pool:
		return 1 / float64(a.of.pool-a.of.k)
	}
	return 0
}

// drawnAt reports whether an app at a place is one that was drawn.
func (a *answered) drawnAt(place int, app string) bool {
	return place >= a.of.k-a.of.places && slices.Index(a.ranks, app) >= a.of.k
}

// drawAnswered draws requests.
func drawAnswered(t *rapid.T) []answered {
	releases := []exploring{{7, 0.25, 4, 2, 9}, {8, 0.5, 3, 1, 5}}
	var ids []string
	for i := range 12 {
		ids = append(ids, fmt.Sprint("a", i))
	}
	list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) answered {
		a := answered{
			of: rapid.SampledFrom(releases).Draw(t, "release"), user: rapid.StringMatching(`u[0-9]`).Draw(t, "user"),
			arm: rapid.StringMatching(`[xy]`).Draw(t, "arm"), ranks: rapid.Permutation(ids).Draw(t, "ranks"), opened: map[string]bool{},
			plain: rapid.IntRange(0, 9).Draw(t, "plain") == 0,
		}
		if !a.plain && rapid.Bool().Draw(t, "drawn") {
			a.draws = append(a.draws, rapid.SliceOfNDistinct(rapid.IntRange(a.of.k, a.of.pool-1), a.of.places, a.of.places, rapid.ID[int]).Draw(t, "draws")...)
		}
		for _, id := range rapid.SliceOfN(rapid.SampledFrom(a.shown()), 0, 3).Draw(t, "opened") {
			a.opened[id] = true
		}
		if rapid.IntRange(0, 4).Draw(t, "asked") > 0 {
			// Mostly what could have been served.
			a.target = slices.Clone(a.ranks[:a.of.k])
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				place := rapid.IntRange(0, a.of.k-1).Draw(t, "place")
				a.target[place] = rapid.SampledFrom(ids).Draw(t, "app")
			}
			a.target = a.target[:rapid.IntRange(a.of.k-1, a.of.k).Draw(t, "length")]
		}
		return a
	}), 0, 20).Draw(t, "requests")
	// Each release has answers of either kind.
	for _, of := range releases {
		list = append(list, answered{of: of, user: "u", arm: "x", ranks: ids}, answered{of: of, user: "v", arm: "x", ranks: ids})
		for place := range of.places {
			list[len(list)-1].draws = append(list[len(list)-1].draws, of.k+place)
		}
	}
	return list
}

// explorationLogs are what servers record of requests.
func explorationLogs(list []answered) *logs {
	l := &logs{queries: [][]querylog.Query{nil}, outcomes: [][]outcomes.Outcome{nil}}
	for i := range list {
		a := &list[i]
		at := day.Add(time.Duration(i) * time.Second)
		q := querylog.Query{
			Time: at, RequestID: fmt.Sprint("r", i), Request: []byte("x"), UserID: a.user, ModelVersion: "7", Coverage: 1, Arm: a.arm,
			Generation: a.of.generation, Explored: a.draws != nil,
		}
		for place, id := range a.shown() {
			c := querylog.Candidate{ID: id}
			if !a.plain {
				c.Propensity = float32(a.logged(place, id))
			}
			q.Candidates = append(q.Candidates, c)
			if a.opened[id] {
				l.outcomes[0] = append(l.outcomes[0], outcomes.Outcome{ID: fmt.Sprint(i, "-", id), RequestID: q.RequestID, UserID: a.user, AppID: id, Kind: "open", Time: at, Received: at})
			}
		}
		for _, id := range a.next() {
			q.Next = append(q.Next, querylog.Candidate{ID: id})
		}
		l.queries[0] = append(l.queries[0], q)
	}
	if len(l.outcomes[0]) == 0 {
		l.outcomes = nil
	}
	return l
}

// targetsOf are the target's answers, and one to a request that nobody has made.
func targetsOf(list []answered) iter.Seq2[*feedback.Target, error] {
	return func(yield func(*feedback.Target, error) bool) {
		for i := range list {
			if list[i].target != nil && !yield(&feedback.Target{RequestID: fmt.Sprint("r", i), AppIDs: list[i].target}, nil) {
				return
			}
		}
		yield(&feedback.Target{RequestID: "none", AppIDs: []string{"a0"}}, nil)
	}
}

// round is a place of an answer, for the plain model.
type round struct {
	user                                string
	reward, weight, expected, expecting float64
	count                               float64 // places that it stands for
}

// roundsOf returns the places that a policy can be evaluated at, and how many others there are. Where
// the target has none of those that are drawn from, it passes over what was drawn, as a log does that
// does not have what ranks there.
func roundsOf(list []answered, policy, arm string, all bool) (rounds []round, not int64) {
	type alike struct {
		half  bool
		place int
		drawn bool
	}
	half := func(user string) bool { return xxhash.Sum64String("u"+user)%2 == 0 }
	n, hits := map[alike]float64{}, map[alike]float64{}
	for i := range list {
		a := &list[i]
		for place, id := range a.shown() {
			if a.plain {
				continue
			}
			of := alike{half(a.user), place, a.drawnAt(place, id)}
			n[of]++
			if a.opened[id] {
				hits[of]++
			}
		}
	}
	rate := func(user string, place int, drawn bool) float64 {
		of := alike{!half(user), place, drawn}
		if n[of] == 0 {
			return 0
		}
		return hits[of] / n[of]
	}
	for i := range list {
		a := &list[i]
		if a.plain || !all && a.arm != arm || policy == feedback.PolicyTarget && a.target == nil {
			continue
		}
		for place, id := range a.shown() {
			count := 1.0
			if policy == feedback.PolicyTarget && place >= a.of.k-a.of.places && place < len(a.target) && !slices.Contains(a.ranks[a.of.k:a.of.pool], a.target[place]) {
				if a.draws != nil {
					continue
				}
				count = 1 / (1 - a.of.share)
			}
			expecting, sure := 0.0, 0.0
			for _, app := range a.ranks {
				p := a.serves(policy, place, app)
				if a.logged(place, app) > 0 {
					sure += p
					expecting += p * rate(a.user, place, a.drawnAt(place, app))
				}
			}
			if sure < 0.999 {
				not++
				continue
			}
			r := round{user: a.user, count: count, weight: a.serves(policy, place, id) / a.logged(place, id), expected: rate(a.user, place, a.drawnAt(place, id)), expecting: expecting}
			if a.opened[id] {
				r.reward = 1
			}
			rounds = append(rounds, r)
		}
	}
	return rounds, not
}

// ratioOf is a ratio of sums over rounds, with its interval by user.
func ratioOf(rounds []round, x, t func(round) float64) *feedback.Estimate {
	sumX, sumT := 0.0, 0.0
	for _, r := range rounds {
		sumX, sumT = sumX+x(r), sumT+t(r)
	}
	if sumT == 0 {
		return nil
	}
	e := &feedback.Estimate{Value: sumX / sumT}
	residuals := map[string]float64{}
	for _, r := range rounds {
		residuals[r.user] += x(r) - e.Value*t(r)
	}
	if len(residuals) > 1 {
		v := 0.0
		for _, d := range residuals {
			v += d * d
		}
		n := float64(len(residuals))
		half := 1.959963984540054 * math.Sqrt(v*n/(n-1)) / sumT
		e.Interval = &feedback.Interval{Lower: e.Value - half, Upper: e.Value + half}
	}
	return e
}

func requireNear(t require.TestingT, want, got *feedback.Estimate, what string) {
	if want == nil {
		require.Nil(t, got, what)
		return
	}
	require.NotNil(t, got, what)
	require.InDelta(t, want.Value, got.Value, 1e-6, what) // propensities have 24 bits
	require.Equal(t, want.Interval == nil, got.Interval == nil, what)
	if want.Interval != nil {
		require.InDelta(t, want.Interval.Lower, got.Interval.Lower, 1e-5, what)
		require.InDelta(t, want.Interval.Upper, got.Interval.Upper, 1e-5, what)
	}
}

// requirePolicies compares what was found with a plain model that knows how answers were drawn.
func requirePolicies(t require.TestingT, list []answered, got *feedback.OffPolicy, policies int) {
	require.Empty(t, got.Refused)
	for _, p := range got.Policies {
		what := fmt.Sprint(p.Policy, " of ", p.Arm, p.All)
		rounds, not := roundsOf(list, p.Policy, p.Arm, p.All)
		require.Equal(t, []int64{int64(len(rounds)), not}, []int64{p.Exposures, p.NotEvaluable}, what)
		one := func(r round) float64 { return r.count }
		weight := func(r round) float64 { return r.weight }
		paid := func(r round) float64 { return r.weight * r.reward }
		requireNear(t, ratioOf(rounds, func(r round) float64 { return r.count * r.reward }, one), p.Logged, what+" logged")
		requireNear(t, ratioOf(rounds, paid, one), p.IPS, what+" IPS")
		requireNear(t, ratioOf(rounds, paid, weight), p.SNIPS, what+" SNIPS")
		requireNear(t, ratioOf(rounds, func(r round) float64 { return r.count*r.expecting + r.weight*(r.reward-r.expected) }, one), p.DR, what+" DR")
		users, sum, squares := map[string]bool{}, 0.0, 0.0
		for _, r := range rounds {
			users[r.user] = true
			sum, squares = sum+r.weight, squares+r.weight*r.weight
		}
		require.Equal(t, int64(len(users)), p.Users, what)
		if squares > 0 {
			require.InDelta(t, sum*sum/squares, p.Effective, 1e-3, what)
		}
		policies--
	}
	require.LessOrEqual(t, policies, 0, "policies that are missing")
}

// TestOffPolicy compares what a report says of policies with a plain model, which goes by the
// definitions of the estimates and knows with which probability anything could have been served.
func TestOffPolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawAnswered(t)
		store := objectstest.NewFaults()
		explorationLogs(list).put(t, store)
		bucket := store.Bucket("x")
		_, err := feedback.Join(context.Background(), bucket, options())
		require.NoError(t, err)
		o := measureOptions()
		o.Target = targetsOf(list)
		report, err := feedback.Measure(context.Background(), bucket, o)
		require.NoError(t, err)
		got := &report.OffPolicy
		requirePolicies(t, list, got, 4)
		var explored, without, unanswered, unused int64 = 0, 0, 0, 1
		for i := range list {
			switch a := &list[i]; {
			case a.plain:
				without++
				if a.target != nil {
					unused++
				}
			case a.target == nil:
				unanswered++
			}
			if list[i].draws != nil {
				explored++
			}
		}
		require.Equal(t, []int64{int64(len(list)) - without, explored, without, unanswered, unused}, []int64{got.Requests, got.Explored, got.Without, got.Unanswered, got.Unknown})
	})
}

// evaluated are requests in memory.
func evaluated(list []answered) (answers []feedback.Answer) {
	for i := range list {
		a := &list[i]
		x := feedback.Answer{User: "u" + a.user, Arm: a.arm, Generation: a.of.generation, Drawn: a.draws != nil, Shown: a.shown(), Next: a.next(), Target: a.target}
		for place, id := range x.Shown {
			x.Propensities, x.Hits = append(x.Propensities, float32(a.logged(place, id))), append(x.Hits, a.opened[id])
		}
		answers = append(answers, x)
	}
	return answers
}

// TestEvaluate compares answers in memory with the same model.
func TestEvaluate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := slices.DeleteFunc(drawAnswered(t), func(a answered) bool { return a.plain })
		got := feedback.Evaluate(evaluated(list))
		requirePolicies(t, list, &got, 4)
	})
}

// TestNothingIsEstimated has no number where the log does not have what it takes, and why.
func TestNothingIsEstimated(t *testing.T) {
	measured := func(list []answered, change func(*querylog.Query)) *feedback.OffPolicy {
		store := objectstest.NewFaults()
		l := explorationLogs(list)
		for i := range l.queries[0] {
			change(&l.queries[0][i])
		}
		l.put(t, store)
		bucket := store.Bucket("x")
		_, err := feedback.Join(t.Context(), bucket, options())
		require.NoError(t, err)
		o := measureOptions()
		o.Target = targetsOf(list)
		report, err := feedback.Measure(t.Context(), bucket, o)
		require.NoError(t, err)
		return &report.OffPolicy
	}
	of := exploring{7, 0.25, 4, 2, 9}
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	as := answered{of: of, user: "u", ranks: ids, target: []string{"a", "b", "c", "e"}}
	drawn := as
	drawn.draws = []int{4, 5}

	o := measured([]answered{as, as}, func(q *querylog.Query) {
		for i := range q.Candidates {
			q.Candidates[i].Propensity = 0
		}
	})
	require.Contains(t, o.Refused, "without exploration an answer is always the same")
	require.Empty(t, o.Policies)
	require.Equal(t, int64(2), o.Without)

	o = measured([]answered{drawn}, func(*querylog.Query) {})
	require.Equal(t, "no generation of the release tells anything; 7: it is not known which share of its requests is drawn: no answer is there that could have been and was not", o.Refused)

	o = measured([]answered{as, drawn, as}, func(q *querylog.Query) {
		if q.RequestID == "r2" {
			q.Candidates[3].Propensity = 0.5
		}
	})
	require.Equal(t, "no generation of the release tells anything; 7: its propensities are of several shares of requests", o.Refused)

	// One generation tells nothing, the other does.
	o = measured([]answered{as, drawn, drawn}, func(q *querylog.Query) {
		if q.RequestID == "r2" {
			q.Generation = 8
		}
	})
	require.Empty(t, o.Refused)
	require.Equal(t, []feedback.LeftOut{{Generation: 8, Requests: 1, Why: "it is not known which share of its requests is drawn: no answer is there that could have been and was not"}}, o.LeftOut)
	require.Equal(t, int64(8), o.Policies[0].Exposures)

	// It is not known what could have been drawn: what came next was not recorded.
	o = measured([]answered{as, drawn}, func(q *querylog.Query) { q.Next = q.Next[:1] })
	at := slices.IndexFunc(o.Policies, func(p feedback.Policy) bool { return p.Policy == feedback.PolicyTarget })
	require.Equal(t, []int64{4, 4}, []int64{o.Policies[at].Exposures, o.Policies[at].NotEvaluable}, "open places of both answers")

	store := objectstest.NewFaults()
	explorationLogs([]answered{as}).put(t, store)
	_, err := feedback.Join(t.Context(), store.Bucket("x"), options())
	require.NoError(t, err)
	for want, target := range map[string]iter.Seq2[*feedback.Target, error]{
		"an answer of the target names no request": func(yield func(*feedback.Target, error) bool) { yield(&feedback.Target{}, nil) },
		"line 7": func(yield func(*feedback.Target, error) bool) { yield(nil, errors.New("line 7")) },
	} {
		m := measureOptions()
		m.Target = target
		_, err := feedback.Measure(t.Context(), store.Bucket("x"), m)
		require.EqualError(t, err, want)
	}
}

// TestEstimatesFindTheValue has each estimate be near what is true, of answers whose hits are drawn by
// known rates: the mean over many logs, in standard errors of that mean.
func TestEstimatesFindTheValue(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 22))
	of := exploring{7, 0.3, 3, 1, 7}
	ids := []string{"a", "b", "c", "d", "e", "f", "g"}
	rates := map[string]float64{"a": 0.5, "b": 0.4, "c": 0.1, "d": 0.6, "e": 0.5, "f": 0.4, "g": 0.3}
	truth := map[string]float64{
		feedback.PolicyRanked: (0.5 + 0.4 + 0.1) / 3, feedback.PolicyDrawn: (0.5 + 0.4 + (0.6+0.5+0.4+0.3)/4) / 3, feedback.PolicyTarget: (0.5 + 0.4 + 0.6) / 3,
	}
	const runs = 100
	type of3 struct{ sum, squares float64 }
	found := map[string]*of3{}
	for range runs {
		var list []answered
		for user := range 60 {
			a := answered{of: of, user: fmt.Sprint(user), ranks: ids, opened: map[string]bool{}, target: []string{"a", "b", "d"}}
			if r.Float64() < of.share {
				a.draws = []int{of.k + r.IntN(of.pool-of.k)}
			}
			for _, id := range a.shown() {
				a.opened[id] = r.Float64() < rates[id]
			}
			list = append(list, a)
		}
		got := feedback.Evaluate(evaluated(list))
		for _, p := range got.Policies {
			if !p.All {
				continue
			}
			for name, e := range map[string]*feedback.Estimate{"ips": p.IPS, "dr": p.DR} {
				f := found[p.Policy+" "+name]
				if f == nil {
					f = &of3{}
					found[p.Policy+" "+name] = f
				}
				d := e.Value - truth[p.Policy]
				f.sum, f.squares = f.sum+d, f.squares+d*d
			}
		}
	}
	require.Len(t, found, 6)
	for name, f := range found {
		mean := f.sum / runs
		require.Less(t, math.Abs(mean), 4*math.Sqrt(f.squares/runs/runs), name)
		require.Less(t, math.Sqrt(f.squares/runs), 0.2, name)
	}
}
