package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// RefusedError says that the inputs of a build, or what was said of them, are at fault: doing
// the same again gives the same.
type RefusedError struct{ Err error }

// Error implements [error].
func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *RefusedError) Unwrap() error { return e.Err }

// AtFault says of an error of reading inputs what [Build] says of its own: it is a [*RefusedError] unless it may
// pass.
func AtFault(err error) error { return refused(err) }

// refused says of an error of reading inputs that they are at fault, unless it is one that may
// pass: of a system, a network, a store, or a context that has ended.
func refused(err error) error {
	passing := []error{context.Canceled, context.DeadlineExceeded, objects.ErrNotFound, objects.ErrGone, objects.ErrNotDurable, snapshots.ErrSource, snapshots.ErrLapsed}
	for _, class := range passing {
		if errors.Is(err, class) {
			return err
		}
	}
	if err == nil || errors.As(err, new(*RefusedError)) || errors.As(err, new(syscall.Errno)) || errors.As(err, new(*fs.PathError)) || errors.As(err, new(net.Error)) || errors.As(err, new(*objects.StoreError)) || sections.IsDamaged(err) {
		return err
	}
	return &RefusedError{err}
}

// job is a build whose plan is fixed: what its steps have in common, on one machine or on
// many.
type job struct {
	plan     *plan.Plan
	params   index.Params
	terms    map[shard.Kind]*partition.Terms
	segments *segmentsFile // nil without
	threads  int
	progress Progress
}

