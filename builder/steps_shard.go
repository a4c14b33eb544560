package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// merged is what all tasks of a build found, in one object.
type merged struct {
	Apps  mergedTower `json:"apps"`
	Users mergedTower `json:"users"`
	// Elsewhere are the tasks whose records another engine brings to shards, ascending.
	Elsewhere []int `json:"elsewhere,omitempty"`
}

// mergedTower is what the tasks of one tower found.
type mergedTower struct {
	Found *partition.Summary `json:"found"` // Inputs are those of all files that were read
}

func (m *merged) tower(kind shard.Kind) *mergedTower {
	if kind == shard.Users {
		return &m.Users
	}
	return &m.Apps
}

func (m *merged) found() found {
	return found{shard.Apps: m.Apps.Found, shard.Users: m.Users.Found}
}

// decodeMerged returns what bytes are, which may be anything.
func (j *job) decodeMerged(data []byte) (*merged, error) {
	m := &merged{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, err
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		f := m.tower(kind).Found
		if f == nil {
			return nil, fmt.Errorf("nothing of %s", kind)
		}
		if dim := f.Dim(); dim != 0 && dim != j.plan.Dim {
			return nil, fmt.Errorf("%s: a sample of dimension %d, want %d", kind, dim, j.plan.Dim)
		}
		if n := len(f.Dealt); n != 0 && n != j.plan.Tower(kind).Shards {
			return nil, fmt.Errorf("%s: records of %d shards, want %d", kind, n, j.plan.Tower(kind).Shards)
		}
	}
	return m, nil
}

