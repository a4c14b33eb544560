package release

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var (
	// ErrNone is the class of the error that says that nothing was released yet.
	ErrNone = errors.New("nothing was released yet")
	// ErrLost is the class of the error that says that something was released, and the
	// log has no entry: its folder is not mounted, or not restored yet.
	ErrLost = errors.New("something was released, and the log of releases is empty")
	// ErrConflict is the class of every error that says that another change was first.
	ErrConflict = appendlog.ErrConflict
	// ErrGates is the class of every error that says that a snapshot's gates keep it
	// from being released.
	ErrGates = errors.New("the gates do not let it pass")
	// ErrUnproved is the class of those among them that say what nothing has shown of the
	// snapshot of a first release; see [Verdict.Unproved].
	ErrUnproved = errors.New("a first release has nothing to fall back on")
	// ErrChange is the class of every error that says that a change makes no sense.
	ErrChange = errors.New("cannot be done")
)

// The names that arms get by themselves.
const (
	Control   = "control"
	Candidate = "candidate"
)

// keptReleases is how many of the newest generations keep their snapshots from being
// collected, so that they may be rolled back to.
//
// A rollback to one of them protects nothing, and waits for no mark of a collection (see
// the store's Protect). No snapshot S is deleted so that a release has:
//
// A Collect deletes S only if it looked for intents and then at Live after it marked S,
// and found S in neither; let H be the head of the log then. Let G be the first
// generation after H that has S. It was appended to G-1, which is H or later, since an
// entry is only appended to the head.
//   - A split or a promote takes its arms from G-1, which has no S: if G-1 is H, Live
//     would have had S, and else G is not the first.
//   - A rollback to a generation N that is one of the last ten at G-1, and of the same
//     log, so that nobody has accepted a log without it: if N is H or earlier it is one
//     of the last ten at H, and Live would have had S; if N is later, G is not the first.
//   - A start, or another rollback, wrote its intent before it looked
//     for marks and then for S, and leaves it there if it does not know whether G was
//     appended. The Collect did not see the intent. If it was already gone, G had been
//     appended before Live was read, and is not after H. So it was not yet written, the
//     mark was there when the writer looked, and until the mark is gone a start waits
//     and a rollback refuses. Then they find S whole, or that it is not there.
//
// So there is no such G before the mark is gone, and S is deleted while it is there.
const keptReleases = 10

// Releases is the log of releases of a store. It may be used by any number of
// goroutines and processes.
type Releases struct {
	store *snapshots.Store
	log   *appendlog.Log
	judge func(context.Context, manifest.Digest) (fitness, error)
}

// New returns the releases of a store. Whatever gets traffic, or more of it, is judged
// first, by what its gates have found.
func New(store *snapshots.Store) *Releases {
	r := &Releases{store: store, log: appendlog.New(store.Objects(), appendlog.Options{Prefix: "releases", Links: links})}
	r.judge = r.judged
	return r
}

// Store returns the store that the releases are of.
func (r *Releases) Store() *snapshots.Store { return r.store }

// Get returns the release of a generation.
func (r *Releases) Get(ctx context.Context, generation uint64) (*Release, error) {
	e, err := r.log.Get(ctx, generation)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, fmt.Errorf("there is no generation %d: %w", generation, ErrChange)
	}
	if err != nil {
		return nil, err
	}
	return decode(e)
}

// Current returns what serves now. The error is of class [ErrNone] if nothing was
// released.
func (r *Releases) Current(ctx context.Context) (*Release, error) {
	head, err := r.head(ctx)
	if err != nil {
		return nil, err
	}
	if head == 0 {
		return nil, ErrNone
	}
	return r.Get(ctx, head)
}

// begunKey names the object that is there once something was released. It is not beside
// the log, which may be in a folder of its own that is not there one day.
const begunKey = "released"

