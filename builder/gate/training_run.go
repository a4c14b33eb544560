package gate

import (
	"context"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
)

// trainingRun says whether both towers name the training run that they are of. A build
// refuses towers that name two.
func (r *run) trainingRun(context.Context) error {
	if r.off(gates.TrainingRun) {
		return nil
	}
	said := map[string]string{}
	for _, in := range r.Candidate.Manifest().Inputs {
		if in.Run != "" {
			said[in.Role] = in.Run
		}
	}
	apps, users := said[string(shard.Apps)], said[string(shard.Users)]
	switch {
	case apps == "" && users == "":
		r.NotRun(gates.TrainingRun, "", "neither tower says which training run it is of: a trainer may write it as metadata or column %s", tower.RunKey)
	case apps == "":
		r.NotRun(gates.TrainingRun, "", "users are of the training run %.80q, and apps do not say which they are of", users)
	case users == "":
		r.NotRun(gates.TrainingRun, "", "apps are of the training run %.80q, and users do not say which they are of", apps)
	default:
		same := 0.0
		if apps == users {
			same = 1
		}
		r.AtLeast(gates.TrainingRun, "one training run", same, 1, "apps are of the training run %.80q, users of %.80q", apps, users)
	}
	return nil
}
