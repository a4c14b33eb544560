package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/upkeep"
)

// committed is what stays of a build for a time: nothing of a user, but for what the gates say.
type committed struct {
	Snapshot manifest.Digest            `json:"snapshot"`
	Rejected map[shard.Kind]*Rejections `json:"rejected"` // without the rows
	Gates    *gates.Recorded            `json:"gates"`
}

// committed returns what the build was committed as; nil if it is not, or if the snapshot is
// not in the store any more.
func (s *Steps) committed(ctx context.Context) (*committed, error) {
	data, err := s.store.Objects().Read(ctx, s.keys.Committed())
	if errors.Is(err, objects.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look whether the build is committed: %w", err)
	}
	c := &committed{}
	if err := json.Unmarshal(data, c); err != nil || !c.Snapshot.Valid() || c.Gates == nil {
		return nil, nil //nolint:nilerr // it is committed anew
	}
	_, err = s.store.Manifest(ctx, c.Snapshot)
	if errors.Is(err, snapshots.ErrNoSnapshot) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// CommitOptions are what the last step looks at beside the plan.
type CommitOptions struct {
	// LiveFilters is that of [Options].
	LiveFilters func(context.Context) (*querylog.LiveFilters, error)
}

// Commit measures the snapshot of which all shards are built, runs the gates on it and
// publishes it, whether it passes or not, as [Build] does. It returns an [*IncompleteError] if
// some shards are missing. Then it deletes what lies in the store of the build but for its plan
// and its result, which committing again returns.
func (s *Steps) Commit(ctx context.Context, o CommitOptions) (_ *Report, err error) {
	if c, err := s.committed(ctx); err != nil {
		return nil, err
	} else if c != nil {
		if err := s.clean(ctx); err != nil {
			return nil, err
		}
		m, err := s.store.Manifest(ctx, c.Snapshot)
		return &Report{Digest: c.Snapshot, Manifest: m, Gates: c.Gates, Rejected: c.Rejected, LiveHead: s.plan.LiveHead}, err
	}
	stage, err := s.store.Stage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	defer func() { err = s.mend(ctx, err) }()
	defer sections.Guard(&err)()
	b := &build{
		Options: Options{
			Model: s.plan.Model, ModelVersion: s.plan.ModelVersion, Params: s.params, Threads: s.threads, Tool: s.plan.Tool,
			Gates: s.plan.GatesName, Previous: s.plan.Previous, LivePosition: s.plan.Live, LiveFilters: o.LiveFilters, Progress: s.progress,
		},
		job: s.job, store: s.store, staged: s.store, plan: s.plan,
	}
	for _, f := range s.plan.Interactions {
		b.Interactions = append(b.Interactions, f.Place)
	}
	if b.Live, err = live.Read(ctx, s.store.Objects()); err != nil {
		return nil, fmt.Errorf("read the live log: %w", err)
	}
	if err := s.resume(ctx, b); err != nil {
		return nil, err
	}
	if b.found == nil {
		if err := s.complete(ctx, b, stage.Dir()); err != nil {
			return nil, err
		}
	}
	b.Progress.Stage("publish", -1)
	digest, err := b.publish(ctx)
	if errors.As(err, new(*upkeep.SettledError)) {
		err = refused(err)
	}
	if err != nil {
		return nil, err
	}
	return &Report{Digest: digest, Manifest: b.manifest, Gates: b.found, Rejected: b.rejected, LiveHead: s.plan.LiveHead}, s.commit(ctx, digest, b)
}

// resume takes over what an interrupted Commit has found, if its shards are there.
func (s *Steps) resume(ctx context.Context, b *build) error {
	data, err := s.store.Objects().Read(ctx, s.keys.Finished())
	if errors.Is(err, objects.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var k kept
	if err := json.Unmarshal(data, &k); err != nil || k.Manifest == nil || k.Gates == nil || s.store.CheckShards(ctx, k.Manifest) != nil {
		return s.delete(ctx, s.keys.Finished())
	}
	if encoded, err := k.Manifest.Encode(); err != nil || manifest.Sum(encoded) != k.Gates.Snapshot {
		return s.delete(ctx, s.keys.Finished())
	}
	b.manifest, b.rejected, b.found = k.Manifest, k.Rejected, k.Gates
	return nil
}

// complete makes the manifest, measures and runs the gates.
func (s *Steps) complete(ctx context.Context, b *build, dir string) (err error) {
	if b.Opened, err = s.openGates(ctx, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Opened.Close()) }()
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	m, err := s.merge(ctx, list)
	if err != nil {
		return err
	}
	records, err := s.allRecords(ctx, m, list)
	if err != nil {
		return err
	}
	b.manifest = header(s.plan)
	s.listSegments(b.manifest)
	b.manifest.Inputs = s.inputs(m)
	f := m.found()
	if err := s.judged(b.manifest, f, records); err != nil {
		return err
	}
	b.rejected = rejections(f)
	if err := b.readGates(ctx, s.plan.Parameters); err != nil {
		return refused(err)
	}
	if b.gates.inputs, err = b.Opened.ofGates(ctx); err != nil {
		return err
	}
	mean, err := s.mean(ctx, m, list, dir)
	if err != nil {
		return err
	}
	if err := b.finish(ctx, b.manifest, f, records, mean); err != nil {
		return err
	}
	if err := b.runGates(ctx); err != nil {
		return err
	}
	data, err := json.Marshal(kept{b.manifest, b.rejected, b.found})
	if err != nil {
		return err
	}
	return s.store.Objects().Write(ctx, s.keys.Finished(), data)
}

// openGates opens what the gates read.
func (s *Steps) openGates(ctx context.Context, dir string) (*Inputs, error) {
	in := &Inputs{segments: s.segments, thresholds: gates.DefaultThresholds()}
	if s.plan.Gates != nil {
		in.gates = make([]manifest.Input, 1)
		var err error
		if in.thresholds, in.gates[0], err = gate.Thresholds(s.plan.GatesName, s.plan.Gates); err != nil {
			return nil, refused(err)
		}
	}
	if len(s.plan.Interactions) > 0 {
		var err error
		if in.interactions, err = s.open(ctx, s.plan.Interactions, func() (string, error) { return dir, nil }); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// inputs returns what the snapshot is built from, in the order of a manifest, but for what
// the gates read.
func (s *Steps) inputs(m *merged) []manifest.Input {
	var list []manifest.Input
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, end := range []string{"", "-ids", "-attributes"} {
			list = append(list, ofRole(m.tower(kind).Found.Inputs, string(kind)+end)...)
		}
		for _, f := range s.plan.Tower(kind).Graph {
			list = append(list, manifest.Input{Role: string(kind) + "-graph", Name: f.Name, Size: f.Size, Digest: f.Digest})
		}
	}
	if s.segments != nil {
		list = append(list, s.segments.input)
	}
	return list
}

// allRecords reads the records of all shards. It returns an [*IncompleteError] unless they and
// their shards are there, or the [*RejectedError] of what is known.
func (s *Steps) allRecords(ctx context.Context, m *merged, list map[string]objects.Object) ([]record, error) {
	records := make([]record, s.plan.Shards())
	var missing []string
	f, rows, judged := found{}, map[shard.Kind]int64{}, true
	for kind, of := range m.found() {
		f[kind] = of.Counted()
	}
	for i := range records {
		kind, number := s.plan.Shard(i)
		var r *record
		if _, is := list[s.keys.Record(i)]; is {
			var err error
			if r, err = s.record(ctx, i); err != nil {
				return nil, err
			}
		}
		if r != nil {
			f[kind].Rejections.Merge(&r.Rejections)
			rows[kind] += int64(r.Rows)
			records[i] = *r
		}
		judged = judged && r != nil
		there := r != nil && r.Shard != nil
		if there {
			err := s.store.CheckShards(ctx, &manifest.Manifest{Apps: manifest.Tower{Shards: []manifest.Shard{*r.Shard}}})
			if there = err == nil; err != nil && !errors.Is(err, snapshots.ErrNoShard) && !sections.IsDamaged(err) {
				return nil, err
			}
		}
		if !there {
			missing = append(missing, fmt.Sprintf("%d (%s, number %d)", i, kind, number))
		}
	}
	if err := s.rejected(&f[shard.Apps].Rejections, &f[shard.Users].Rejections); err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
			if f[kind].Rows == 0 && !judged || rows[kind] == 0 && judged {
				return nil, refused(noRows(kind, &f[kind].Rejections, int64(len(f[kind].Met))))
			}
		}
		return nil, &IncompleteError{What: "build: shards that are", Missing: missing}
	}
	return records, nil
}

