package feedback

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/wording"
)

// The world in which policies are evaluated: an answer has k places, of which the last ones may be
// drawn from the ranks after it up to pool. Users differ in how much they do, and do more at the top.
const (
	openPlaces   = 3
	poolRank     = 20
	perUser      = 2 // requests
	firstPlace   = 0.3
	nextPlace    = 0.85 // of the place before it
	changedPlace = 2    // at which the target has what could not have been served
)

// activities are by how much a user does more or less than all do.
var activities = []float64{0.4, 0.8, 1, 1.8}

// OffPolicyOptions say what is simulated.
type OffPolicyOptions struct {
	Seed  uint64
	Runs  int     // logs that are made and evaluated
	Users int     // of each
	Share float64 // of requests whose last places are drawn
	// Progress is told of each run.
	Progress func(done int)
}

// Validate returns an error unless the options make sense. It names the field.
func (o *OffPolicyOptions) Validate() error {
	switch {
	case o.Runs < 1 || o.Runs > 1_000_000:
		return fmt.Errorf("runs is %d; accepted: 1 to 1000000", o.Runs)
	case o.Users < 2 || o.Users > 1_000_000:
		return fmt.Errorf("users is %d; accepted: 2 to 1000000", o.Users)
	case !(o.Share > 0 && o.Share < 1):
		return fmt.Errorf("share is %v; accepted: above 0 and below 1", o.Share)
	}
	return nil
}

// OffPolicyReport is what was found. The names of its JSON fields are stable.
type OffPolicyReport struct {
	Runs  int            `json:"runs"`
	Users int            `json:"users"`
	Share float64        `json:"share"`
	Rows  []OffPolicyRow `json:"rows"`
}

// OffPolicyRow is an estimate of a policy.
type OffPolicyRow struct {
	Policy   string  `json:"policy"`
	Estimate string  `json:"estimate"` // ips, snips, dr
	True     float64 `json:"true"`     // hits of an exposure
	Mean     float64 `json:"mean"`     // of the estimates
	Width    float64 `json:"width"`    // of the intervals, on average
	Covered  int     `json:"covered"`  // intervals that have the true value
	// NotEvaluable is the share of places that cannot be evaluated, on average.
	NotEvaluable float64 `json:"share_not_evaluable"`
}

// rateAt is the rate of hits of the app of a rank at a place, of a user of average activity.
func rateAt(place, rank int) float64 {
	rate := firstPlace
	for range place {
		rate *= nextPlace
	}
	if rank >= k {
		rate *= 0.5 + 0.15*float64(rank*7%10) // of the pool some are better than what is ranked, some worse
	}
	return rate
}

// targetRank is the rank of the app that the target has at a place.
func targetRank(place int) int {
	switch {
	case place == changedPlace:
		return changedPlace + 1
	case place >= k-openPlaces:
		return k + 2*(place-(k-openPlaces)) + 1
	}
	return place
}

// trueValues returns the hits of an exposure of each policy, at the places that can be evaluated.
func trueValues() map[string]float64 {
	values := map[string]float64{}
	for place := range k {
		values[feedback.PolicyRanked] += rateAt(place, place) / k
		if place < k-openPlaces {
			values[feedback.PolicyDrawn] += rateAt(place, place) / k
		} else {
			for rank := k; rank < poolRank; rank++ {
				values[feedback.PolicyDrawn] += rateAt(place, rank) / (poolRank - k) / k
			}
		}
		if place != changedPlace {
			values[feedback.PolicyTarget] += rateAt(place, targetRank(place)) / (k - 1)
		}
	}
	return values
}

