// Package feedback simulates experiments on two arms, to say how many requests it takes to find
// the better one: by answers that are interleaved by package shard/interleave, and by a comparison
// of hit rates of requests that are answered by one arm each. [Run] makes the table of
// `tandem bench interleaving`. [RunOffPolicy] makes that of `tandem bench offpolicy`: how often the
// intervals of estimates of policies that were not served have the true value.
//
// # The model
//
// A request has one app that its user wants, among others. An arm scores apps by what they are
// worth, with noise, of which both arms have a part in common, so that their answers overlap; the
// better arm gives the wanted app an advantage, the effect. Users click on what they want and now
// and then on something else. Either they look at all of an answer, or at the first app, and at
// each next one with some probability, until they have clicked on the wanted one: the cascade
// (Craswell and others, An experimental comparison of click position-bias models, WSDM 2008).
package feedback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/interleave"
	"github.com/tandem-ann/tandem/shard/wording"
)

// The model's numbers.
const (
	k         = 10
	apps      = 200
	worth     = 1.5  // of the wanted app, above others, in standard deviations of a score
	wanted    = 0.7  // with which probability it is clicked on, where it is looked at
	unwanted  = 0.01 // and another
	goOn      = 0.85 // with which probability the next app is looked at
	level     = 0.05
	power     = 0.8
	pick      = 1 << 16 // multiplies seeds
	powerRuns = 400
)

// Options say what is simulated.
type Options struct {
	Seed uint64
	// Effects are advantages of the better arm, above 0.
	Effects []float64
	// Common is the share of the variance of noise that both arms have in common, 0 up to below 1.
	// The more it is, the more their answers are alike.
	Common float64
	// Requests is how many different requests there are, of which experiments draw.
	Requests int
	// Null is how many experiments with equal arms are made, and NullRequests of how many
	// requests each is.
	Null, NullRequests int
	Progress           func(done int)
}

// DefaultEffects are a small, a middling and a large one.
var DefaultEffects = []float64{0.05, 0.1, 0.2}

// Validate returns an error unless the options make sense. It names the field.
func (o *Options) Validate() error {
	for _, e := range o.Effects {
		if !(e > 0 && e <= 10) {
			return fmt.Errorf("effect is %v; accepted: above 0, up to 10", e)
		}
	}
	switch {
	case !(o.Common >= 0 && o.Common < 1):
		return fmt.Errorf("common is %v; accepted: 0 up to below 1", o.Common)
	case len(o.Effects) == 0 || len(o.Effects) > 20:
		return fmt.Errorf("effect has %d numbers; accepted: 1 to 20", len(o.Effects))
	case o.Requests < 100 || o.Requests > 10_000_000:
		return fmt.Errorf("requests is %d; accepted: 100 to 10000000", o.Requests)
	case o.Null < 1 || o.Null > 1_000_000:
		return fmt.Errorf("null is %d; accepted: 1 to 1000000", o.Null)
	case o.NullRequests < 1 || o.NullRequests > 1_000_000:
		return fmt.Errorf("null requests is %d; accepted: 1 to 1000000", o.NullRequests)
	}
	return nil
}

// Report is what was found. The names of its JSON fields are stable.
type Report struct {
	Rows  []Row  `json:"rows"`
	Nulls []Null `json:"null"`
}

// Row is one effect, with one kind of users.
type Row struct {
	Clicks string  `json:"clicks"` // cascade, or all
	Effect float64 `json:"effect"`
	// Rates are the shares of requests with a click, of the worse arm and the better one.
	Rates [2]float64 `json:"rates"`
	// Decisive is the share of interleaved requests with one arm ahead, and Prefer the share of
	// those in which that is the better one.
	Decisive float64 `json:"decisive"`
	Prefer   float64 `json:"prefer"`
	// Plan is how many requests each takes, and Powers how often an experiment of so many found the
	// better arm: comparing, interleaving.
	feedback.Plan
	Powers [2]float64 `json:"powers"`
}

// Null is experiments with equal arms.
type Null struct {
	Clicks      string `json:"clicks"`
	Experiments int    `json:"experiments"`
	Requests    int    `json:"requests"` // of each
	// Found is how many found a better arm, by interleaving and by comparing.
	Interleaved int `json:"interleaved_found"`
	Compared    int `json:"ab_found"`
}

// answers are those of both arms to a request; app 0 is the wanted one.
type answers [2][k]uint8