// head returns the generation that was released last, 0 if there is none. An error is of
// class [ErrLost] where there was one.
func (r *Releases) head(ctx context.Context) (uint64, error) {
	head, err := r.log.Head(ctx)
	if err != nil || head > 0 {
		return head, err
	}
	_, err = r.store.Objects().Stat(ctx, begunKey)
	switch {
	case errors.Is(err, objects.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return 0, fmt.Errorf("store %s: %w; mount it, or restore it", r.store.Location(), ErrLost)
}

// noteBegun notes that something was released. What fails here the next change does.
func (r *Releases) noteBegun(ctx context.Context) {
	if _, err := r.store.Objects().Stat(ctx, begunKey); errors.Is(err, objects.ErrNotFound) {
		_ = r.store.Objects().Create(ctx, begunKey, nil)
	}
}

// PastError says that what was released last cannot be read, and which release a rollback can
// go back to. The text does not say that.
type PastError struct {
	Err      error
	Readable uint64 // the generation of the newest release that can be read
}

// Error implements [error].
func (e *PastError) Error() string { return e.Err.Error() }

// Unwrap returns why the release cannot be read.
func (e *PastError) Unwrap() error { return e.Err }

// goOn makes an error that says that what was released last cannot be read a [*PastError],
// if there is a release to go back to.
func (r *Releases) goOn(ctx context.Context, err error) error {
	if u := (*UnreadableError)(nil); !errors.As(err, &u) {
		return err
	}
	newest, _, readErr := r.Newest(ctx)
	if readErr != nil {
		return err // there is nothing to go back to
	}
	return &PastError{err, newest.Generation}
}

// Live returns the snapshots of the last ten releases: those that must not be
// collected, since they serve, or a rollback may bring them back at once. It fails where
// the log shows that it does not show all of that: if one of the last ten generations
// cannot be read, which a newer Tandem may, or is missing, or is another one than the next
// was appended to. What a person has accepted by a later release (see Change.Restored) is
// passed over, and releases before it count.
func (r *Releases) Live(ctx context.Context) ([]manifest.Digest, error) {
	var list []manifest.Digest
	var head uint64
	var log string
	var unknown error // what is not known, unless a release from here on turns out to accept it
	accepted := false
	n := 0
	for release, err := range r.History(ctx) {
		var at uint64 // where something is not known
		u, b := (*UnreadableError)(nil), (*BrokenError)(nil)
		switch {
		case errors.As(err, &u) && n == 0:
			return nil, r.goOn(ctx, err)
		case errors.As(err, &u):
			at = u.Generation
		case errors.As(err, &b):
			at = b.Generation
		case err != nil:
			return nil, err
		}
		if at != 0 {
			if !accepted && isLive(at, head) {
				unknown = cmp.Or(unknown, fmt.Errorf("what generation %d needs is not known, and matters until generation %d, or until a change accepts the log as it is: %w", at, at+keptReleases, err))
			}
			continue
		}
		if n == 0 {
			head = release.Generation
		} else if release.Log < log {
			accepted, unknown = true, nil
		}
		if unknown != nil {
			return nil, unknown
		}
		log = release.Log
		for _, a := range release.Arms {
			if !slices.Contains(list, a.Snapshot) {
				list = append(list, a.Snapshot)
			}
		}
		if n++; n == keptReleases {
			break
		}
	}
	return list, unknown
}

// isLive reports whether a generation is one of the last ten.
func isLive(generation, head uint64) bool { return generation+keptReleases > head }

// Change is who changes what serves, and why.
type Change struct {
	Author string
	Reason string
	// Generation is the one that the change is made to. An error of class
	// [ErrConflict] says that another serves. 0: whatever serves when the change begins.
	Generation uint64
	// First has the change made only where nothing was released; Generation is 0 then.
	First bool
	// Override is why a snapshot gets traffic, or more of it, whatever its gates say;
	// empty if it does not.
	Override string
	// Restored says that a person accepts the log as it is, restored from a copy or
	// broken, for the one that counts: servers that have followed another one follow this
	// one from here on.
	Restored bool
	// AutoRollback is what the release says of it; see [Release].AutoRollback.
	AutoRollback bool

	as string // what errors call it; empty: its kind
}

// change makes one change to what serves: edit turns what serves now into what is to
// serve next. If it brings snapshots in, protect keeps them from being collected; it may
// return nil.
func (r *Releases) change(ctx context.Context, c Change, kind Kind, protect func(context.Context, *Release) (*snapshots.Protection, error), edit func(context.Context, *Release) error) (_ *Release, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", cmp.Or(c.as, string(kind)), err)
		}
	}()
	now, err := r.Current(ctx)
	u := (*UnreadableError)(nil)
	switch {
	case kind == Started && (errors.Is(err, ErrNone) || errors.Is(err, ErrLost) && c.Restored):
		now = &Release{}
	case errors.As(err, &u) && kind == RolledBack:
		// A rollback takes no more of it.
		now = &Release{Generation: u.Generation, Hash: u.Hash}
		if now.Log, err = r.logOf(ctx, u); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, r.goOn(ctx, err)
	}
	if c.First && now.Generation != 0 || c.Generation != 0 && c.Generation != now.Generation {
		return nil, r.conflict(ctx, c.Generation+1)
	}
	var protection *snapshots.Protection
	if protect != nil {
		err := r.store.Objects().Spend(func() (err error) {
			protection, err = protect(ctx, now)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	unknown := false // whether there will be a release
	defer func() {
		switch {
		case protection == nil:
		case unknown:
			protection.Leave()
		default:
			_ = protection.End(ctx) // what it leaves keeps a snapshot for an hour more
		}
	}()
	next := &Release{
		Version: Version, Generation: now.Generation + 1, ID: newID(), Previous: now.Hash, Log: now.Log, Kind: kind,
		Time: time.Now().UTC().Truncate(time.Millisecond), Author: c.Author, Reason: c.Reason, Override: c.Override,
		AutoRollback: c.AutoRollback, Model: now.Model, Salt: now.Salt, Arms: slices.Clone(now.Arms),
		Variants: slices.Clone(now.Variants), Interleaving: now.Interleaving, Exploration: now.Exploration,
	}
	if c.Restored {
		if next.Log = newLog(next.Time); next.Log <= now.Log {
			return nil, fmt.Errorf("the clock of this machine says %s, before log %.80q began: %w", next.Time.Format(time.RFC3339), now.Log, ErrChange)
		}
	}
	if err := edit(ctx, next); err != nil {
		return nil, err
	}
	next.keepVariants()
	next.Version = versionOf(next)
	taken, err := r.takenOff(ctx, now)
	if err != nil {
		return nil, r.goOn(ctx, err)
	}
	next.TakenOff = takenOffBy(taken, now, next)
	next.Live = r.liveHead(ctx, now)
	data, err := next.Encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrChange) // of what it was to say
	}
	next.Hash = appendlog.HashOf(data)
	if protection != nil {
		if err := protection.Held(ctx); err != nil {
			return nil, err
		}
	}
	if unknown, err = r.append(ctx, next, data); err != nil {
		return nil, err
	}
	r.noteBegun(ctx)
	r.store.Objects().KeepReserve()
	return next, nil
}

// append appends the entry of a release. After an error, unknown says that it may be in the
// log all the same, or be there later.
func (r *Releases) append(ctx context.Context, next *Release, data []byte) (unknown bool, err error) {
	err = r.store.Objects().Spend(func() error { return r.log.Append(ctx, next.Generation, data) })
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, appendlog.ErrConflict):
		return false, r.conflict(ctx, next.Generation)
	case errors.Is(err, objects.ErrNotDurable):
		return true, fmt.Errorf("generation %d is released, and a crash of the store's machine may undo it; look at what is released before you change it again: %w", next.Generation, err)
	case r.store.Objects().Dir() != "" && !errors.Is(err, objects.ErrGone):
		return false, err // in a folder, which says what it has done, nothing was
	}
	return true, &UnknownError{next.Generation, next.ID, err}
}

