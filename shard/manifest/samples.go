package manifest

import (
	"fmt"
	"slices"
)

// Samples counts the rows of one tower that a build asked the other with. No row has two
// purposes, so that what was chosen by some is tried on others.
type Samples struct {
	Shape     int `json:"shape"`     // found where walks start
	Calibrate int `json:"calibrate"` // found how much effort a recall target takes
	Gate      int `json:"gate"`      // measured recall

	// Weaker are the purposes that had fewer rows than they should, as the tower has too
	// few: what they found is true, and less sure than it would be.
	Weaker []Purpose `json:"weaker,omitempty"`
}

// Purpose is what rows of a tower are asked for in a build.
type Purpose string

// The purposes. What fewer rows weaken is, for Gate, the lower bound of the recall that
// gates judge. For Calibrate it is the bound that efforts are chosen by: they are larger
// than need be, or the exact scan. For Shape it is where walks start, which costs effort.
const (
	Shape     Purpose = "shape"
	Calibrate Purpose = "calibrate"
	Gate      Purpose = "gate"
)

// check returns an error that says what no build counts.
func (s *Samples) check() error {
	if s == nil {
		return nil
	}
	if s.Shape < 0 || s.Calibrate < 0 || s.Gate < 0 {
		return fmt.Errorf("samples: %d shape, %d calibrate and %d gate, want no fewer than 0", s.Shape, s.Calibrate, s.Gate)
	}
	for i, p := range s.Weaker {
		if p != Shape && p != Calibrate && p != Gate || slices.Contains(s.Weaker[:i], p) {
			return fmt.Errorf("samples: weaker has %.80q, want each of %s, %s and %s at most once", p, Shape, Calibrate, Gate)
		}
	}
	return nil
}

// sampled reports whether the manifest says what only [EvidenceVersion] can.
func (m *Manifest) sampled() bool {
	worst := func(r Recall) bool { return r.Worst != nil }
	for _, t := range []*Tower{&m.Apps, &m.Users} {
		if t.Samples != nil || slices.ContainsFunc(t.Recall, worst) {
			return true
		}
		for _, s := range t.Segments {
			if slices.ContainsFunc(s.Recall, worst) {
				return true
			}
		}
	}
	return false
}
