package release

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// StartOptions say how a snapshot begins to serve.
type StartOptions struct {
	Change
	Snapshot manifest.Digest
	// Arm is the name of the new arm. Default: control for the first release, else
	// candidate.
	Arm string
	// Weight is the arm's share of traffic, per mille, which the others give up in
	// proportion. The first release takes all, whatever Weight is.
	Weight int
	// RecallFloor is the arm's; see [Arm].RecallFloor.
	RecallFloor float64
}

// Start adds an arm that serves a snapshot which its gates let pass. The first release begins an experiment with
// a salt of its own; so does a start beside a single arm.
func (r *Releases) Start(ctx context.Context, o StartOptions) (*Release, error) {
	protect := func(ctx context.Context, _ *Release) (*snapshots.Protection, error) {
		return r.store.Protect(ctx, o.Snapshot)
	}
	return r.change(ctx, o.Change, Started, protect, func(ctx context.Context, next *Release) error {
		m, err := r.servable(ctx, o.Snapshot)
		if err != nil {
			return err
		}
		arm := Arm{Name: o.Arm, Snapshot: o.Snapshot, ModelVersion: m.ModelVersion, RecallFloor: o.RecallFloor}
		if err := r.admit(ctx, next, &arm, o.Override); err != nil {
			return err
		}
		weights := []int{Total}
		if len(next.Arms) == 0 {
			next.Model = m.Model
			if arm.Name == "" {
				arm.Name = Control
			}
		} else {
			if next.Model != m.Model {
				return fmt.Errorf("snapshot %s is of model %s, %s serves: %w", o.Snapshot.Short(), m.Model, next.Model, ErrChange)
			}
			if arm.Name == "" {
				arm.Name = Candidate
			}
			if next.Arm(arm.Name) != nil {
				return fmt.Errorf("there is an arm %s already; promote it, roll back, or name another: %w", arm.Name, ErrChange)
			}
			if o.Weight < 0 || o.Weight > Total {
				return fmt.Errorf("weight is %d; accepted: 0 to %d per mille: %w", o.Weight, Total, ErrChange)
			}
			weights = append(shrink(next.Arms, o.Weight), o.Weight)
		}
		if len(next.Arms) <= 1 {
			next.Salt = newID()
		}
		next.Arms = append(next.Arms, arm)
		divide(next.Arms, weights)
		return nil
	})
}

// servable returns the manifest of a snapshot that is there, with shards of the right
// sizes. Servers would find out, and keep what they have; but the log would say otherwise.
func (r *Releases) servable(ctx context.Context, d manifest.Digest) (*manifest.Manifest, error) {
	m, err := r.store.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := r.store.CheckShards(ctx, m); err != nil {
		return nil, fmt.Errorf("snapshot %s cannot be served: %w; tandem snapshot verify finds all that is wrong with it", d.Short(), err)
	}
	return m, nil
}