func newJob(p *plan.Plan, forgotten live.Forgotten) (*job, error) {
	j := &job{plan: p, terms: map[shard.Kind]*partition.Terms{}, threads: 1, progress: silent{}}
	var err error
	if j.params, err = index.ParseParams(p.Params); err != nil {
		return nil, err
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		t := p.Tower(kind)
		terms := &partition.Terms{Shards: t.Shards, Metric: p.Metric, Dim: p.Dim, Rows: t.RowFields, Lines: t.LineFields, Starts: t.Survey.Starts()}
		if terms.Schema, err = t.Schema(); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		for _, f := range t.Rows {
			terms.Files = append(terms.Files, f.Shown)
		}
		if kind == shard.Users {
			terms.Forgotten = forgotten
		}
		j.terms[kind] = terms
	}
	if p.Segments != nil {
		if j.segments, err = parseSegments(p.SegmentsName, p.Segments); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// options returns how the files of a tower are read.
func (j *job) options(kind shard.Kind) (tower.Options, tower.AttributeOptions) {
	p := j.plan.Parameters.Apps
	if kind == shard.Users {
		p = j.plan.Parameters.Users
	}
	return inputOptions(p)
}

// taskFiles are the files of a task, open.
type taskFiles struct {
	files, ids *input.Set // ids are nil without
}

func (f *taskFiles) sets() []*input.Set {
	if f.ids == nil {
		return []*input.Set{f.files}
	}
	return []*input.Set{f.files, f.ids}
}

// checked returns an error of reading, or one that says that a file was written to meanwhile.
func (f *taskFiles) checked(err error) error {
	for _, set := range f.sets() {
		err = checked(set, err)
	}
	return err
}

// spread reads the files of a task and writes what it deals to shards to a file.
func (j *job) spread(ctx context.Context, t plan.Task, files taskFiles, path string, memory int64, of uint64, inputs func() ([]manifest.Input, error)) (err error) {
	terms := j.terms[t.Tower]
	layout := partition.Layout{Shards: terms.Shards, Dim: j.plan.Dim, Fields: len(terms.Rows), Of: of}
	if t.Reads == plan.Attributes {
		layout.Dim, layout.Fields = 0, len(terms.Lines)
	}
	w, err := partition.Create(path, layout, memory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	summary, err := j.read(ctx, t, files, w)
	if err = files.checked(err); err != nil {
		return refused(fmt.Errorf("read %s: %w", t.Tower, err))
	}
	if summary.Inputs, err = inputs(); err != nil {
		return err
	}
	return w.Finish(summary)
}

func (j *job) read(ctx context.Context, t plan.Task, files taskFiles, w *partition.Writer) (_ *partition.Summary, err error) {
	rows, lines := j.options(t.Tower)
	tower_, terms := j.plan.Tower(t.Tower), j.terms[t.Tower]
	if t.Reads == plan.Attributes {
		lines.Files, lines.Part = files.files, &tower.AttributePart{Survey: tower_.Lines, First: t.First}
		r, err := tower.OpenAttributes(ctx, lines)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		j.progress.Stage(fmt.Sprintf("read %s attributes", t.Tower), -1)
		s, err := partition.Lines(ctx, r, terms, w, j.progress.Step)
		j.note(t.Tower, r.Notes())
		return s, err
	}
	rows.Files, rows.IDFiles, rows.Part = files.files, files.ids, &tower.Part{Survey: tower_.Survey, First: t.First}
	r, err := tower.Open(ctx, rows)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	j.progress.Stage(fmt.Sprintf("read %s", t.Tower), r.Rows())
	s, err := partition.Rows(ctx, r, terms, w, j.progress.Step)
	j.note(t.Tower, r.Notes())
	return s, err
}

func (j *job) note(kind shard.Kind, notes []string) {
	for _, note := range notes {
		j.progress.Note(fmt.Sprintf("%s: %s", kind, note))
	}
}

// rejected returns an error if more rows were rejected than the build accepts.
func (j *job) rejected(apps, users *partition.Rejections) error {
	if apps.Total+users.Total <= j.plan.Parameters.MaxRejected {
		return nil
	}
	return refused(&RejectedError{Max: j.plan.Parameters.MaxRejected, Apps: apps, Users: users})
}

// built is a shard file that was built and what was found on the way.
type built struct {
	path  string
	index *index.Index
}

// index builds the shard of some contents, which is called of.
func (j *job) index(ctx context.Context, kind shard.Kind, number int, of string, c *contents, queries partition.Queries, dir string) (*built, error) {
	j.progress.Stage("index "+of, int64(len(c.ids)))
	c.input.Threads = max(j.threads, 1)
	c.input.Progress = func(done, _ int) { j.progress.Step(int64(done)) }
	x, err := index.Build(ctx, c.input, j.params)
	if err != nil {
		return nil, err
	}
	j.progress.Stage("calibrate "+of, -1)
	if err := x.Calibrate(ctx, queries[manifest.Shape], queries[manifest.Calibrate], j.threads); err != nil {
		return nil, err
	}
	j.progress.Stage("write "+of, -1)
	path := filepath.Join(dir, fmt.Sprintf("%s-%04d.shard", kind, number))
	var segments []shard.Segment
	if kind == shard.Apps && j.segments != nil {
		segments = j.segments.list
	}
	if err := shard.Write(path, c.ids, x, c.attributes, segments...); err != nil {
		return nil, err
	}
	return &built{path, x}, nil
}

// called names a shard for people.
func (j *job) called(kind shard.Kind, number int) string {
	return fmt.Sprintf("%s, shard %d of %d", kind, number+1, j.plan.Tower(kind).Shards)
}

// local is the objects of a build on one machine.
type local struct {
	files []io.Closer
	of    map[shard.Kind]*parts
}

// open opens the object that a task has written.
func (l *local) open(t plan.Task, path string) (*partition.Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l.files = append(l.files, f)
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := partition.Open(f, info.Size(), path)
	if err != nil {
		return nil, err
	}
	if l.of[t.Tower] == nil {
		l.of[t.Tower] = &parts{}
	}
	l.of[t.Tower].add(t.Reads, r)
	return r.Summary()
}

func (l *local) close() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	l.files = nil
	return errors.Join(errs...)
}

// parts are the objects that have rows and lines of one tower.
type parts struct{ rows, lines []*partition.Reader }

func (p *parts) add(reads plan.Reads, r *partition.Reader) {
	if reads == plan.Attributes {
		p.lines = append(p.lines, r)
	} else {
		p.rows = append(p.rows, r)
	}
}

// shard returns what the objects have of one shard.
func (p *parts) shard(number int) (s shardRecords, err error) {
	for _, of := range []struct {
		from []*partition.Reader
		to   *[]*partition.Records
	}{{p.rows, &s.rows}, {p.lines, &s.lines}} {
		for _, r := range of.from {
			records, err := r.Shard(number)
			if err != nil {
				return s, err
			}
			*of.to = append(*of.to, records)
		}
	}
	return s, nil
}

// lookup returns the positions of fields in a schema.
func lookup(schema attribute.Schema, fields []attribute.Field) []int {
	columns := make([]int, len(fields))
	for i, f := range fields {
		columns[i], _ = schema.Lookup(f.Name)
	}
	return columns
}
