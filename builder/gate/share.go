package gate

import "github.com/tandem-ann/tandem/index/interval"

// confidence is the quantile of the normal distribution that 95% lie below.
const confidence = interval.Z95

// share is what users were given of what they should have been.
type share struct {
	hits, trials []int // by user
}

func (s *share) add(hits, trials int) {
	s.hits, s.trials = append(s.hits, hits), append(s.trials, trials)
}

// of returns the share of all hits in all trials, and its lower bound of 95%
// confidence.
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
	effective := interval.Effective(mean, float64(trials), square, len(s.hits))
	return mean, interval.Lower(mean, effective, confidence), trials
}
