package builder

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Options are what a snapshot is built from and how.
type Options struct {
	// Apps and Users are the two towers.
	Apps, Users TowerOptions
	// Model and ModelVersion name what produced both towers, 1 to 256 bytes each.
	Model, ModelVersion string
	// Segments is the path of a YAML file of the app tower's segments, a mapping of
	// names to expressions; empty if there are none.
	Segments string
	// Params are the parameters of both towers' indexes.
	Params index.Params
	// Threads bounds the goroutines that build; 0 means 1. It does not change the
	// snapshot.
	Threads int
	// MaxRejected is how many rows of both towers together may be rejected before
	// the build fails.
	MaxRejected int
	// Gates is the path of a YAML file of what the snapshot must pass to be released;
	// empty for [gates.DefaultThresholds].
	Gates string
	// Interactions are the paths of Parquet or CSV files of what users did, with the id
	// columns of both towers; none if there are none. See [tower.InteractionOptions].
	Interactions []string
	// Opened are the files of all that, if they are open already; then the caller closes
	// them.
	Opened *Inputs
	// Previous is the snapshot that the gates compare with; empty for none.
	Previous manifest.Digest
	// PreviousStore is the store that has Previous; nil for the one that is built into.
	PreviousStore *snapshots.Store
	// LiveFilters reads the filters of recorded queries, for the filters gate, which runs
	// without them as it does without queries; see [gates.CheckFilters]. It may be nil.
	LiveFilters func(context.Context) (*querylog.LiveFilters, error) `json:"-"`
	// Live is what the live log has of the store that is built into, or of another one from
	// which a snapshot is built again. The users that it has forgotten are left out, whatever
	// the inputs have of them. Default: Build reads the log.
	Live *live.State `json:"-"`
	// LivePosition is the position of that log that the inputs reflect: what was upserted, set
	// or removed up to it is in them. Nil says nothing of it; where Build reads the log, that
	// is the position before all of it.
	LivePosition *shard.Position
	// Tool is the release of the tool that builds, for the manifest; it may be empty.
	Tool string
	// Progress is told what the build does; nil for nothing.
	Progress Progress
}

// TowerOptions are what one tower is built from.
type TowerOptions struct {
	// Input names the files.
	Input tower.Options
	// Attributes names JSON Lines of further attributes, joined by id; it has no paths if
	// there are none.
	Attributes tower.AttributeOptions
	// Shards is the number of shards, at least 1.
	Shards int
	// Graph, if not empty, is the path of a coder/hnsw export over the same ids,
	// which is frozen instead of constructing a graph. It takes one shard.
	Graph string
	// GraphKeys is the Go type of the export's keys.
	GraphKeys hnswexport.KeyType
}

// Progress is told what a build does. Calls come from one goroutine at a time.
type Progress interface {
	// Stage begins a stage of total steps; -1 means unknown.
	Stage(name string, total int64)
	// Step says how many steps of the stage are done.
	Step(done int64)
	// Note is a line for the person who runs the build.
	Note(text string)
}

// Validate returns an error that names the option at fault.
func (o *Options) Validate() error {
	if err := manifest.CheckModel(o.Model, o.ModelVersion); err != nil {
		return err
	}
	if err := o.Params.Validate(); err != nil {
		return err
	}
	if o.MaxRejected < 0 {
		return fmt.Errorf("max rejected is %d, want at least 0", o.MaxRejected)
	}
	if o.Previous != "" && !o.Previous.Valid() {
		return fmt.Errorf("previous snapshot %.80q is not a digest", o.Previous)
	}
	if o.LivePosition != nil {
		if err := o.LivePosition.Check(); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		kind shard.Kind
		TowerOptions
	}{{shard.Apps, o.Apps}, {shard.Users, o.Users}} {
		switch {
		case len(t.Input.Paths) == 0:
			return fmt.Errorf("%s: no input file", t.kind)
		case t.Shards < 1 || t.Shards > shard.MaxShards:
			return fmt.Errorf("%s: %d shards, want 1 to %d", t.kind, t.Shards, shard.MaxShards)
		case t.Graph != "" && t.Shards != 1:
			return fmt.Errorf("%s: a graph spans all rows, so it takes 1 shard, not %d", t.kind, t.Shards)
		}
	}
	return nil
}

// Report is what a build did.
type Report struct {
	Digest   manifest.Digest
	Manifest *manifest.Manifest
	Rejected map[shard.Kind]*Rejections
	// LiveHead is where the live log ended when the build began; zero without one. The
	// manifest has the position that the inputs reflect, and how many users were left out
	// since they are forgotten.
	LiveHead shard.Position
	// Gates is what the gates found. A snapshot that fails is published, so that it can
	// be looked at, and not fit for release.
	Gates *gates.Recorded
}
