package release

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
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
	store *shard.Store
	log   *appendlog.Log
	// Judge says what the gates of a snapshot have found. Nil asks nobody.
	Judge func(context.Context, shard.Digest) (Verdict, error)
}

// Verdict is what the gates of a snapshot have found.
type Verdict struct {
	Failed    error           // says which failed and why; nil if none did
	Off       []string        // the gates that were off
	Undecided []UndecidedGate // those that did not run, or found nothing either way
	Compared  bool            // whether they compared it with a previous snapshot
}

// New returns the releases of a store.
func New(store *shard.Store) *Releases {
	return &Releases{store: store, log: appendlog.New(store.Objects(), appendlog.Options{Prefix: "releases", Links: links})}
}

// Store returns the store that the releases are of.
func (r *Releases) Store() *shard.Store { return r.store }

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
	return 0, fmt.Errorf("store %s: %w; mount it, or restore it; tandem release start --restored begins it anew", r.store.Location(), ErrLost)
}

// noteBegun notes that something was released. What fails here the next change does.
func (r *Releases) noteBegun(ctx context.Context) {
	if _, err := r.store.Objects().Stat(ctx, begunKey); errors.Is(err, objects.ErrNotFound) {
		_ = r.store.Objects().Create(ctx, begunKey, nil)
	}
}

// goOn adds to an error that says that what was released last cannot be read how to go
// on without it.
func (r *Releases) goOn(ctx context.Context, err error) error {
	if u := (*UnreadableError)(nil); !errors.As(err, &u) {
		return err
	}
	newest, _, readErr := r.Newest(ctx)
	if readErr != nil {
		return err // there is nothing to go back to
	}
	return fmt.Errorf("%w; tandem release rollback --to %d goes on without it", err, newest.Generation)
}

// Live returns the snapshots of the last ten releases: those that must not be
// collected, since they serve, or a rollback may bring them back at once. It fails where
// the log shows that it does not show all of that: if one of the last ten generations
// cannot be read, which a newer Tandem may, or is missing, or is another one than the next
// was appended to. What a person has accepted by a later release (see Change.Restored) is
// passed over, and releases before it count.
func (r *Releases) Live(ctx context.Context) ([]shard.Digest, error) {
	var list []shard.Digest
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
	// Override is why a snapshot is released whatever its gates say; empty if it is
	// not.
	Override string
	// Restored says that a person accepts the log as it is, restored from a copy or
	// broken, for the one that counts: servers that have followed another one follow this
	// one from here on.
	Restored bool
}

// StartOptions say how a snapshot begins to serve.
type StartOptions struct {
	Change
	Snapshot shard.Digest
	// Arm is the name of the new arm. Default: control for the first release, else
	// candidate.
	Arm string
	// Weight is the arm's share of traffic, per mille, which the others give up in
	// proportion. The first release takes all, whatever Weight is.
	Weight int
}

// Start adds an arm that serves a snapshot. The first release begins an experiment with
// a salt of its own; so does a start beside a single arm.
func (r *Releases) Start(ctx context.Context, o StartOptions) (*Release, error) {
	protect := func(ctx context.Context, _ *Release) (*shard.Protection, error) {
		return r.store.Protect(ctx, o.Snapshot)
	}
	return r.change(ctx, o.Change, Started, protect, func(ctx context.Context, next *Release) error {
		m, err := r.servable(ctx, o.Snapshot)
		if err != nil {
			return err
		}
		v, err := r.passes(ctx, next, o.Snapshot, o.Override)
		if err != nil {
			return err
		}
		arm := Arm{Name: o.Arm, Snapshot: o.Snapshot, ModelVersion: m.ModelVersion, GatesOff: v.Off, GatesUndecided: v.Undecided}
		weights := []int{Total}
		if len(next.Arms) == 0 {
			next.Model = m.Model
			if arm.Name == "" {
				arm.Name = Control
			}
		} else {
			if next.Model != m.Model {
				return fmt.Errorf("snapshot %s is of model %s, %s serves: %w", o.Snapshot.Short(), m.Model, next.Model, ErrChange)
			}
			if arm.Name == "" {
				arm.Name = Candidate
			}
			if next.Arm(arm.Name) != nil {
				return fmt.Errorf("there is an arm %s already; promote it, roll back, or name another: %w", arm.Name, ErrChange)
			}
			if o.Weight < 0 || o.Weight > Total {
				return fmt.Errorf("weight is %d; accepted: 0 to %d per mille: %w", o.Weight, Total, ErrChange)
			}
			weights = append(shrink(next.Arms, o.Weight), o.Weight)
		}
		if len(next.Arms) <= 1 {
			next.Salt = newID()
		}
		next.Arms = append(next.Arms, arm)
		divide(next.Arms, weights)
		return nil
	})
}

