package feedback

import (
	"math"
	"math/rand/v2"
	"slices"
)

// z is the quantile of the normal distribution that 97.5% lie below.
const z = 1.959963984540054

// Interval is what a value lies in with a confidence of 95%, as far as the users that were seen
// stand for all.
type Interval struct {
	Lower float64 `json:"lower"`
	Upper float64 `json:"upper"`
}

// sums are what a ratio, of events to trials, and its variance by user come from.
type sums struct {
	users              int64
	trials, hits       int64
	value              float64 // the sum of what is averaged over trials
	hh, ht, tt, vv, vt float64 // over users, of the products of their sums
}

// add adds a user, who has some trials.
func (s *sums) add(trials, hits int64, value float64) {
	t, h := float64(trials), float64(hits)
	s.users++
	s.trials += trials
	s.hits += hits
	s.value += value
	s.hh, s.ht, s.tt = s.hh+h*h, s.ht+h*t, s.tt+t*t
	s.vv, s.vt = s.vv+value*value, s.vt+value*t
}

// variance returns that of the ratio of a sum to the trials: users are drawn, and each has several
// trials that are alike, so it is that of the linearised ratio by user, the delta method (Cochran,
// Sampling Techniques, 3rd edition, section 2.11; Deng, Knoblich, Lu, Applying the Delta Method in
// Metric Analytics, KDD 2018).
func (s *sums) variance(ratio, xx, xt float64) float64 {
	n, users := float64(s.trials), float64(s.users)
	return math.Max(xx-2*ratio*xt+ratio*ratio*s.tt, 0) / (n * n) * users / (users - 1)
}

// rate returns the share of trials that are hits, and its interval, which is Wilson's of as many
// independent trials as would have the variance that is seen (Korn, Graubard, Confidence intervals
// for proportions, Survey Methodology, 1998), and of as many as there are users where none is seen.
// There is no interval for fewer than two users.
func (s *sums) rate() (share float64, in *Interval) {
	if s.trials == 0 {
		return 0, nil
	}
	share = float64(s.hits) / float64(s.trials)
	if s.users < 2 {
		return share, nil
	}
	trials := float64(s.users)
	if v := s.variance(share, s.hh, s.ht); v > 0 && share > 0 && share < 1 {
		trials = math.Min(float64(s.trials), share*(1-share)/v)
	}
	z2 := z * z / trials
	middle := (share + z2/2) / (1 + z2)
	width := z * math.Sqrt(share*(1-share)/trials+z2/trials/4) / (1 + z2)
	return share, &Interval{math.Max(middle-width, 0), math.Min(middle+width, 1)}
}

// mean returns the mean of the value over trials, and its interval.
func (s *sums) mean() (mean float64, in *Interval) {
	if s.trials == 0 {
		return 0, nil
	}
	mean = s.value / float64(s.trials)
	if s.users < 2 {
		return mean, nil
	}
	half := z * math.Sqrt(s.variance(mean, s.vv, s.vt))
	return mean, &Interval{mean - half, mean + half}
}

// SignTest returns the two-sided probability of a split of n at least as uneven as wins and
// losses, if either is as likely as the other: the exact binomial one.
func SignTest(wins, losses int64) float64 {
	n := wins + losses
	return math.Min(1, 2*binomialBelow(n, min(wins, losses), 0.5))
}

// binomialBelow returns the probability of at most k of n, each of a probability.
func binomialBelow(n, k int64, p float64) float64 {
	switch {
	case k < 0:
		return 0
	case k >= n:
		return 1
	}
	all, _ := math.Lgamma(float64(n) + 1)
	sum := 0.0
	for i := range k + 1 {
		a, _ := math.Lgamma(float64(i) + 1)
		b, _ := math.Lgamma(float64(n-i) + 1)
		sum += math.Exp(all - a - b + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return math.Min(sum, 1)
}

// resamples is how often a bootstrap draws.
const resamples = 2000

// bootstrap returns the interval of a ratio of sums over users, by drawing each user as often as a
// Poisson distribution of mean 1 says (Chamandy and others, Estimating Uncertainty for Massive Data
// Streams, 2012). Users who are alike are drawn together. It is the same for the same users.
func bootstrap(users map[[2]int64]int64, ratio func(a, b float64) float64) *Interval {
	if len(users) == 0 {
		return nil
	}
	kinds := make([][2]int64, 0, len(users))
	for k := range users {
		kinds = append(kinds, k)
	}
	slices.SortFunc(kinds, func(a, b [2]int64) int { return slices.Compare(a[:], b[:]) })
	draw := rand.New(rand.NewPCG(1, 1))
	var list []float64
	for range resamples {
		var a, b float64
		for _, k := range kinds {
			n := poisson(draw, float64(users[k]))
			a, b = a+n*float64(k[0]), b+n*float64(k[1])
		}
		if a+b > 0 {
			list = append(list, ratio(a, b))
		}
	}
	if len(list) == 0 {
		return nil
	}
	slices.Sort(list)
	at := func(share float64) float64 { return list[int(share*float64(len(list)-1)+0.5)] }
	return &Interval{at(0.025), at(0.975)}
}

// poisson draws from a Poisson distribution; of a large mean, from the normal one that it nears.
func poisson(draw *rand.Rand, mean float64) float64 {
	if mean > 100 {
		return math.Max(0, math.Round(mean+math.Sqrt(mean)*draw.NormFloat64()))
	}
	limit, product, n := math.Exp(-mean), draw.Float64(), 0.0
	for product > limit {
		product *= draw.Float64()
		n++
	}
	return n
}