// mean computes the mean user, as one machine does: over the rows as they were, in the order of
// shards and ids, one after the other.
func (s *Steps) mean(ctx context.Context, m *merged, list map[string]objects.Object, dir string) (*mean, error) {
	mean := newMean(s.plan.Metric, s.plan.Dim)
	s.progress.Stage("mean of users", int64(s.plan.Users.Shards))
	for number := range s.plan.Users.Shards {
		s.progress.Step(int64(number))
		records, done, err := s.records(ctx, shard.Users, number, m, nil, list, dir)
		if err != nil {
			return nil, err
		}
		p, err := s.places(shard.Users, number, records)
		if err == nil {
			err = s.loadMean(records, p, mean)
		}
		if err := errors.Join(err, done()); err != nil {
			return nil, err
		}
	}
	return mean, nil
}

// commit notes that the build is done, and deletes what nobody needs any more.
func (s *Steps) commit(ctx context.Context, digest manifest.Digest, b *build) error {
	c := committed{Snapshot: digest, Gates: b.found, Rejected: map[shard.Kind]*Rejections{}}
	for kind, r := range b.rejected {
		counts := &Rejections{Total: r.Total}
		for _, k := range r.Kinds {
			counts.Kinds = append(counts.Kinds, &Rejection{Kind: k.Kind, Count: k.Count, First: []string{}})
		}
		c.Rejected[kind] = counts
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	// What it lets be deleted makes room.
	write := func() error { return s.store.Objects().Write(ctx, s.keys.Committed(), data) }
	if err := s.store.Objects().Spend(write); err != nil {
		return fmt.Errorf("note that the build is committed: %w", err)
	}
	return s.clean(ctx)
}

// clean deletes what lies in the store of a build that is committed, but for its plan and its
// result.
func (s *Steps) clean(ctx context.Context) error {
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	for key := range list {
		if key == s.keys.Plan() || key == s.keys.Committed() {
			continue
		}
		if err := s.delete(ctx, key); err != nil {
			return fmt.Errorf("delete what is left of the build: %w", err)
		}
	}
	// What a process had begun to write that was killed has rows, too.
	if err := s.store.Objects().RemoveDead(ctx, s.keys.Under()); err != nil {
		return fmt.Errorf("delete what is left of the build: %w", err)
	}
	return nil
}