// conflict says who was first.
func (r *Releases) conflict(ctx context.Context, generation uint64) error {
	first, err := r.Get(ctx, generation)
	if u := (*UnreadableError)(nil); errors.As(err, &u) {
		return fmt.Errorf("%w: %w", err, ErrConflict)
	}
	if err != nil {
		text := fmt.Sprintf("generation %d is not what is released", generation-1)
		if head, err := r.head(ctx); err == nil {
			text += fmt.Sprintf(", generation %d is", head)
		}
		return fmt.Errorf("%s: %w", text, ErrConflict)
	}
	reason := ""
	if first.Reason != "" {
		reason = fmt.Sprintf(" (%q)", first.Reason)
	}
	return fmt.Errorf("generation %d is a %s by %s at %s%s: %w; look at it and try again",
		generation, first.Kind, Escape(first.Author), first.Time.Format(time.RFC3339), reason, ErrConflict)
}

// UnknownError says that a change was written, or not: the store did not answer, or was
// not waited for.
type UnknownError struct {
	Generation uint64 // that it would have
	ID         string // likewise: a release that has it is the one
	Err        error
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("whether generation %d is released is not known; look at what is released before you change it again: %v", e.Generation, e.Err)
}

// Unwrap returns why.
func (e *UnknownError) Unwrap() error { return e.Err }

func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}