// servable returns the manifest of a snapshot that is there, with shards of the right
// sizes. Servers would find out, and keep what they have; but the log would say otherwise.
func (r *Releases) servable(ctx context.Context, d shard.Digest) (*shard.Manifest, error) {
	m, err := r.store.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := r.store.CheckShards(ctx, m); err != nil {
		return nil, fmt.Errorf("snapshot %s cannot be served: %w; tandem snapshot verify finds all that is wrong with it", d.Short(), err)
	}
	return m, nil
}

// passes returns an error unless a snapshot's gates let it be released beside what
// serves, or an override does, and what they found.
func (r *Releases) passes(ctx context.Context, now *Release, d shard.Digest, override string) (v Verdict, err error) {
	if r.Judge == nil {
		return v, nil
	}
	v, err = r.Judge(ctx, d)
	if err == nil {
		err = v.Failed
	}
	if err == nil && !v.Compared {
		err = uncompared(now, d)
	}
	if err != nil && override == "" {
		return v, fmt.Errorf("snapshot %s: %w: %w", d.Short(), ErrGates, err)
	}
	return v, nil
}

// uncompared returns an error for a snapshot that no gate compared with another, unless
// there is none to compare it with: nothing serves, or it serves already.
func uncompared(now *Release, d shard.Digest) error {
	if len(now.Arms) == 0 || slices.ContainsFunc(now.Arms, func(a Arm) bool { return a.Snapshot == d }) {
		return nil
	}
	most := slices.MaxFunc(now.Arms, func(a, b Arm) int { return cmp.Compare(a.Weight, b.Weight) })
	return fmt.Errorf("its gates compared it with no previous snapshot while %s is released; run tandem gate", most.Snapshot.Short())
}

// SplitOptions say how traffic is divided anew.
type SplitOptions struct {
	Change
	// Weights are per mille, by the name of the arm. Those of the others are scaled to
	// what is left. An arm of weight 0 serves those who are pinned to it, or to its
	// model version.
	Weights map[string]int
	// Pins are keys that fall into an arm from now on, and Unpin those that no longer
	// do.
	Pins  map[string][]string
	Unpin []string
	// Remove are the names of arms that end.
	Remove []string
}

// Split divides the traffic anew.
func (r *Releases) Split(ctx context.Context, o SplitOptions) (*Release, error) {
	return r.change(ctx, o.Change, Divided, nil, func(_ context.Context, next *Release) error {
		for name := range o.Weights {
			if next.Arm(name) == nil {
				return unknownArm(next, name)
			}
		}
		for name := range o.Pins {
			if next.Arm(name) == nil {
				return unknownArm(next, name)
			}
		}
		if len(o.Weights) == 0 && len(o.Pins) == 0 && len(o.Unpin) == 0 && len(o.Remove) == 0 {
			return fmt.Errorf("no weight and no pin is given: %w", ErrChange)
		}
		weights, err := o.weights(next)
		if err != nil {
			return err
		}
		divide(next.Arms, weights)
		for i := range next.Arms {
			a := &next.Arms[i]
			gone := slices.Clone(o.Unpin)
			for _, keys := range o.Pins {
				gone = append(gone, keys...)
			}
			a.Pins = slices.DeleteFunc(slices.Clone(a.Pins), func(key string) bool { return slices.Contains(gone, key) })
			a.Pins = append(a.Pins, o.Pins[a.Name]...)
			slices.Sort(a.Pins)
			a.Pins = slices.Compact(a.Pins)
		}
		for _, name := range o.Remove {
			if next.Arm(name) == nil {
				return unknownArm(next, name)
			}
			next.Arms = slices.DeleteFunc(next.Arms, func(a Arm) bool { return a.Name == name })
		}
		return nil
	})
}