// merge returns what all tasks found, and writes it down if nobody has. It returns an
// [*IncompleteError] if some are not done.
func (s *Steps) merge(ctx context.Context, list map[string]objects.Object) (*merged, error) {
	if _, is := list[s.keys.Merged()]; is {
		data, err := s.store.Objects().Read(ctx, s.keys.Merged())
		if err == nil {
			m, err := s.decodeMerged(data)
			if err == nil {
				return m, nil
			}
			s.progress.Note(fmt.Sprintf("what all tasks found is damaged, and is put together again: %v", err))
			if err := s.delete(ctx, s.keys.Merged()); err != nil {
				return nil, err
			}
		} else if !errors.Is(err, objects.ErrNotFound) {
			return nil, err
		}
	}
	var missing []string
	for i := range s.plan.Tasks {
		if _, is := list[s.keys.Task(i)]; !is {
			missing = append(missing, fmt.Sprintf("task %d", i))
		}
	}
	if len(missing) > 0 {
		return nil, &IncompleteError{What: "partition: tasks that are", Missing: missing}
	}
	m := &merged{Apps: mergedTower{partition.NewSummary()}, Users: mergedTower{partition.NewSummary()}}
	for i, t := range s.plan.Tasks {
		key, into := s.keys.Task(i), m.tower(t.Tower).Found
		summary, err := s.summary(ctx, list[key])
		if err != nil {
			return nil, fmt.Errorf("read what was partitioned: %w", s.mend(ctx, err))
		}
		if dim := summary.Dim(); dim != 0 && dim != s.plan.Dim {
			return nil, refused(fmt.Errorf("%s has vectors of dimension %d, want %d", s.keys.Relative(key), dim, s.plan.Dim))
		}
		if n := len(summary.Dealt); n > 0 {
			if n != s.plan.Tower(t.Tower).Shards {
				return nil, refused(fmt.Errorf("%s has records of %d shards, want %d", s.keys.Relative(key), n, s.plan.Tower(t.Tower).Shards))
			}
			m.Elsewhere = append(m.Elsewhere, i)
		}
		into.Merge(summary)
		into.Inputs = append(into.Inputs, summary.Inputs...)
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if have, want := m.tower(kind).Found.Read, s.plan.Tower(kind).Survey.Total(); have != want {
			return nil, refused(fmt.Errorf("%s: %d rows were dealt to shards, and the input has %d", kind, have, want))
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return m, s.create(ctx, s.keys.Merged(), data)
}

// records brings what the objects have of a shard onto this machine. What another engine has
// brought there is in received, or if that is nil, in objects of the build.
func (s *Steps) records(ctx context.Context, kind shard.Kind, number int, m *merged, received *received, list map[string]objects.Object, dir string) (out shardRecords, _ func() error, err error) {
	var open []io.Closer
	done := func() error {
		var errs []error
		for _, c := range open {
			errs = append(errs, c.Close())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	here := s.store.Objects().Dir() != ""
	var copied *os.File
	var at int64
	if !here {
		if copied, err = os.CreateTemp(dir, "rows-"); err != nil {
			return out, nil, err
		}
		open = append(open, copied)
		if err := os.Remove(copied.Name()); err != nil {
			return out, nil, err
		}
	}
	take := func(key string, l partition.Layout, to *[]*partition.Records) error {
		o, is := list[key]
		if !is {
			return &IncompleteError{What: "partition: tasks that are", Missing: []string{s.keys.Relative(key)}}
		}
		r, c, err := s.reader(ctx, o)
		if err != nil {
			return err
		}
		open = append(open, c)
		l.Of = partition.Name(key)
		if r.Layout() != l {
			return refused(fmt.Errorf("%s has records of %+v, want %+v", s.keys.Relative(key), r.Layout(), l))
		}
		records, err := r.Shard(number)
		if err == nil && !here {
			var copy *partition.Records
			if copy, err = records.Copy(copied, copied, at); err == nil {
				at += copy.Size()
				records = copy
			}
			open = open[:len(open)-1]
			err = errors.Join(err, c.Close())
		}
		*to = append(*to, records)
		return err
	}
	rows, lines := s.layouts(kind)
	switch {
	case len(m.tower(kind).Found.Dealt) == 0:
	case received != nil:
		out.rows, out.lines = append(out.rows, received.rows), append(out.lines, received.lines)
	default:
		ofRows, ofLines := s.keys.Received(number)
		if err := errors.Join(take(ofRows, rows, &out.rows), take(ofLines, lines, &out.lines)); err != nil {
			return out, nil, err
		}
	}
	for i, t := range s.plan.Tasks {
		var err error
		switch {
		case t.Tower != kind || slices.Contains(m.Elsewhere, i):
		case t.Reads == plan.Attributes:
			err = take(s.keys.Task(i), lines, &out.lines)
		default:
			err = take(s.keys.Task(i), rows, &out.rows)
		}
		if err != nil {
			return out, nil, err
		}
	}
	return out, done, nil
}

// wireRecord is the form of a record in the store.
type wireRecord struct {
	Rows       int                  `json:"rows"`
	Rejections partition.Rejections `json:"rejections"`
	Apart      unjoined             `json:"apart"`
	Shard      *manifest.Shard      `json:"shard,omitempty"` // nil if it was not built, since too many rows were rejected
}

// decodeRecord returns the record that bytes are, which may be anything.
func decodeRecord(data []byte) (*record, error) {
	var w wireRecord
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, err
	}
	if err := w.Rejections.Check(); err != nil {
		return nil, err
	}
	if w.Rows < 0 || w.Apart.Lines < 0 || w.Apart.Rows < 0 {
		return nil, errors.New("a number is negative")
	}
	if w.Shard != nil && (!w.Shard.Digest.Valid() || w.Shard.Size < 1 || w.Shard.Rows != w.Rows) {
		return nil, errors.New("its shard is none")
	}
	return &record{w.Rows, w.Rejections, w.Apart, w.Shard}, nil
}

// record reads what a shard step did; nil if it is not done, or is to be done again.
func (s *Steps) record(ctx context.Context, index int) (*record, error) {
	key := s.keys.Record(index)
	data, err := s.store.Objects().Read(ctx, key)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	r, err := decodeRecord(data)
	if err != nil {
		s.progress.Note(fmt.Sprintf("%s is damaged, and is written again: %v", s.keys.Relative(key), err))
		return nil, s.delete(ctx, key)
	}
	return r, nil
}

// Shard builds one shard, those of apps first, uploads it, and writes its record. It returns
// an [*IncompleteError] if not all tasks are done. A shard that is there, whole, it does not
// build again.
func (s *Steps) Shard(ctx context.Context, index int) error { return s.ShardFrom(ctx, index, nil) }

// ShardFrom is [Steps.Shard] with the records that another engine has brought to the shard, of
// those that [Steps.Give] gave it; see [partition.Take]. It does not read them if the shard is
// there.
func (s *Steps) ShardFrom(ctx context.Context, index int, records io.Reader) (err error) {
	if count := s.plan.Shards(); index < 0 || index >= count {
		return &RangeError{What: "shard", Index: index, Count: count}
	}
	if committed, err := s.committed(ctx); committed != nil || err != nil {
		return err
	}
	kind, number := s.plan.Shard(index)
	r, err := s.record(ctx, index)
	if err != nil {
		return err
	}
	if r != nil && r.Shard != nil {
		whole, err := s.store.HasShard(ctx, *r.Shard)
		if err == nil && whole && records != nil && kind == shard.Users {
			whole, err = s.hasReceived(ctx, number)
		}
		if err != nil {
			return err
		}
		if whole {
			s.progress.Note(s.called(kind, number) + " was built before")
			return nil
		}
	}
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	m, err := s.merge(ctx, list)
	if err != nil {
		return err
	}
	stage, err := s.store.Stage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	defer func() { err = s.mend(ctx, err) }()
	defer sections.Guard(&err)()
	s.progress.Stage("load "+s.called(kind, number), -1)
	came, err := s.receive(ctx, kind, number, m, records, stage.Dir())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, came.close()) }()
	of, done, err := s.records(ctx, kind, number, m, came, list, stage.Dir())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	p, err := s.places(kind, number, of)
	if err != nil {
		return err
	}
	r = &record{Rows: len(p.rows), Rejections: p.rejections}
	if err := s.tooMany(ctx, kind, index, m, r); err != nil {
		return err
	}
	c, apart, err := s.load(kind, of, p)
	if err != nil {
		return err
	}
	r.Apart = apart
	if err := s.loadGraph(ctx, kind, c, stage.Dir()); err != nil {
		return err
	}
	queries, err := m.found().queries(kind, s.plan.Dim)
	if err != nil {
		return err
	}
	built, err := s.index(ctx, kind, number, s.called(kind, number), c, queries, stage.Dir())
	if err != nil {
		return err
	}
	s.progress.Stage("upload "+s.called(kind, number), -1)
	return s.store.AddBuilt(ctx, built.path, func(sm manifest.Shard) error {
		r.setShard(sm, built.index)
		return s.writeRecord(ctx, index, r)
	})
}

// writeRecord writes a record, over one of the same shard that is there.
func (s *Steps) writeRecord(ctx context.Context, index int, r *record) error {
	data, err := json.Marshal(wireRecord{r.Rows, r.Rejections, r.Apart, r.Shard})
	if err != nil {
		return err
	}
	if err := s.store.Objects().Write(ctx, s.keys.Record(index), data); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// tooMany returns an error if what is known by now is more rejected rows than the build
// accepts, before time is spent on a graph. It notes what this shard has, so that the last
// step can tell of all.
func (s *Steps) tooMany(ctx context.Context, kind shard.Kind, index int, m *merged, r *record) error {
	f := found{}
	for kind, of := range m.found() {
		f[kind] = of.Counted()
	}
	f[kind].Rejections.Merge(&r.Rejections)
	err := s.rejected(&f[shard.Apps].Rejections, &f[shard.Users].Rejections)
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if err == nil && f[kind].Rows == 0 {
			err = refused(noRows(kind, &f[kind].Rejections, int64(len(f[kind].Met))))
		}
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, s.writeRecord(ctx, index, r))
}

// loadGraph reads the graph of a tower that has one.
func (s *Steps) loadGraph(ctx context.Context, kind shard.Kind, c *contents, dir string) (err error) {
	planned := s.plan.Tower(kind).Graph
	if len(planned) == 0 {
		return nil
	}
	set, err := s.open(ctx, planned, func() (string, error) { return dir, nil })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	list, err := set.Describe(ctx, "graph", nil)
	if err != nil {
		return err
	}
	if list[0].Digest != planned[0].Digest {
		return refused(fmt.Errorf("open %s: it is not what was planned: plan the build again", planned[0].Shown))
	}
	c.input.Graph, err = sourceGraph(set.Files()[0], s.graphKeys(kind), c.ids)
	return refused(checked(set, err))
}

// mend deletes an object of rows that is damaged, so that its task is done again.
func (s *Steps) mend(ctx context.Context, err error) error {
	damaged, ok := errors.AsType[*partition.DamagedError](err)
	if !ok {
		return err
	}
	return errors.Join(fmt.Errorf("%w; it is deleted, to be done again", err), s.delete(ctx, s.keys.Under()+damaged.Name))
}
