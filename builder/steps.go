package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// ErrNoBuild is the class of every error that says that a store has no build of that id.
var ErrNoBuild = errors.New("no such build")

// IncompleteError says that a step needs what others have not done yet. Doing it again once
// they have is what helps.
type IncompleteError struct {
	What    string   // that is missing
	Missing []string // their names
}

// Error implements [error]. It names the first of what is missing.
func (e *IncompleteError) Error() string {
	const most = 20
	text := strings.Join(e.Missing[:min(len(e.Missing), most)], ", ")
	if more := len(e.Missing) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s not done: %s", e.What, text)
}

// MakePlan looks at the inputs of a build and writes its plan to the store, from which
// [OpenSteps] goes on, on any machine. Tasks read files of size bytes at a time. The same
// inputs and options give the same id. A [*RefusedError] says what of them does not fit.
func MakePlan(ctx context.Context, store *snapshots.Store, o Options, size int64) (_ *plan.Plan, _ manifest.Digest, err error) {
	if err := o.Validate(); err != nil {
		return nil, "", refused(err)
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	if err := checkPrevious(ctx, store, o); err != nil {
		return nil, "", err
	}
	if err := o.readLive(ctx, store); err != nil {
		return nil, "", err
	}
	if o.Opened == nil {
		if o.Opened, err = openInputs(ctx, o, nil, true); err != nil {
			return nil, "", refused(err)
		}
		defer func() { err = errors.Join(err, o.Opened.Close()) }()
	}
	b := &build{Options: o, store: store}
	if err := b.readGates(ctx, b.parameters()); err != nil {
		return nil, "", refused(err)
	}
	if err := b.look(ctx); err != nil {
		return nil, "", err
	}
	if err := b.fingerprint(ctx); err != nil {
		return nil, "", refused(err)
	}
	b.plan.Split(size)
	data, err := b.plan.Encode()
	if err != nil {
		return nil, "", refused(err)
	}
	s := &Steps{store: store, keys: plan.Keys{ID: manifest.Sum(data)}}
	// A build of the same that was committed begins anew if its snapshot is gone.
	if done, err := s.committed(ctx); err != nil {
		return nil, "", err
	} else if done == nil {
		if err := s.delete(ctx, s.keys.Committed()); err != nil {
			return nil, "", err
		}
	}
	var hashes []byte
	for h := range o.Live.Forgotten().All() {
		hashes = append(hashes, h[:]...)
	}
	if b.plan.Forgotten != "" {
		if err := s.create(ctx, s.keys.Forgotten(), hashes); err != nil {
			return nil, "", err
		}
	}
	// Written again, it counts as young.
	if err := store.Objects().Write(ctx, s.keys.Plan(), data); err != nil {
		return nil, "", fmt.Errorf("write plan: %w", err)
	}
	return b.plan, s.keys.ID, nil
}

// fingerprint notes what tells the files from others, and the digest of graphs.
func (b *build) fingerprint(ctx context.Context) error {
	for _, of := range []struct {
		set   *input.Set
		files []plan.File
	}{
		{b.Opened.apps.rows, b.plan.Apps.Rows}, {b.Opened.apps.ids, b.plan.Apps.IDs},
		{b.Opened.apps.attributes, b.plan.Apps.Attributes}, {b.Opened.apps.graph, b.plan.Apps.Graph},
		{b.Opened.users.rows, b.plan.Users.Rows}, {b.Opened.users.ids, b.plan.Users.IDs},
		{b.Opened.users.attributes, b.plan.Users.Attributes}, {b.Opened.users.graph, b.plan.Users.Graph},
		{b.Opened.interactions, b.plan.Interactions},
	} {
		if of.set == nil {
			continue
		}
		for i, f := range of.set.Files() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if of.files[i].Place == "" {
				return fmt.Errorf("open %s: other steps of the build cannot open it: it is a pipe, or an object whose name has a question mark", f.Name())
			}
			var err error
			if of.files[i].Fingerprint, err = input.Fingerprint(f); err != nil {
				return err
			}
		}
	}
	for kind, set := range map[shard.Kind]*input.Set{shard.Apps: b.Opened.apps.graph, shard.Users: b.Opened.users.graph} {
		if set == nil {
			continue
		}
		list, err := set.Describe(ctx, string(kind)+"-graph", nil)
		if err != nil {
			return err
		}
		b.plan.Tower(kind).Graph[0].Digest = list[0].Digest
	}
	return nil
}

