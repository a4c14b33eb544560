package gate

import "math"

// confidence is the quantile of the normal distribution that 95% lie below.
const confidence = 1.6448536269514722

// wilson returns the lower bound of a share that was seen in trials, of 95% confidence.
// It is Wilson's score interval, one-sided. Trials need not be whole.
func wilson(share, trials float64) float64 {
	if trials <= 0 {
		return 0
	}
	const z = confidence
	square := z * z / trials
	middle := share + square/2
	width := z * math.Sqrt(math.Max(share*(1-share), 0)/trials+square/trials/4)
	return math.Max((middle-width)/(1+square), 0)
}

// share is what users were given of what they should have been.
type share struct {
	hits, trials []int // by user
}

func (s *share) add(hits, trials int) {
	s.hits, s.trials = append(s.hits, hits), append(s.trials, trials)
}

// of returns the share of all hits in all trials, and its lower bound.
//
// Users differ, so trials of one user tell less than as many of several do. The trials
// that count are as many as would, if they were independent, give the variance that the
// users' own shares show (the linearised variance of a ratio).
func (s *share) of() (mean, lower float64, trials int) {
	hits := 0
	for i := range s.hits {
		hits += s.hits[i]
		trials += s.trials[i]
	}
	if trials == 0 {
		return 1, 1, 0
	}
	mean = float64(hits) / float64(trials)
	var square float64
	for i := range s.hits {
		d := float64(s.hits[i]) - float64(mean*float64(s.trials[i]))
		square += float64(d * d)
	}
	effective := float64(trials)
	if n := float64(len(s.hits)); square > 0 && n > 1 {
		variance := square * n / (n - 1) / float64(trials) / float64(trials)
		effective = math.Min(effective, mean*(1-mean)/variance)
	}
	return mean, wilson(mean, effective), trials
}
