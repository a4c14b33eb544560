package gates

import (
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Unproved says what keeps the towers from being proved to be of one training: their
// vectors alone could not tell, neither did what users did, and no run is named by both.
// It is empty if one of these decided.
func (v *Verdict) Unproved() string {
	row := func(gate string) Row {
		i := slices.IndexFunc(v.Rows, func(r Row) bool { return r.Gate == gate })
		if i < 0 {
			return Row{Gate: gate, State: manifest.GateNotRun}
		}
		return v.Rows[i]
	}
	for _, gate := range []string{TrainingRun, Alignment} {
		if state := row(gate).State; state == manifest.GatePassed || state == manifest.GateFailed {
			return ""
		}
	}
	vectors, interactions := row(Axes), row(Alignment)
	if vectors.State != manifest.GateInconclusive {
		return ""
	}
	return fmt.Sprintf("nothing shows that its towers are of one training: %s %s: %s; %s %s: %s",
		vectors.Gate, vectors.State, vectors.Why, interactions.Gate, interactions.State, interactions.Why)
}
