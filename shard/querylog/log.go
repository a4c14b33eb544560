package querylog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
)

// Log is a place with recorded queries.
type Log struct {
	bucket *objects.Bucket
	prefix string
	one    bool // prefix is the name of the one object
	owned  bool
}

// Of returns the log of the store in a bucket. Closing it leaves the bucket open.
func Of(bucket *objects.Bucket) *Log { return &Log{bucket: bucket, prefix: Prefix} }

// Open opens the log at a location: a file, or a folder or a bucket whose objects that
// end in .parquet are all files of queries, or that is a store. The caller closes it.
func Open(ctx context.Context, location string) (*Log, error) {
	l := &Log{owned: true}
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
	return l, nil
}

// clockSlack is how much later than its object's name a query may claim to be, since
// clocks are set.
const clockSlack = time.Minute

// Close frees what Open opened.
func (l *Log) Close() error {
	if !l.owned {
		return nil
	}
	return l.bucket.Close()
}

// Location returns where the log is.
func (l *Log) Location() string { return l.name(l.prefix) }

func (l *Log) name(key string) string {
	return strings.TrimSuffix(l.bucket.Location(), "/") + "/" + key
}

// Queries returns the queries that came from since on and before until; a zero time
// sets no bound. Their order is that of the objects' names and, in one, that of its
// rows. One object is in memory at a time. An error names the object. One of class
// [ErrDamaged] ends what is returned of that object, and the next one follows; any other
// error is the last thing returned.
func (l *Log) Queries(ctx context.Context, since, until time.Time) iter.Seq2[*Query, error] {
	return func(yield func(*Query, error) bool) {
		for o, err := range l.objects(ctx) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(nil, fmt.Errorf("read log: %w", err))
				return
			}
			if at, ok := written(o.Key); ok && at.Add(clockSlack).Before(since) {
				continue // all of it is older
			}
			data, err := l.read(ctx, o)
			if errors.Is(err, objects.ErrNotFound) {
				continue // it was too old, or of forgotten users, and is deleted
			}
			if err != nil {
				if !yield(nil, fmt.Errorf("read log: %w", err)) || !errors.Is(err, ErrDamaged) {
					return
				}
				continue
			}
			for q, err := range Decode(data) {
				if err != nil {
					if !yield(nil, fmt.Errorf("read log: %s: %w", l.name(o.Key), err)) {
						return
					}
					break
				}
				if q.Time.Before(since) || !until.IsZero() && !q.Time.Before(until) {
					continue
				}
				if !yield(q, nil) {
					return
				}
			}
		}
	}
}

// objects lists the files.
func (l *Log) objects(ctx context.Context) iter.Seq2[objects.Object, error] {
	if l.one {
		return func(yield func(objects.Object, error) bool) { yield(l.bucket.Stat(ctx, l.prefix)) }
	}
	return func(yield func(objects.Object, error) bool) {
		for o, err := range l.bucket.List(ctx, l.prefix) {
			if err == nil && !strings.HasSuffix(o.Key, extension) {
				continue
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// read reads a file, if it is not too large.
func (l *Log) read(ctx context.Context, o objects.Object) ([]byte, error) {
	if o.Size > MaxFileBytes {
		return nil, fmt.Errorf("%s: %w: %d bytes; accepted: up to %d", l.name(o.Key), ErrDamaged, o.Size, MaxFileBytes)
	}
	return l.bucket.Read(ctx, o.Key)
}