// weights returns the weight of each arm.
func (o *SplitOptions) weights(next *Release) ([]int, error) {
	given, rest := 0, 0
	var others []Arm
	for _, a := range next.Arms {
		w, ok := o.Weights[a.Name]
		if slices.Contains(o.Remove, a.Name) {
			w, ok = 0, true
		}
		switch {
		case ok && (w < 0 || w > Total):
			return nil, fmt.Errorf("the weight of arm %s is %d; accepted: 0 to %d per mille: %w", a.Name, w, Total, ErrChange)
		case ok:
			given += w
		default:
			others = append(others, a)
			rest += a.Weight
		}
	}
	if given > Total || given < Total && rest == 0 {
		return nil, fmt.Errorf("the weights add up to %d per mille, and no other arm has traffic; accepted: %d: %w", given, Total, ErrChange)
	}
	// Scaled to the whole first, so that shrink keeps the proportions.
	whole := slices.Clone(others)
	left := Total
	for i := range whole {
		whole[i].Weight = others[i].Weight * Total / max(rest, 1)
		left -= whole[i].Weight
	}
	for i := range whole {
		if left > 0 && others[i].Weight > 0 {
			whole[i].Weight++
			left--
		}
	}
	scaled := shrink(whole, given)
	weights := make([]int, 0, len(next.Arms))
	for _, a := range next.Arms {
		w, ok := o.Weights[a.Name]
		if !ok && !slices.Contains(o.Remove, a.Name) {
			w, scaled = scaled[0], scaled[1:]
		} else if slices.Contains(o.Remove, a.Name) {
			w = 0
		}
		weights = append(weights, w)
	}
	return weights, nil
}

func unknownArm(r *Release, name string) error {
	var names []string
	for _, a := range r.Arms {
		names = append(names, a.Name)
	}
	return fmt.Errorf("there is no arm %s; there are: %s: %w", name, strings.Join(names, ", "), ErrChange)
}

// Promote gives one arm all traffic; the others end, and it is named control. Arm may be
// empty where there are two: the one that is not control.
func (r *Releases) Promote(ctx context.Context, c Change, arm string) (*Release, error) {
	return r.change(ctx, c, Promoted, nil, func(_ context.Context, next *Release) error {
		if arm == "" {
			others := slices.DeleteFunc(slices.Clone(next.Arms), func(a Arm) bool { return a.Name == Control })
			if len(others) != 1 {
				return fmt.Errorf("%d arms could be promoted; name one: %w", len(others), ErrChange)
			}
			arm = others[0].Name
		}
		promoted := next.Arm(arm)
		if promoted == nil {
			return unknownArm(next, arm)
		}
		one := []Arm{*promoted}
		one[0].Name, one[0].Pins = Control, nil
		divide(one, []int{Total})
		next.Arms = one
		return nil
	})
}

