package snapshots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Marks have two forms. The one that counts is doomed/batch-ID.json, which names what
// one Collect is about to delete; where a disk is too full for more than a name it is
// empty, and stands for everything. Beside it there is an empty doomed/DIGEST for each
// of these, which is all that versions until 0.5 write and look for. It holds up writers
// here too, but several collectors may share one, so Collect does not rely on it.
const (
	doomedDir   = "doomed"
	batchPrefix = doomedDir + "/batch-"
	clockPrefix = doomedDir + "/clock-" // what a Collect reads the store's clock off
)

func markKey(d manifest.Digest) string { return doomedDir + "/" + string(d) }

// Marked says what of that which is wanted a [Store.Collect] is about to delete, or was
// when it died.
type Marked struct {
	Digests []manifest.Digest // of snapshots and shards
	Since   time.Time         // when the last was marked, by the store's clock
	Waited  time.Duration     // so far
	Longest time.Duration     // from now on: then it is known that the Collect died
}

// String says what is marked, since when, and how long that holds anyone up.
func (m Marked) String() string {
	name := m.Digests[0].Short()
	if more := len(m.Digests) - 1; more > 0 {
		name += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s, which a gc has marked at %s to be deleted; it is done or dead in %s at most",
		name, m.Since.UTC().Format(time.RFC3339), max(m.Longest.Round(time.Second), time.Second))
}

// MarkedError says that a [Store.Collect] is about to delete what is wanted, or was when
// it died.
type MarkedError struct{ Marked }

func (e *MarkedError) Error() string { return e.String() + ", try again then" }

// watch has the time since when a writer has seen each mark with its date.
type watch map[seenMark]time.Time

type seenMark struct {
	key  string
	date int64
}

// age returns for how long a mark has been seen with its date.
func (w watch) age(o objects.Object) time.Duration {
	seen := seenMark{o.Key, o.Time.UnixNano()}
	if _, known := w[seen]; !known {
		w[seen] = time.Now()
	}
	return time.Since(w[seen])
}

// marked returns what the marks that count name of some digests, nil if they name none.
// It removes marks that do not count any more. Now is the store's time, or less. Who does
// not watch, but comes again, has the marks that are dated ahead dated again.
func (s *Store) marked(ctx context.Context, wanted []manifest.Digest, now time.Time, watched watch) (*Marked, error) {
	m := Marked{}
	marked := map[manifest.Digest]bool{}
	for o, err := range s.bucket.List(ctx, doomedDir+"/") {
		if err != nil {
			return nil, err
		}
		names, all, err := s.named(ctx, o)
		if err != nil {
			return nil, err
		}
		if !all && !slices.ContainsFunc(wanted, func(d manifest.Digest) bool { return names[d] }) {
			continue
		}
		left := markLife - now.Sub(o.Time)
		if watched != nil {
			left = min(left, markLife-watched.age(o))
		}
		if left <= 0 {
			if err := s.deleteIfThere(ctx, o.Key); err != nil {
				return nil, err
			}
			continue
		}
		if watched == nil {
			if err := s.dateAgain(ctx, o, now, markLife); err != nil {
				return nil, err
			}
		}
		for _, d := range wanted {
			if (all || names[d]) && !marked[d] {
				marked[d] = true
				m.Digests = append(m.Digests, d)
			}
		}
		if o.Time.After(m.Since) {
			m.Since = o.Time
		}
		m.Longest = max(m.Longest, min(left, markLife))
	}
	if len(m.Digests) == 0 {
		return nil, nil
	}
	return &m, nil
}

// named returns what an object of doomedDir marks. One that is gone marks nothing.
func (s *Store) named(ctx context.Context, o objects.Object) (names map[manifest.Digest]bool, all bool, err error) {
	if d := manifest.Digest(strings.TrimPrefix(o.Key, doomedDir+"/")); d.Valid() {
		return map[manifest.Digest]bool{d: true}, false, nil
	}
	if !strings.HasPrefix(o.Key, batchPrefix) {
		return nil, false, nil
	}
	data, err := s.bucket.Read(ctx, o.Key)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil || len(data) == 0 {
		return nil, err == nil, err
	}
	var in intent
	all = json.Unmarshal(data, &in) != nil // one that cannot be read may mean anything
	names = map[manifest.Digest]bool{}
	for _, d := range in.Digests {
		names[d] = true
	}
	return names, all, nil
}

// dateAgain writes an object whose date lies further ahead of the store's clock than it
// may live as it is, which gives it a date: else it would live for as long as the date
// lies ahead.
func (s *Store) dateAgain(ctx context.Context, o objects.Object, now time.Time, life time.Duration) error {
	if o.Time.Sub(now) <= life {
		return nil
	}
	data, err := s.bucket.Read(ctx, o.Key)
	if errors.Is(err, objects.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.bucket.Write(ctx, o.Key, data)
}

func (s *Store) deleteIfThere(ctx context.Context, key string) error {
	if err := s.bucket.Delete(ctx, key); err != nil && !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	return nil
}

// collecting is how many requests of a Collect are under way at a time.
const collecting = 8

// each calls f for every digest, several at a time, and returns the first error.
func each(list []manifest.Digest, f func(i int, d manifest.Digest) error) error {
	var g errgroup.Group
	g.SetLimit(collecting)
	for i, d := range list {
		g.Go(func() error { return f(i, d) })
	}
	return g.Wait()
}

// mark marks what is about to be deleted. Unmark removes the mark, even where ctx has
// ended, and whether or not there was an error.
func (s *Store) mark(ctx context.Context, list []manifest.Digest) (unmark func() error, err error) {
	key := fmt.Sprintf("%s%016x%016x.json", batchPrefix, rand.Uint64(), rand.Uint64())
	unmark = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
		defer cancel()
		err := each(list, func(_ int, d manifest.Digest) error { return s.deleteIfThere(ctx, markKey(d)) })
		return errors.Join(err, s.deleteIfThere(ctx, key))
	}
	data, err := json.Marshal(intent{list})
	if err != nil {
		return unmark, err
	}
	err = s.bucket.Write(ctx, key, data)
	if objects.IsFull(err) {
		err = s.bucket.Spend(func() error { return s.bucket.Write(ctx, key, nil) })
	}
	if err != nil {
		return unmark, err
	}
	return unmark, each(list, func(_ int, d manifest.Digest) error {
		err := s.bucket.Write(ctx, markKey(d), nil)
		if objects.IsFull(err) {
			return nil // earlier versions, whom this is for, find no room to publish or release either
		}
		return err
	})
}
