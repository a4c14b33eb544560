package rowlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

// Log is a place with rows of a format.
type Log[R any] struct {
	format *Format[R]
	bucket *objects.Bucket
	prefix string
	one    bool // prefix is the name of the one object
	owned  bool
}

// Of returns the log of the store in a bucket. Closing it leaves the bucket open.
func (f *Format[R]) Of(bucket *objects.Bucket) *Log[R] {
	return &Log[R]{format: f, bucket: bucket, prefix: f.Prefix}
}

// OpenLog opens the log at a location: a store, a file, or a folder or a bucket whose objects that
// end in .parquet are all files of such rows. The caller closes it.
func (f *Format[R]) OpenLog(ctx context.Context, location string) (*Log[R], error) {
	l := &Log[R]{format: f, owned: true}
	path, local, err := objects.Folder(location)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if local {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
		if !info.IsDir() {
			l.one, l.prefix = true, filepath.Base(path)
			location = filepath.Dir(path)
		}
	}
	if l.bucket, err = objects.Open(ctx, location); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if !l.one {
		if err := l.inStore(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("open log: %w", err), l.bucket.Close())
		}
	}
	return l, nil
}

// inStore has the log be that of a store, if the location is one: a store has files of other
// rows too.
func (l *Log[R]) inStore(ctx context.Context) error {
	for _, prefix := range []string{l.format.Prefix, "snapshots/"} {
		next, stop := iter.Pull2(l.bucket.List(ctx, prefix))
		_, err, is := next()
		stop()
		switch {
		case !is:
		case err != nil:
			return err
		default:
			l.prefix = l.format.Prefix
			return nil
		}
	}
	return nil
}

// ClockSlack is how much later than its object's name a row may claim to be, since clocks are
// set.
const ClockSlack = time.Minute

// Close frees what OpenLog opened.
func (l *Log[R]) Close() error {
	if !l.owned {
		return nil
	}
	return l.bucket.Close()
}

// Location returns where the log is.
func (l *Log[R]) Location() string { return l.name(l.prefix) }

func (l *Log[R]) name(key string) string {
	return strings.TrimSuffix(l.bucket.Location(), "/") + "/" + key
}

// Rows returns the rows of which the time is since one and before another; a zero time sets no
// bound. Objects that were written more than a slack before the first are not read: by so much
// may rows claim to be later than they were written. Their order is that of the objects' names
// and, in one, that of its rows. One object is in memory at a time. An error names the object.
// One of class [Format.Damaged] ends what is returned of that object, and the next one follows;
// any other error is the last thing returned.
func (l *Log[R]) Rows(ctx context.Context, since, until time.Time, slack time.Duration) iter.Seq2[*R, error] {
	return func(yield func(*R, error) bool) {
		for o, err := range l.objects(ctx) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, fmt.Errorf("read log: %w", err))
				return
			}
			if at, ok := Written(o.Key); ok && at.Add(slack).Before(since) {
				continue // all of it is older
			}
			if !l.each(ctx, o, yield, func(row *R) bool {
				at := l.format.Time(row)
				return !at.Before(since) && (until.IsZero() || at.Before(until))
			}) {
				return
			}
		}
	}
}

// each gives the rows of a file that are wanted, and reports whether to go on.
func (l *Log[R]) each(ctx context.Context, o objects.Object, yield func(*R, error) bool, wanted func(*R) bool) bool {
	data, err := l.read(ctx, o)
	if errors.Is(err, objects.ErrNotFound) {
		return true // it was too old, or of forgotten users, and is deleted
	}
	if err != nil {
		return yield(nil, fmt.Errorf("read log: %w", err)) && errors.Is(err, l.format.Damaged)
	}
	for row, err := range l.format.Decode(data) {
		if err != nil {
			return yield(nil, fmt.Errorf("read log: %s: %w", l.name(o.Key), err))
		}
		if wanted(row) && !yield(row, nil) {
			return false
		}
	}
	return true
}

// Days returns the days on which files were written, the first first, each at its beginning in
// UTC. Files whose names have no time are of none.
func (l *Log[R]) Days(ctx context.Context) ([]time.Time, error) {
	days := map[time.Time]bool{}
	for o, err := range l.objects(ctx) {
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if at, ok := Written(o.Key); ok {
			days[dayOf(at)] = true
		}
	}
	return slices.SortedFunc(maps.Keys(days), time.Time.Compare), nil
}

func dayOf(at time.Time) time.Time { return at.UTC().Truncate(24 * time.Hour) }

// OfDay returns the rows of the files that were written on a day in UTC, as Rows does.
func (l *Log[R]) OfDay(ctx context.Context, day time.Time) iter.Seq2[*R, error] {
	prefix := l.prefix
	if prefix == l.format.Prefix { // of a store
		prefix += day.UTC().Format(time.DateOnly) + "/"
	}
	return func(yield func(*R, error) bool) {
		for o, err := range l.objectsUnder(ctx, prefix) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, fmt.Errorf("read log: %w", err))
				return
			}
			at, ok := Written(o.Key)
			if ok && dayOf(at).Equal(dayOf(day)) && !l.each(ctx, o, yield, func(*R) bool { return true }) {
				return
			}
		}
	}
}

// objects lists the files.
func (l *Log[R]) objects(ctx context.Context) iter.Seq2[objects.Object, error] {
	return l.objectsUnder(ctx, l.prefix)
}

func (l *Log[R]) objectsUnder(ctx context.Context, prefix string) iter.Seq2[objects.Object, error] {
	if l.one {
		return func(yield func(objects.Object, error) bool) { yield(l.bucket.Stat(ctx, prefix)) }
	}
	return func(yield func(objects.Object, error) bool) {
		for o, err := range l.bucket.List(ctx, prefix) {
			if err == nil && !strings.HasSuffix(o.Key, Extension) {
				continue
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// read reads a file, if it is not too large.
func (l *Log[R]) read(ctx context.Context, o objects.Object) ([]byte, error) {
	if o.Size > MaxFileBytes {
		return nil, fmt.Errorf("%s: %w: %d bytes; accepted: up to %d", l.name(o.Key), l.format.Damaged, o.Size, MaxFileBytes)
	}
	return l.bucket.Read(ctx, o.Key)
}
