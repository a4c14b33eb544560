package builder

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Inputs are the files that a build reads, open: so what a manifest records of them is
// what the build reads, whatever takes their places meanwhile. One build at a time uses
// them.
type Inputs struct {
	apps, users  towerFiles
	segments     *segmentsFile // nil without
	thresholds   gates.Thresholds
	gatesData    []byte           // the file of thresholds, if there is one
	gates        []manifest.Input // it, as an input
	interactions *input.Set       // nil without
}

// towerFiles are the files of one tower; nil where there are none.
type towerFiles struct{ rows, ids, attributes, graph *input.Set }

// sets returns the files by the ends of their roles, in the order of a manifest.
func (f *towerFiles) sets() []roleFiles {
	return []roleFiles{{"", f.rows}, {"-ids", f.ids}, {"-attributes", f.attributes}, {"-graph", f.graph}}
}

type roleFiles struct {
	role string
	set  *input.Set
}

// checked returns the error of reading rows, or one that says that a file was written to
// meanwhile, which explains all others.
func (f *towerFiles) checked(err error) error {
	for _, set := range []*input.Set{f.rows, f.ids, f.attributes} {
		err = checked(set, err)
	}
	return err
}

// checked returns the error of reading a set, which may be nil, or one that says that a file
// of it was written to meanwhile.
func checked(set *input.Set, err error) error {
	if set != nil {
		if changed := set.Unchanged(); changed != nil {
			return changed
		}
	}
	return err
}

// OpenInputs opens the files that a build with these options reads. Pipes and objects of
// buckets it copies into the folder, which is asked for when it is needed; nil is the
// system's folder of temporary files. The small files come first, so that a mistake in one
// is found before anything large has moved.
func OpenInputs(ctx context.Context, o Options, folder func() (string, error)) (*Inputs, error) {
	return openInputs(ctx, o, folder, false)
}

// openInputs is [OpenInputs], which may read objects where they are instead of copying them.
func openInputs(ctx context.Context, o Options, folder func() (string, error), inPlace bool) (_ *Inputs, err error) {
	if o.Progress == nil {
		o.Progress = silent{}
	}
	in := &Inputs{thresholds: gates.DefaultThresholds()}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Close())
		}
	}()
	if o.Segments != "" {
		if in.segments, err = readSegments(o.Segments); err != nil {
			return nil, err
		}
	}
	if o.Gates != "" {
		in.gates = make([]manifest.Input, 1)
		if in.thresholds, in.gates[0], err = gate.ReadThresholds(o.Gates); err != nil {
			return nil, err
		}
		if in.gatesData, err = gate.ReadFile(o.Gates); err != nil {
			return nil, err
		}
	}
	for _, t := range []struct {
		kind shard.Kind
		TowerOptions
		files *towerFiles
	}{{shard.Apps, o.Apps, &in.apps}, {shard.Users, o.Users, &in.users}} {
		for _, f := range []struct {
			what   string
			paths  []string
			accept input.Accept
			set    **input.Set
		}{
			{"", t.Input.Paths, tower.AcceptRows, &t.files.rows},
			{" ids", t.Input.IDs, tower.AcceptIDs, &t.files.ids},
			{" attributes", t.Attributes.Paths, tower.AcceptAttributes, &t.files.attributes},
			{" graph", paths(t.Graph), nil, &t.files.graph},
		} {
			if len(f.paths) == 0 {
				continue
			}
			how := input.Options{
				Folder: folder, Progress: Copying(o.Progress, string(t.kind)+f.what), Partitions: len(t.Input.PartitionAttributes) > 0 && f.what == "",
				InPlace: inPlace,
			}
			if *f.set, err = input.Open(ctx, f.paths, f.accept, how); err != nil {
				return nil, err
			}
		}
	}
	for kind, files := range map[shard.Kind]*input.Set{shard.Apps: in.apps.graph, shard.Users: in.users.graph} {
		if files != nil && len(files.Files()) != 1 {
			return nil, fmt.Errorf("%s: the graph is %d files, want one", kind, len(files.Files()))
		}
	}
	if len(o.Interactions) > 0 {
		how := input.Options{Folder: folder, Progress: Copying(o.Progress, "interactions"), InPlace: inPlace}
		in.interactions, err = tower.OpenInteractions(ctx, InteractionOptions(o.Interactions, o.parameters()), how)
		if err != nil {
			return nil, err
		}
		for _, note := range in.interactions.Notes() {
			o.Progress.Note("interactions: " + note)
		}
	}
	return in, nil
}

// paths returns a path as a list, without an empty one.
func paths(path string) []string {
	if path == "" {
		return nil
	}
	return []string{path}
}

// Copying returns what shows how far the copy of an input is, for [input.Options].
func Copying(p Progress, what string) func(done, total int64) {
	const none = -2
	begun := int64(none)
	return func(done, total int64) {
		if begun != total {
			p.Stage("copy "+what+" (bytes)", total)
			begun = total
		}
		p.Step(done)
	}
}

func (in *Inputs) tower(kind shard.Kind) *towerFiles {
	if kind == shard.Users {
		return &in.users
	}
	return &in.apps
}

// ofTowers describes the files of both towers, and the segments.
func (in *Inputs) ofTowers(ctx context.Context, p Progress) ([]manifest.Input, error) {
	var total, before int64
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, f := range in.tower(kind).sets() {
			if f.set != nil {
				total += f.set.Size()
			}
		}
	}
	p.Stage("digest inputs (bytes)", total)
	var list []manifest.Input
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, f := range in.tower(kind).sets() {
			if f.set == nil {
				continue
			}
			described, err := f.set.Describe(ctx, string(kind)+f.role, func(done int64) { p.Step(before + done) })
			if err != nil {
				return nil, err
			}
			list = append(list, described...)
			before += f.set.Size()
		}
	}
	if in.segments != nil {
		list = append(list, in.segments.input)
	}
	return list, nil
}

// ofGates describes the files that the gates read.
func (in *Inputs) ofGates(ctx context.Context) ([]manifest.Input, error) {
	if in.interactions == nil {
		return in.gates, nil
	}
	list, err := in.interactions.Describe(ctx, "interactions", nil)
	return append(in.gates[:len(in.gates):len(in.gates)], list...), err
}

// Describe returns what a manifest records of all files, in its order. p may be nil.
func (in *Inputs) Describe(ctx context.Context, p Progress) ([]manifest.Input, error) {
	if p == nil {
		p = silent{}
	}
	towers, err := in.ofTowers(ctx, p)
	if err != nil {
		return nil, err
	}
	gates, err := in.ofGates(ctx)
	return append(towers, gates...), err
}

// Close closes the files. It may be called twice.
func (in *Inputs) Close() error {
	var errs []error
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, f := range in.tower(kind).sets() {
			if f.set != nil {
				errs = append(errs, f.set.Close())
			}
		}
	}
	if in.interactions != nil {
		errs = append(errs, in.interactions.Close())
	}
	return errors.Join(errs...)
}

// spool is a stage for copies of inputs, which is made when there is one.
type spool struct {
	store *snapshots.Store
	mu    sync.Mutex
	stage *snapshots.Stage
}

func (s *spool) folder() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage == nil {
		var err error
		if s.stage, err = s.store.Stage(); err != nil {
			return "", err
		}
	}
	return s.stage.Dir(), nil
}

func (s *spool) close() error {
	if s.stage == nil {
		return nil
	}
	return s.stage.Close()
}