// users click.
type users struct {
	name    string
	cascade bool
}

var kinds = []users{{"cascade", true}, {"all", false}}

// Run simulates. The same options give the same report. It may be called from any goroutine.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	report, done := &Report{}, 0
	step := func() error {
		done++
		if o.Progress != nil {
			o.Progress(done)
		}
		return ctx.Err()
	}
	for i, effect := range o.Effects {
		pool := draw(rand.New(rand.NewPCG(o.Seed, uint64(i+1))), o.Requests, effect, o.Common)
		for _, u := range kinds {
			row, err := u.compare(rand.New(rand.NewPCG(o.Seed, uint64(i+1)*pick)), pool, effect)
			if err != nil {
				return nil, err
			}
			report.Rows = append(report.Rows, *row)
			if err := step(); err != nil {
				return nil, err
			}
		}
	}
	pool := draw(rand.New(rand.NewPCG(o.Seed, 0)), o.Requests, 0, o.Common)
	for _, u := range kinds {
		report.Nulls = append(report.Nulls, u.null(rand.New(rand.NewPCG(o.Seed, math.MaxUint64)), pool, o.Null, o.NullRequests))
		if err := step(); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// Steps returns how often Progress is called.
func (o *Options) Steps() int { return len(kinds) * (len(o.Effects) + 1) }

// draw draws requests, whose second arm is better by an effect, and has so much noise in common
// with the first.
func draw(r *rand.Rand, n int, effect, inCommon float64) []answers {
	pool := make([]answers, n)
	for i := range pool {
		var scores [2][apps]float64
		for app := range apps {
			common := math.Sqrt(inCommon) * r.NormFloat64()
			for arm := range scores {
				scores[arm][app] = common + math.Sqrt(1-inCommon)*r.NormFloat64()
			}
		}
		scores[0][0] += worth
		scores[1][0] += worth + effect
		for arm := range scores {
			best(&scores[arm], &pool[i][arm])
		}
	}
	return pool
}

// best finds the k best apps.
func best(scores *[apps]float64, list *[k]uint8) {
	n := 0
	for app, s := range scores {
		at := n
		for at > 0 && scores[list[at-1]] < s {
			at--
		}
		if at == k {
			continue
		}
		n = min(n+1, k)
		copy(list[at+1:n], list[at:n-1])
		list[at] = uint8(app)
	}
}

// clicks draws which of an answer is clicked on, and calls hit with each.
func (u users) clicks(r *rand.Rand, list func(rank int) uint8, n int, hit func(rank int)) {
	for rank := range n {
		if u.cascade && rank > 0 && r.Float64() >= goOn {
			return
		}
		p := unwanted
		if list(rank) == 0 {
			p = wanted
		}
		if r.Float64() < p {
			hit(rank)
			if u.cascade && list(rank) == 0 {
				return
			}
		}
	}
}

// rate returns the probability of a click on an answer.
func (u users) rate(list *[k]uint8) float64 {
	none, looks := 0.0, 1.0 // no click by leaving before, and looking at the next without one
	for rank, app := range list {
		if u.cascade && rank > 0 {
			none += looks * (1 - goOn)
			looks *= goOn
		}
		p := unwanted
		if app == 0 {
			p = wanted
		}
		looks *= 1 - p
	}
	return 1 - none - looks
}

// interleaved draws an interleaved answer and its clicks, and returns by how many the second arm is
// ahead. Swap has the arms change places.
func (u users) interleaved(r *rand.Rand, a *answers, swap bool) (ahead int) {
	var lists [2][]string
	for arm := range a {
		for _, app := range a[arm] {
			lists[arm] = append(lists[arm], names[app])
		}
	}
	if swap {
		lists[0], lists[1] = lists[1], lists[0]
	}
	picks := interleave.Draft(lists, k, r.Uint64(), nil).Picks
	u.clicks(r, func(rank int) uint8 { return a[picks[rank].Team^team(swap)][picks[rank].Rank] }, len(picks), func(rank int) {
		if picks[rank].Team == interleave.Second {
			ahead++
		} else {
			ahead--
		}
	})
	return ahead
}

func team(swap bool) interleave.Team {
	if swap {
		return 1
	}
	return 0
}

var names = func() (list [apps]string) {
	for i := range list {
		list[i] = strconv.Itoa(i)
	}
	return list
}()

// compare says how many requests the two ways take, and tries them.
func (u users) compare(r *rand.Rand, pool []answers, effect float64) (*Row, error) {
	row := &Row{Clicks: u.name, Effect: effect}
	wins, losses := 0, 0
	const times = 4
	for i := range pool {
		for arm := range row.Rates {
			row.Rates[arm] += u.rate(&pool[i][arm]) / float64(len(pool))
		}
		for range times {
			switch ahead := u.interleaved(r, &pool[i], false); {
			case ahead > 0:
				wins++
			case ahead < 0:
				losses++
			}
		}
	}
	row.Decisive, row.Prefer = float64(wins+losses)/float64(times*len(pool)), float64(wins)/float64(wins+losses)
	plan, err := feedback.NewPlan(feedback.PlanOptions{
		Rate: row.Rates[0], Lift: row.Rates[1]/row.Rates[0] - 1, Prefer: row.Prefer, Decisive: row.Decisive, Power: power, Level: level,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("effect is %v: too small to be found among %d requests", effect, len(pool)), err)
	}
	row.Plan = *plan
	for range powerRuns {
		if z := u.ab(r, pool, int(plan.Compared), false); z > limit {
			row.Powers[0] += 1.0 / powerRuns
		}
		if won, lost := u.split(r, pool, int(plan.Interleaved), false); won > lost && feedback.SignTest(won, lost) <= level {
			row.Powers[1] += 1.0 / powerRuns
		}
	}
	return row, nil
}

// limit is what a normal statistic exceeds with half the probability of the level.
const limit = 1.959963984540054

// split makes an experiment of interleaved requests, each of another user, and returns in how many
// the second arm was ahead, and the first.
func (u users) split(r *rand.Rand, pool []answers, n int, equal bool) (second, first int64) {
	for range n {
		swap := equal && r.IntN(2) == 1
		switch ahead := u.interleaved(r, &pool[r.IntN(len(pool))], swap); {
		case ahead > 0:
			second++
		case ahead < 0:
			first++
		}
	}
	return second, first
}

// ab makes an experiment of requests of which each arm answers half, and returns the statistic of
// the difference of their shares with a click.
func (u users) ab(r *rand.Rand, pool []answers, n int, equal bool) float64 {
	var hits [2]float64
	half := n / 2
	for arm := range hits {
		for range half {
			of := arm
			if equal {
				of = r.IntN(2)
			}
			if r.Float64() < u.rate(&pool[r.IntN(len(pool))][of]) {
				hits[arm]++
			}
		}
	}
	m := float64(half)
	p := (hits[0] + hits[1]) / (2 * m)
	if p == 0 || p == 1 {
		return 0
	}
	return (hits[1] - hits[0]) / m / math.Sqrt(2*p*(1-p)/m)
}

// null makes experiments with equal arms.
func (u users) null(r *rand.Rand, pool []answers, experiments, requests int) Null {
	out := Null{Clicks: u.name, Experiments: experiments, Requests: requests}
	for range experiments {
		if a, b := u.split(r, pool, requests, true); feedback.SignTest(a, b) <= level {
			out.Interleaved++
		}
		if math.Abs(u.ab(r, pool, requests, true)) > limit {
			out.Compared++
		}
	}
	return out
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := wording.NewTable(w)
	fmt.Fprintf(t, "clicks\teffect\trate\tof the better\tdecisive\tprefer\tA/B requests\tpower\tinterleaved\tpower\tratio\n")
	for i := range r.Rows {
		x := &r.Rows[i]
		fmt.Fprintf(t, "%s\t%.2f\t%.4f\t%.4f\t%.4f\t%.4f\t%s\t%.3f\t%s\t%.3f\t%.4f\n", x.Clicks, x.Effect, x.Rates[0], x.Rates[1], x.Decisive, x.Prefer,
			wording.Count(x.Compared), x.Powers[0], wording.Count(x.Interleaved), x.Powers[1], x.Ratio)
	}
	fmt.Fprintf(t, "\nequal arms\texperiments\trequests\tinterleaved: found\tA/B: found\n")
	for _, x := range r.Nulls {
		n := float64(x.Experiments)
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f%%\t%.1f%%\n", x.Clicks, wording.Count(x.Experiments), wording.Count(x.Requests), 100*float64(x.Interleaved)/n, 100*float64(x.Compared)/n)
	}
	return t.Flush()
}