// Steps are the steps of a build whose plan is in a store. Any number of processes may do any
// of them at a time, and be killed: what is done is not done again.
type Steps struct {
	*job
	store *snapshots.Store
	keys  plan.Keys
	o     StepOptions
}

// StepOptions say how steps are done. They do not change the snapshot.
type StepOptions struct {
	Threads  int      // 0 means 1
	Memory   int64    // of a task, in bytes; 0 is [partition.DefaultMemory]
	Tool     string   // must be that of the plan
	Progress Progress // nil for nothing
}

// OpenSteps opens the build that ref means: its id, or a unique beginning of it. An error is of
// class [ErrNoBuild] if there is none.
func OpenSteps(ctx context.Context, store *snapshots.Store, ref string, o StepOptions) (*Steps, error) {
	id := manifest.Digest(ref)
	if !id.Valid() {
		list, err := store.Builds(ctx)
		if err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(d manifest.Digest) bool { return !strings.HasPrefix(string(d), ref) })
		switch {
		case ref == "":
			return nil, refused(fmt.Errorf("build is empty, want the id of one, or its beginning: %w", ErrNoBuild))
		case len(list) > 1:
			return nil, refused(fmt.Errorf("build %.80q is the beginning of %d builds of store %s: %w", ref, len(list), store.Location(), ErrNoBuild))
		case len(list) == 0:
			return nil, refused(fmt.Errorf("store %s has no build whose id begins with %.80q: %w", store.Location(), ref, ErrNoBuild))
		}
		id = list[0]
	}
	s := &Steps{store: store, keys: plan.Keys{ID: id}, o: o}
	data, err := store.Objects().Read(ctx, s.keys.Plan())
	if errors.Is(err, objects.ErrNotFound) {
		return nil, &RefusedError{fmt.Errorf("store %s: build %s: %w; it may have been collected: plan it again", store.Location(), id, ErrNoBuild)}
	}
	if err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	if sum := manifest.Sum(data); sum != id {
		return nil, fmt.Errorf("plan of build %s: its digest is %s, not its name; plan it again: %w", id.Short(), sum, sections.ErrCorrupt)
	}
	p, err := plan.Decode(data)
	if err != nil {
		return nil, refused(err)
	}
	if p.Builder != Version || p.Tool != o.Tool {
		return nil, refused(fmt.Errorf("build %s was planned by %.80s with %.80s, this is %s with %s, which may build another snapshot: use one release for all steps", id.Short(), p.Tool, p.Builder, o.Tool, Version))
	}
	forgotten, err := s.forgotten(ctx, p.Forgotten)
	if err != nil {
		return nil, err
	}
	if s.job, err = newJob(p, forgotten); err != nil {
		return nil, refused(err)
	}
	if o.Progress != nil {
		s.progress = o.Progress
	}
	s.threads = max(o.Threads, 1)
	return s, nil
}

// Plan returns the plan, which the caller does not change.
func (s *Steps) Plan() *plan.Plan { return s.plan }

// ID returns the id of the build.
func (s *Steps) ID() manifest.Digest { return s.keys.ID }

func (s *Steps) forgotten(ctx context.Context, digest manifest.Digest) (live.Forgotten, error) {
	if digest == "" {
		return live.Forgotten{}, nil
	}
	data, err := s.store.Objects().Read(ctx, s.keys.Forgotten())
	if err != nil {
		return live.Forgotten{}, fmt.Errorf("read who is forgotten: %w", err)
	}
	if manifest.Sum(data) != digest || len(data)%manifest.ForgottenSize != 0 {
		return live.Forgotten{}, fmt.Errorf("who is forgotten, %s: it is damaged: plan the build again: %w", s.keys.Forgotten(), sections.ErrCorrupt)
	}
	var hashes []live.UserHash
	for h := range slices.Chunk(data, manifest.ForgottenSize) {
		hashes = append(hashes, live.UserHash(h))
	}
	return live.ReadForgotten(ctx, s.store.Objects(), hashes)
}

// create writes an object unless it is there. What is there is the same, or as good.
func (s *Steps) create(ctx context.Context, key string, data []byte) error {
	if err := s.store.Objects().Create(ctx, key, data); err != nil && !errors.Is(err, objects.ErrExists) {
		return fmt.Errorf("write %s: %w", s.keys.Relative(key), err)
	}
	return nil
}

