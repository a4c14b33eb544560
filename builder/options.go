package builder

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
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
	// empty for [gate.DefaultThresholds].
	Gates string
	// Interactions are the paths of Parquet or CSV files of what users did, with the id
	// columns of both towers; none if there are none. See [tower.InteractionOptions].
	Interactions []string
	// Opened are the files of all that, if they are open already; then the caller closes
	// them.
	Opened *Inputs
	// Previous is the snapshot that the gates compare with; empty for none.
	Previous shard.Digest
	// PreviousStore is the store that has Previous; nil for the one that is built into.
	PreviousStore *shard.Store
	// LiveFilters reads the filters of recorded queries, for the filters gate, which runs
	// without them as it does without queries; see [gate.CheckFilters]. It may be nil.
	LiveFilters func(context.Context) (*gate.LiveFilters, error) `json:"-"`
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
	if err := shard.CheckModel(o.Model, o.ModelVersion); err != nil {
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
	Digest   shard.Digest
	Manifest *shard.Manifest
	Rejected map[shard.Kind]*Rejections
	// Gates is what the gates found. A snapshot that fails is published, so that it can
	// be looked at, and not fit for release.
	Gates *gate.Recorded
}
