package joined

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// SweepOptions say what goes of joined sets.
type SweepOptions struct {
	// Now is the time by the store's clock.
	Now time.Time
	// Keep is how long a day is kept since it ended. 0: for ever.
	Keep time.Duration
	// Forgotten reports whether an id is that of a user who is forgotten. Nil: nobody is.
	Forgotten func(id string) bool
	// Set names who is forgotten: it is another text whenever they are others.
	Set string
	// DryRun says what would go, and changes nothing.
	DryRun bool
}

// Swept is what [Sweep] has done, or would have.
type Swept struct {
	Deleted   []string // days that were older than SweepOptions.Keep
	Left      []string // objects that no set names, as a join that was killed leaves them
	Rewritten []string // days that had rows of users who are forgotten
	Rows      int      // how many those were
	Read      int      // parts that were looked into
	// Failed are the days that could not be looked into, or not be written anew: what of
	// forgotten users is in them stays until they are deleted.
	Failed []error
}

// leftLife is how long an object that no set names is kept: it may be of a join under way.
const leftLife = 24 * time.Hour

// Unswept returns how many parts of a store may have something of the users of a set, as
// [SweepOptions] names it, since no sweep is known to have looked into them.
func Unswept(ctx context.Context, bucket *objects.Bucket, set string) (int, error) {
	return format.Of(bucket).Unswept(ctx, set)
}

// Names reports whether a row names a user who is forgotten, as forgotten says of a text.
func (r *Row) Names(forgotten func(text string) bool) bool {
	return slices.ContainsFunc([]string{r.UserID, r.RequestKey, r.RequestID}, forgotten)
}

// Sweep deletes the sets of days that are too old, what no set names, and takes the rows of users who
// are forgotten out of the others: a set gets another generation, whole or not at all. Days that a
// sweep has seen are not read again until others are forgotten. It may be interrupted, and run beside
// joins and other sweeps: of those that change one day at a time one counts, and where that would
// lack a part the day has no set until it is joined again.
//
// An error is one of the store, or says how many days it could not do; Swept is right all the same.
func Sweep(ctx context.Context, bucket *objects.Bucket, o SweepOptions) (*Swept, error) {
	s := &sweep{SweepOptions: o, bucket: bucket, done: &Swept{}}
	if o.Forgotten != nil {
		s.Forgotten = rowlog.Remembering(o.Forgotten)
	}
	err := s.run(ctx)
	if n := len(s.done.Failed); err == nil && n > 0 {
		err = fmt.Errorf("%d of them could not be looked into: %w", n, errors.Join(s.done.Failed...))
	}
	if err != nil {
		return s.done, fmt.Errorf("sweep joined sets: %w", err)
	}
	return s.done, nil
}

// sweep is a Sweep in progress.
type sweep struct {
	SweepOptions
	bucket *objects.Bucket
	done   *Swept
}

// objectsOf are those of a day, by their names in its folder.
type objectsOf map[string]objects.Object

func (s *sweep) run(ctx context.Context) error {
	days := map[string]objectsOf{}
	for o, err := range s.bucket.List(ctx, Prefix) {
		if err != nil {
			return fmt.Errorf("list %s: %w", Prefix, err)
		}
		day, name, ok := strings.Cut(strings.TrimPrefix(o.Key, Prefix), "/")
		if _, err := time.Parse(time.DateOnly, day); !ok || err != nil || name != SetName && !IsOfSet(name) {
			continue // it is somebody else's
		}
		if days[day] == nil {
			days[day] = objectsOf{}
		}
		days[day][name] = o
	}
	log := format.Of(s.bucket)
	before := time.Time{}
	if s.Forgotten != nil {
		var err error
		if before, err = log.SweptBefore(ctx, s.Set); err != nil {
			return err
		}
	}
	for _, day := range slices.Sorted(maps.Keys(days)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.day(ctx, day, days[day], before); err != nil {
			return err
		}
	}
	if s.Forgotten == nil || s.DryRun || len(s.done.Failed) > 0 || s.done.Read == 0 {
		return nil
	}
	return log.NoteSwept(ctx, s.Set, s.Now)
}

// day sweeps a day.
func (s *sweep) day(ctx context.Context, day string, there objectsOf, before time.Time) error {
	begins, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return err
	}
	if s.Keep > 0 && s.Now.Sub(begins.AddDate(0, 0, 1)) >= s.Keep {
		s.done.Deleted = append(s.done.Deleted, day)
		names := slices.Sorted(maps.Keys(there))
		// The set first: what is not named is not there.
		slices.SortStableFunc(names, func(a, b string) int { return order(a) - order(b) })
		return s.delete(ctx, day, names)
	}
	set, err := Read(ctx, s.bucket, day)
	switch {
	case errors.Is(err, objects.ErrNotFound):
		set = &Set{Day: day}
	case errors.Is(err, ErrDamaged):
		s.done.Failed = append(s.done.Failed, err)
		return nil
	case err != nil:
		return err
	}
	if err := s.left(ctx, set, there); err != nil {
		return err
	}
	fresh := func(p Part) bool { return !there[p.Name].Time.Before(before) }
	if s.Forgotten == nil || !slices.ContainsFunc(set.Parts, fresh) {
		return nil
	}
	switch err := s.rewrite(ctx, set); {
	case errors.Is(err, ErrDamaged), errors.Is(err, ErrChanged):
		s.done.Failed = append(s.done.Failed, err)
		return nil
	default:
		return err
	}
}

