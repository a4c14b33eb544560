package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// layouts returns those of the records of a tower, of rows and of lines of attributes.
func (j *job) layouts(kind shard.Kind) (rows, lines partition.Layout) {
	terms := j.terms[kind]
	return partition.Layout{Shards: terms.Shards, Dim: j.plan.Dim, Fields: len(terms.Rows)},
		partition.Layout{Shards: terms.Shards, Fields: len(terms.Lines)}
}

// Give does one task, as [Steps.Partition] does, but writes the records to w, as
// [partition.Give] does, for another engine to bring them to their shards: [Steps.Shard] takes
// them. The object has the rest, and is uploaded once all of them are written. Done again, it
// writes them again. It writes none of a task whose records are in the store, or of a build that
// is committed.
func (s *Steps) Give(ctx context.Context, number int, w io.Writer) (err error) {
	t, err := s.task(number)
	if err != nil {
		return err
	}
	before, err := s.given(ctx, number)
	if err != nil {
		return err
	}
	if before != nil && len(before.Dealt) == 0 {
		s.progress.Note(fmt.Sprintf("task %d: its records are in the store", number))
		if _, err := partition.Give(w, nil); err != nil {
			return err
		}
		return s.refusal(t.Tower, &before.Rejections)
	}
	if committed, err := s.committed(ctx); err != nil {
		return err
	} else if committed != nil {
		_, err := partition.Give(w, nil)
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
	path := filepath.Join(stage.Dir(), "records")
	err = s.spread(ctx, t, files, path, s.memory(), 0, func() ([]manifest.Input, error) { return s.describe(ctx, t, files) })
	if err != nil {
		return err
	}
	summary, err := give(path, w)
	if err != nil {
		return err
	}
	if before != nil {
		if !slices.Equal(before.Dealt, summary.Dealt) {
			return refused(fmt.Errorf("task %d has other records than when it was done before: plan the build again", number))
		}
		return s.refusal(t.Tower, &before.Rejections)
	}
	rest := filepath.Join(stage.Dir(), "task")
	rows, lines := s.layouts(t.Tower)
	if t.Reads == plan.Attributes {
		rows = lines
	}
	key := s.keys.Task(number)
	rows.Of = partition.Name(key)
	if err := writeEmpty(rest, rows, summary); err != nil {
		return err
	}
	return s.bring(ctx, t.Tower, rest, key)
}

// given returns what a task found, nil if it is not done.
func (s *Steps) given(ctx context.Context, number int) (*partition.Summary, error) {
	key := s.keys.Task(number)
	o, err := s.store.Objects().Stat(ctx, key)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	summary, err := s.summary(ctx, o)
	if sections.IsDamaged(err) { // it is written anew
		return nil, s.delete(ctx, key)
	}
	return summary, err
}

// give writes the records of a file of them, and returns what was found, with what each shard
// has.
func give(path string, w io.Writer) (_ *partition.Summary, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := partition.Open(f, info.Size(), path)
	if err != nil {
		return nil, err
	}
	summary, err := r.Summary()
	if err != nil {
		return nil, err
	}
	summary.Dealt, err = partition.Give(w, r)
	return summary, err
}

// writeEmpty writes an object that has a summary and no records.
func writeEmpty(path string, l partition.Layout, summary *partition.Summary) error {
	w, err := partition.Create(path, l, partition.MinMemory)
	if err != nil {
		return err
	}
	return w.Finish(summary)
}

// received is what another engine has brought to a shard.
type received struct {
	rows, lines *partition.Records
	files       []io.Closer
}

func (r *received) close() error {
	if r == nil {
		return nil
	}
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// receive takes the records that another engine has brought to a shard, and looks whether they
// are all that tasks have given out. Those of users it uploads, for the mean of all users. It
// returns nil if there are none to come.
func (s *Steps) receive(ctx context.Context, kind shard.Kind, number int, m *merged, stream io.Reader, dir string) (_ *received, err error) {
	dealt := m.tower(kind).Found.Dealt
	if stream == nil {
		if len(dealt) > 0 {
			return nil, &ElsewhereError{Tasks: m.Elsewhere}
		}
		return nil, nil
	}
	rows, lines := s.layouts(kind)
	paths := []string{filepath.Join(dir, "rows"), filepath.Join(dir, "lines")}
	if kind == shard.Users {
		ofRows, ofLines := s.keys.Received(number)
		rows.Of, lines.Of = partition.Name(ofRows), partition.Name(ofLines)
	}
	var writers [2]*partition.Writer
	defer func() {
		for _, w := range writers {
			if w != nil {
				err = errors.Join(err, w.Close())
			}
		}
	}()
	for i, l := range []partition.Layout{rows, lines} {
		if writers[i], err = partition.Create(paths[i], l, s.memory()); err != nil {
			return nil, err
		}
	}
	got, err := partition.Take(stream, number, s.plan.Tower(kind).Shards, func(task int) (*partition.Writer, error) {
		if !slices.Contains(m.Elsewhere, task) || s.plan.Tasks[task].Tower != kind {
			return nil, &partition.StreamError{Err: fmt.Errorf("they are of task %d, and those of %s come from %s", task, s.called(kind, number), listed(m.Elsewhere))}
		}
		if s.plan.Tasks[task].Reads == plan.Attributes {
			return writers[1], nil
		}
		return writers[0], nil
	})
	if errors.As(err, new(*partition.StreamError)) {
		return nil, &RefusedError{err}
	}
	if err != nil {
		return nil, err
	}
	want := partition.Dealt{}
	if len(dealt) > 0 {
		want = dealt[number]
	}
	if got != want {
		return nil, fmt.Errorf("%s: %d records came, and tasks gave out %d (sums of hashes %x and %x): what brought them lost or changed some", s.called(kind, number), got.Records, want.Records, got.Sum, want.Sum)
	}
	for i := range writers {
		if err := writers[i].Finish(partition.NewSummary()); err != nil {
			return nil, err
		}
	}
	if kind == shard.Users && len(dealt) > 0 {
		ofRows, ofLines := s.keys.Received(number)
		for i, key := range []string{ofRows, ofLines} {
			if err := s.upload(ctx, paths[i], key); err != nil {
				return nil, err
			}
		}
	}
	return openReceived(number, paths)
}

func openReceived(number int, paths []string) (_ *received, err error) {
	r := &received{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	for i, to := range []**partition.Records{&r.rows, &r.lines} {
		f, err := os.Open(paths[i])
		if err != nil {
			return nil, err
		}
		r.files = append(r.files, f)
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		of, err := partition.Open(f, info.Size(), paths[i])
		if err != nil {
			return nil, err
		}
		if *to, err = of.Shard(number); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// hasReceived reports whether the records of a shard of users are in the store that an engine
// has brought there, or none need be.
func (s *Steps) hasReceived(ctx context.Context, number int) (bool, error) {
	list, err := s.list(ctx)
	if err != nil {
		return false, err
	}
	m, err := s.merge(ctx, list)
	if err != nil {
		return false, err
	}
	rows, lines := s.keys.Received(number)
	_, hasRows := list[rows]
	_, hasLines := list[lines]
	return hasRows && hasLines || len(m.Users.Found.Dealt) == 0, nil
}

// ElsewhereError says that a shard needs records that tasks have given to another engine, and
// was given none.
type ElsewhereError struct{ Tasks []int }

// Error implements [error].
func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("another engine has the records of %s, and must bring them", listed(e.Tasks))
}

// listed names tasks, the first of many.
func listed(tasks []int) string {
	const most = 20
	text := fmt.Sprintf("the tasks %v", tasks[:min(len(tasks), most)])
	if more := len(tasks) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