// Rollback brings the state of an earlier generation back, as a new one; 0 means the
// generation before the one that serves. It is the one change that can follow a release
// that cannot be read, and only to a generation that is named. It waits for nobody: if
// the generation is not one of the last ten, and a collection is about to delete what it
// needs, or died when it was, the error is a [*shard.MarkedError].
func (r *Releases) Rollback(ctx context.Context, c Change, to uint64) (*Release, error) {
	// What it goes back to never changes, so it may be read before it is protected.
	if to == 0 {
		now, err := r.Current(ctx)
		if err != nil {
			return nil, fmt.Errorf("rollback: %w", r.goOn(ctx, err))
		}
		if c.Generation == 0 {
			c.Generation = now.Generation
		}
		if to = now.Generation - 1; to == 0 {
			return nil, fmt.Errorf("rollback: generation 1 is the first: %w", ErrChange)
		}
	}
	old, err := r.Get(ctx, to)
	if u := (*UnreadableError)(nil); errors.As(err, &u) || errors.Is(err, ErrChange) {
		return nil, fmt.Errorf("rollback: %w; name another generation, of those that tandem release history lists", err)
	}
	if err != nil {
		return nil, fmt.Errorf("rollback: %w", err)
	}
	var digests []shard.Digest
	for _, a := range old.Arms {
		if !slices.Contains(digests, a.Snapshot) {
			digests = append(digests, a.Snapshot)
		}
	}
	protect := func(ctx context.Context, now *Release) (*shard.Protection, error) {
		if isLive(to, now.Generation) && old.Log == now.Log {
			return nil, nil
		}
		return r.store.TryProtect(ctx, digests...)
	}
	return r.change(ctx, c, RolledBack, protect, func(ctx context.Context, next *Release) error {
		for _, d := range digests {
			if _, err := r.servable(ctx, d); err != nil {
				return err
			}
		}
		next.Of, next.Model, next.Salt, next.Arms = to, old.Model, old.Salt, old.Arms
		return nil
	})
}

// change makes one change to what serves: edit turns what serves now into what is to
// serve next. If it brings snapshots in, protect keeps them from being collected; it may
// return nil.
func (r *Releases) change(ctx context.Context, c Change, kind Kind, protect func(context.Context, *Release) (*shard.Protection, error), edit func(context.Context, *Release) error) (_ *Release, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", kind, err)
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
	if c.Generation != 0 && c.Generation != now.Generation {
		return nil, r.conflict(ctx, c.Generation+1)
	}
	var protection *shard.Protection
	if protect != nil {
		err := r.store.Spend(func() (err error) {
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
		Version: version, Generation: now.Generation + 1, ID: newID(), Previous: now.Hash, Log: now.Log, Kind: kind,
		Time: time.Now().UTC().Truncate(time.Millisecond), Author: c.Author, Reason: c.Reason, Override: c.Override,
		Model: now.Model, Salt: now.Salt, Arms: slices.Clone(now.Arms),
	}
	if c.Restored {
		if next.Log = newLog(next.Time); next.Log <= now.Log {
			return nil, fmt.Errorf("the clock of this machine says %s, before log %.80q began: %w", next.Time.Format(time.RFC3339), now.Log, ErrChange)
		}
	}
	if err := edit(ctx, next); err != nil {
		return nil, err
	}
	data, err := next.Encode()
	if err != nil {
		return nil, err
	}
	next.Hash = appendlog.HashOf(data)
	if protection != nil {
		if err := protection.Held(ctx); err != nil {
			return nil, err
		}
	}
	err = r.store.Spend(func() error { return r.log.Append(ctx, next.Generation, data) })
	if errors.Is(err, appendlog.ErrConflict) {
		return nil, r.conflict(ctx, next.Generation)
	}
	if errors.Is(err, objects.ErrNotDurable) {
		unknown = true
		return nil, fmt.Errorf("generation %d is released, and a crash of the store's machine may undo it; look at what is released before you change it again: %w", next.Generation, err)
	}
	if err != nil && r.store.Objects().Dir() != "" && !errors.Is(err, objects.ErrGone) {
		return nil, err // in a folder, which says what it has done, nothing was
	}
	if err != nil {
		unknown = true
		return nil, fmt.Errorf("whether generation %d is released is not known; look at what is released before you change it again: %w", next.Generation, err)
	}
	r.noteBegun(ctx)
	r.store.KeepReserve()
	return next, nil
}

// conflict says who was first.
func (r *Releases) conflict(ctx context.Context, generation uint64) error {
	first, err := r.Get(ctx, generation)
	if u := (*UnreadableError)(nil); errors.As(err, &u) {
		return fmt.Errorf("%w: %w", err, ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("generation %d is not what serves: %w", generation-1, ErrConflict)
	}
	return fmt.Errorf("generation %d is a %s by %s at %s (%q): %w; look at it and try again",
		generation, first.Kind, Escape(first.Author), first.Time.Format(time.RFC3339), first.Reason, ErrConflict)
}

func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}