func order(name string) int {
	if name == SetName {
		return 0
	}
	return 1
}

// left deletes what the set of a day does not name and is old.
func (s *sweep) left(ctx context.Context, set *Set, there objectsOf) error {
	named := map[string]bool{SetName: true, set.Inputs: true}
	for _, p := range set.Parts {
		named[p.Name] = true
	}
	var left []string
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if !named[name] && s.Now.Sub(there[name].Time) >= leftLife {
			left = append(left, name)
			s.done.Left = append(s.done.Left, Prefix+set.Day+"/"+name)
		}
	}
	return s.delete(ctx, set.Day, left)
}

// rewrite takes rows out of the parts of a set, and publishes what is left as its next generation.
func (s *sweep) rewrite(ctx context.Context, set *Set) error {
	next := *set
	next.Parts, next.Generation = nil, set.Generation+1
	var old []string
	rows := 0
	for _, p := range set.Parts {
		s.done.Read++
		data, err := set.read(ctx, s.bucket, p)
		if err != nil {
			return err
		}
		rest, gone, err := format.Without(data, func(r *Row) (bool, error) {
			if !r.Names(s.Forgotten) {
				return false, nil
			}
			next.Counts.takeOut(r)
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w: %w", Prefix+set.Day+"/"+p.Name, ErrDamaged, err)
		}
		if gone == 0 {
			next.Parts = append(next.Parts, p)
			continue
		}
		rows += gone
		old = append(old, p.Name)
		if rest == nil {
			continue
		}
		part := Part{Name: PartName(len(next.Parts), rest), Rows: p.Rows - int64(gone), Size: int64(len(rest))}
		next.Parts = append(next.Parts, part)
		if s.DryRun {
			continue
		}
		if err := s.bucket.Write(ctx, Prefix+set.Day+"/"+part.Name, rest); err != nil {
			return err
		}
	}
	if rows == 0 {
		return nil
	}
	s.done.Rewritten = append(s.done.Rewritten, set.Day)
	s.done.Rows += rows
	next.Forgotten += int64(rows)
	if s.DryRun {
		return nil
	}
	return s.publish(ctx, set, &next, old)
}

// takeOut counts a row that goes.
func (c *Counts) takeOut(r *Row) {
	switch r.Role {
	case RoleNext:
		c.Next--
		return
	case RoleEligible:
		c.Eligible--
		return
	case RoleEmpty:
		c.Empty--
		c.Requests--
		return
	}
	c.Shown--
	if r.Rank == 1 {
		c.Requests--
	}
	c.Joined -= r.Impressions + r.Opens + r.Installs + r.Hides + r.Reports + r.PlayTimes
	for _, o := range r.Own {
		c.Joined -= o.Count
	}
}

// publish has a set take the place of another one of its day.
func (s *sweep) publish(ctx context.Context, was, set *Set, old []string) error {
	now, err := Read(ctx, s.bucket, set.Day)
	if errors.Is(err, objects.ErrNotFound) {
		return fmt.Errorf("%s: %w: it was deleted meanwhile", SetKey(set.Day), ErrChanged)
	}
	if err != nil {
		return err
	}
	if now.Generation != was.Generation || !now.Written.Equal(was.Written) || !slices.Equal(now.Parts, was.Parts) {
		return fmt.Errorf("%s: %w: it was joined meanwhile; the next sweep looks into it", SetKey(set.Day), ErrChanged)
	}
	data, err := EncodeSet(set)
	if err != nil {
		return err
	}
	if err := s.bucket.Write(ctx, SetKey(set.Day), data); err != nil {
		return err
	}
	for _, p := range set.Parts {
		o, err := s.bucket.Stat(ctx, Prefix+set.Day+"/"+p.Name)
		if err == nil && o.Size == p.Size {
			continue
		}
		if err != nil && !errors.Is(err, objects.ErrNotFound) {
			return err
		}
		// A join has deleted it meanwhile: what lacks a part is no set.
		if err := s.delete(ctx, set.Day, []string{SetName}); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w: it was joined meanwhile; join the day again", SetKey(set.Day), ErrChanged)
	}
	keep := map[string]bool{}
	for _, p := range set.Parts {
		keep[p.Name] = true
	}
	return s.delete(ctx, set.Day, slices.DeleteFunc(old, func(name string) bool { return keep[name] }))
}

// delete deletes objects of a day.
func (s *sweep) delete(ctx context.Context, day string, names []string) error {
	if s.DryRun {
		return nil
	}
	for _, name := range names {
		if err := s.bucket.Delete(ctx, Prefix+day+"/"+name); err != nil && !errors.Is(err, objects.ErrNotFound) {
			return err
		}
	}
	return nil
}