func (s *Steps) delete(ctx context.Context, key string) error {
	if err := s.store.Objects().Delete(ctx, key); err != nil && !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	return nil
}

// has reports whether an object is there.
func (s *Steps) has(ctx context.Context, key string) (bool, error) {
	_, err := s.store.Objects().Stat(ctx, key)
	if errors.Is(err, objects.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// list returns the objects of the build, by their names in it.
func (s *Steps) list(ctx context.Context) (map[string]objects.Object, error) {
	list := map[string]objects.Object{}
	for o, err := range s.store.Objects().List(ctx, s.keys.Under()) {
		if err != nil {
			return nil, fmt.Errorf("list build: %w", err)
		}
		list[o.Key] = o
	}
	return list, nil
}

// upload brings a file into the build, unless it is there by then.
func (s *Steps) upload(ctx context.Context, path, key string) error {
	if has, err := s.has(ctx, key); has || err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.store.Objects().Upload(ctx, key, f); err != nil {
		return fmt.Errorf("upload %s: %w", s.keys.Relative(key), err)
	}
	// A step that is late leaves nothing of users behind.
	done, err := s.committed(ctx)
	if err == nil && done != nil {
		err = s.delete(ctx, key)
	}
	return err
}

// openTask opens the files of a task, and looks whether they are those that were planned.
func (s *Steps) openTask(ctx context.Context, t plan.Task, folder func() (string, error)) (_ taskFiles, err error) {
	var f taskFiles
	planned := s.plan.Tower(t.Tower).Of(t.Reads)[t.First : t.First+t.Files]
	if f.files, err = s.open(ctx, planned, folder); err != nil {
		return f, err
	}
	if ids := s.plan.Tower(t.Tower).IDs; t.Reads == plan.Rows && len(ids) > 0 {
		if f.ids, err = s.open(ctx, ids, folder); err != nil {
			return f, errors.Join(err, f.files.Close())
		}
	}
	return f, nil
}

// open opens files, which must be those that were planned.
func (s *Steps) open(ctx context.Context, planned []plan.File, folder func() (string, error)) (_ *input.Set, err error) {
	paths := make([]string, len(planned))
	for i, f := range planned {
		paths[i] = f.Place
	}
	set, err := input.Open(ctx, paths, nil, input.Options{Folder: folder, Progress: Copying(s.progress, "inputs")})
	if err != nil {
		return nil, refused(err)
	}
	files := set.Files()
	for i, f := range planned {
		if len(files) != len(planned) {
			err = fmt.Errorf("open %s: the paths of %d files lead to %d", f.Shown, len(planned), len(files))
			break
		}
		var print string
		if print, err = input.Fingerprint(files[i]); err != nil {
			break
		}
		if files[i].Size() != f.Size || print != f.Fingerprint {
			err = fmt.Errorf("open %s: it is not what was planned (%d bytes, and it has %d): plan the build again", f.Shown, f.Size, files[i].Size())
			break
		}
	}
	if err != nil {
		return nil, errors.Join(refused(err), set.Close())
	}
	return set, nil
}

// describe returns what the manifest is to have of the files of a task.
func (s *Steps) describe(ctx context.Context, t plan.Task, f taskFiles) ([]manifest.Input, error) {
	role := string(t.Tower)
	if t.Reads == plan.Attributes {
		role += "-attributes"
	}
	s.progress.Stage("digest inputs (bytes)", f.files.Size())
	list, err := f.files.Describe(ctx, role, s.progress.Step)
	if err != nil {
		return nil, err
	}
	planned := s.plan.Tower(t.Tower).Of(t.Reads)[t.First : t.First+t.Files]
	for i := range list {
		list[i].Name = planned[i].Name
	}
	if f.ids != nil {
		ids, err := f.ids.Describe(ctx, string(t.Tower)+"-ids", nil)
		if err != nil {
			return nil, err
		}
		for i := range ids {
			ids[i].Name = s.plan.Tower(t.Tower).IDs[i].Name
		}
		list = append(list, ids...)
	}
	if err := f.checked(nil); err != nil {
		return nil, refused(err)
	}
	s.nameRuns(list)
	return list, nil
}

// task returns a task of the plan.
func (s *Steps) task(number int) (plan.Task, error) {
	if number < 0 || number >= len(s.plan.Tasks) {
		return plan.Task{}, &RangeError{What: "task", Index: number, Count: len(s.plan.Tasks)}
	}
	return s.plan.Tasks[number], nil
}

// RangeError says that a build has no step of a number.
type RangeError struct {
	What         string
	Index, Count int
}

// Error implements [error].
func (e *RangeError) Error() string {
	return fmt.Sprintf("%s %d: the build has %d; accepted: 0 to %d", e.What, e.Index, e.Count, e.Count-1)
}

// refusal returns an error if a task has rejected more rows by itself than the build accepts.
func (s *Steps) refusal(kind shard.Kind, r *partition.Rejections) error {
	if kind == shard.Users {
		return s.rejected(&partition.Rejections{}, r)
	}
	return s.rejected(r, &partition.Rejections{})
}

// Partition does one task: it reads its files and uploads one object of what they have of each
// shard. A task that is done it does not do again.
func (s *Steps) Partition(ctx context.Context, number int) (err error) {
	t, err := s.task(number)
	if err != nil {
		return err
	}
	key := s.keys.Task(number)
	if done, err := s.done(ctx, t.Tower, key); done || err != nil {
		return err
	}
	stage, err := s.store.Stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	defer sections.Guard(&err)()
	files, err := s.openTask(ctx, t, func() (string, error) { return stage.Dir(), nil })
	if err != nil {
		return err
	}
	defer func() {
		for _, set := range files.sets() {
			err = errors.Join(err, set.Close())
		}
	}()
	path := filepath.Join(stage.Dir(), "task")
	err = s.spread(ctx, t, files, path, s.memory(), partition.Name(key), func() ([]manifest.Input, error) { return s.describe(ctx, t, files) })
	if err != nil {
		return err
	}
	return s.bring(ctx, t.Tower, path, key)
}

func (s *Steps) memory() int64 {
	if s.o.Memory > 0 {
		return s.o.Memory
	}
	return partition.DefaultMemory
}

// done reports whether an object of rows is there, or the whole build is committed; the error
// is that of too many rejected rows, if that is what was found.
func (s *Steps) done(ctx context.Context, kind shard.Kind, key string) (bool, error) {
	if committed, err := s.committed(ctx); committed != nil || err != nil {
		return committed != nil, err
	}
	o, err := s.store.Objects().Stat(ctx, key)
	if errors.Is(err, objects.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	summary, err := s.summary(ctx, o)
	if sections.IsDamaged(err) { // it is written anew
		return false, s.delete(ctx, key)
	}
	if err != nil {
		return false, err
	}
	s.progress.Note(s.keys.Relative(key) + " was done before")
	return true, s.refusal(kind, &summary.Rejections)
}

// bring uploads what a task has dealt to shards, and returns the error of what it has
// rejected.
func (s *Steps) bring(ctx context.Context, kind shard.Kind, path, key string) error {
	s.progress.Stage("upload "+s.keys.Relative(key), -1)
	if err := s.upload(ctx, path, key); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := partition.Open(f, info.Size(), path)
	if err != nil {
		return err
	}
	summary, err := r.Summary()
	if err != nil {
		return err
	}
	return s.refusal(kind, &summary.Rejections)
}

// reader opens an object of rows. The caller closes it.
func (s *Steps) reader(ctx context.Context, o objects.Object) (*partition.Reader, io.Closer, error) {
	if dir := s.store.Objects().Dir(); dir != "" {
		f, err := os.Open(filepath.Join(dir, filepath.FromSlash(o.Key)))
		if err != nil {
			return nil, nil, err
		}
		r, err := partition.Open(f, o.Size, s.keys.Relative(o.Key))
		if err == nil {
			err = r.CheckName(o.Key)
		}
		if err != nil {
			return nil, nil, errors.Join(err, f.Close())
		}
		return r, f, nil
	}
	in := input.Object(ctx, s.store.Objects(), o)
	r, err := partition.Open(in, o.Size, s.keys.Relative(o.Key))
	if err == nil {
		err = r.CheckName(o.Key)
	}
	if err != nil {
		return nil, nil, errors.Join(err, in.Close())
	}
	return r, in, nil
}

func (s *Steps) summary(ctx context.Context, o objects.Object) (*partition.Summary, error) {
	r, c, err := s.reader(ctx, o)
	if err != nil {
		return nil, err
	}
	summary, err := r.Summary()
	return summary, errors.Join(err, c.Close())
}
