package gate

import (
	"fmt"

	"github.com/tandem-ann/tandem/shard"
)

// inconclusive returns the gates that could tell nothing either way, each with why, less
// what others prove: that both towers are of one training is known by axes, by what users
// did, or by the run that both name.
func inconclusive(rows []Row) []string {
	proved := false
	for _, r := range rows {
		switch r.Gate {
		case TrainingRun, Axes, Alignment:
			proved = proved || r.State == shard.GatePassed
		}
	}
	var list []string
	for _, r := range rows {
		if r.State == shard.GateInconclusive && !(r.Gate == Axes && proved) {
			list = append(list, fmt.Sprintf("%s: %s", r.Gate, r.Why))
		}
	}
	return list
}