// RunOffPolicy simulates what a release that explores logs, evaluates policies on it, and counts how
// often the interval of an estimate has the true value.
func RunOffPolicy(ctx context.Context, o OffPolicyOptions) (*OffPolicyReport, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	report := &OffPolicyReport{Runs: o.Runs, Users: o.Users, Share: o.Share}
	truth := trueValues()
	for run := range o.Runs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		found := feedback.Evaluate(exploringLog(rand.New(rand.NewPCG(o.Seed, uint64(run))), o))
		for _, p := range found.Policies {
			if !p.All {
				continue
			}
			for _, e := range []struct {
				name string
				of   *feedback.Estimate
			}{{"ips", p.IPS}, {"snips", p.SNIPS}, {"dr", p.DR}} {
				if e.of == nil || e.of.Interval == nil {
					continue // it covers nothing
				}
				i := slices.IndexFunc(report.Rows, func(r OffPolicyRow) bool { return r.Policy == p.Policy && r.Estimate == e.name })
				if i < 0 {
					i, report.Rows = len(report.Rows), append(report.Rows, OffPolicyRow{Policy: p.Policy, Estimate: e.name, True: truth[p.Policy]})
				}
				row, runs := &report.Rows[i], float64(o.Runs)
				row.Mean += e.of.Value / runs
				row.Width += (e.of.Interval.Upper - e.of.Interval.Lower) / runs
				row.NotEvaluable += p.Share / runs
				if e.of.Interval.Lower <= row.True && row.True <= e.of.Interval.Upper {
					row.Covered++
				}
			}
		}
		if o.Progress != nil {
			o.Progress(run + 1)
		}
	}
	return report, nil
}

// exploringLog draws what a release logs.
func exploringLog(r *rand.Rand, o OffPolicyOptions) (answers []feedback.Answer) {
	share := float64(int(o.Share*1000+0.5)) / 1000
	var target []string
	for place := range k {
		target = append(target, names[targetRank(place)])
	}
	for user := range o.Users {
		activity := activities[r.IntN(len(activities))]
		for range perUser {
			a := feedback.Answer{User: strconv.Itoa(user), Generation: 1, Drawn: r.Float64() < share, Target: target}
			ranks := make([]int, poolRank)
			for rank := range ranks {
				ranks[rank] = rank
			}
			if a.Drawn { // what is displaced is not logged
				drawn := r.Perm(poolRank - k)[:openPlaces]
				shown := ranks[: k-openPlaces : k-openPlaces]
				for _, d := range drawn {
					shown = append(shown, k+d)
				}
				for rank := k; rank < poolRank; rank++ {
					if !slices.Contains(drawn, rank-k) {
						shown = append(shown, rank)
					}
				}
				ranks = shown
			}
			for place, rank := range ranks {
				if place >= k {
					a.Next = append(a.Next, names[rank])
					continue
				}
				a.Shown = append(a.Shown, names[rank])
				p := 1.0
				switch {
				case place < k-openPlaces:
				case a.Drawn:
					p = share / (poolRank - k)
				default:
					p = 1 - share
				}
				a.Propensities = append(a.Propensities, float32(p))
				a.Hits = append(a.Hits, r.Float64() < activity*rateAt(place, rank))
			}
			answers = append(answers, a)
		}
	}
	return answers
}

// WriteTable writes the report for people.
func (r *OffPolicyReport) WriteTable(w io.Writer) error {
	t := wording.NewTable(w)
	fmt.Fprintf(t, "policy\testimate\ttrue\tmean\twidth of 95%%\tcovered\tnot evaluable\n")
	for i := range r.Rows {
		x := &r.Rows[i]
		fmt.Fprintf(t, "%s\t%s\t%.4f\t%.4f\t%.4f\t%.1f%%\t%.1f%%\n", x.Policy, x.Estimate, x.True, x.Mean, x.Width, 100*float64(x.Covered)/float64(r.Runs), 100*x.NotEvaluable)
	}
	fmt.Fprintf(t, "\n%s of %s, of which %.1f%% are drawn\n", wording.Plural(r.Runs, "log"), wording.Plural(perUser*r.Users, "request"), 100*r.Share)
	return t.Flush()
}
