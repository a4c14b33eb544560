package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/overlay"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// storeLog is the live log of a store, which this process appends to.
type storeLog struct {
	store   *snapshots.Store
	replica *live.Replica
	served  *served
}

// openStoreLog reads the live log of a store to its end. One that is behind what releases and
// snapshots of the store say of it is an error: nothing is appended to an older copy.
func openStoreLog(e *environment, f *liveWriteFlags, author string) (_ *storeLog, err error) {
	if f.NewStore { // as a build does
		if dir, is, err := objects.Folder(f.Store); err == nil && is {
			if err := objects.MakeDir(dir); err != nil {
				return nil, fmt.Errorf("make store: %w", err)
			}
		}
	}
	store, err := snapshots.OpenStore(e.ctx, f.Store, f.cacheFlags.options())
	if err != nil {
		return nil, err
	}
	l := &storeLog{store: store, served: &served{releases: release.New(store)}}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	if err := isStore(e.ctx, store); err != nil && !f.NewStore {
		return nil, fmt.Errorf("%w; a new store takes --new-store", err)
	}
	bound, err := l.served.releases.LiveBound(e.ctx)
	if err != nil {
		return nil, err
	}
	l.replica, err = e.openReplica(store, live.Options{
		Author: author, Check: l.served.check,
		AtLeast: live.Position{Log: bound.Position.Log, Sequence: bound.Position.Sequence}, AtLeastFrom: bound.By,
	})
	if err == nil {
		l.replica.Read(e.notePassed)
	}
	return l, err
}

// errNoStore is the class of every error that says that there is nothing of a store where one
// is meant.
var errNoStore = errors.New("there is no store")

// isStore returns an error if a store has neither a snapshot, nor a release, nor a live log, nor a
// build in steps, whose rows may be about whom somebody forgets. It is a folder that is no store
// then, such as one on which nothing is mounted, and what is written there reaches no server.
func isStore(ctx context.Context, store *snapshots.Store) error {
	for _, prefix := range []string{"snapshots/", "releases/", "live/", "builds/"} {
		for _, err := range store.Objects().List(ctx, prefix) {
			return err // nil of the first object
		}
	}
	return fmt.Errorf("%s: %w: it has no snapshot, no release, no live log and no build; is it mounted, and the right one?", store.Objects().Location(), errNoStore)
}

// Close implements [io.Closer].
func (l *storeLog) Close() error { return l.store.Close() }

// served is what is released, which events must fit. It reads that when it is first needed: a
// takedown needs none of it. It is for one goroutine at a time.
type served struct {
	releases *release.Releases

	read   bool
	model  string
	shapes []overlay.Served
}

// know reads what is released, if that is not known yet.
func (s *served) know(ctx context.Context) error {
	if s.read {
		return nil
	}
	now, _, err := s.releases.Newest(ctx)
	switch {
	case errors.Is(err, release.ErrNone):
		s.read = true
		return nil
	case err != nil:
		return fmt.Errorf("what is released, which the event must fit: %w", err)
	}
	s.model = now.Model
	for _, a := range now.Arms {
		m, err := s.releases.Store().Manifest(ctx, a.Snapshot)
		if err != nil {
			return fmt.Errorf("arm %s, which the event must fit: %w", a.Name, err)
		}
		s.shapes = append(s.shapes, overlay.Served{Name: fmt.Sprintf("arm %s, of %s at %s", a.Name, m.Model, m.ModelVersion), Shape: &overlay.Shape{
			Model: m.Model, ModelVersion: m.ModelVersion, Dim: m.Dim, Metric: m.Metric, Apps: m.Apps.Schema, Users: m.Users.Schema,
		}})
	}
	s.read = true
	return nil
}

// event returns an event of the contract. A model that is left out is the one that is
// released.
func (s *served) event(ctx context.Context, m *tandemv1.LiveEvent) (live.Event, error) {
	e, err := wire.Event(m)
	if err == nil && (e.Kind == live.Upsert || e.Kind == live.SetAttributes) {
		if err := s.know(ctx); err != nil {
			return e, err
		}
	}
	if err == nil && e.Kind == live.Upsert && e.Model == "" {
		if e.Model = s.model; e.Model == "" {
			err = &live.EventError{Field: "model", Err: errors.New("it is left out, and nothing is released whose model could be meant; accepted: the name of a model")}
		}
	}
	if err == nil {
		err = e.Check()
	}
	return e, pathed(m, err)
}

// pathed returns an error that names a field of what an event changes with one that names it
// within the event.
func pathed(m *tandemv1.LiveEvent, err error) error {
	wrong, ok := errors.AsType[*live.EventError](err)
	if !ok {
		return err
	}
	return &live.EventError{Field: wire.Path(m, wrong.Field), Err: wrong.Err, Index: wrong.Index}
}

// check returns an error unless an event fits every snapshot that is released, and in which
// it would count.
func (s *served) check(e *live.Event) error {
	if e.Kind != live.Upsert && e.Kind != live.SetAttributes {
		return nil
	}
	if err := s.know(context.Background()); err != nil {
		return err
	}
	return overlay.FitsServed(s.shapes, e)
}

// has reports whether a snapshot of a model version is released.
func (s *served) has(model, version string) bool {
	return slices.ContainsFunc(s.shapes, func(a overlay.Served) bool { return a.Model == model && a.ModelVersion == version })
}

// liveLogInfo is where the live log of a store stands, and what it amounts to, for people and
// as JSON.
type liveLogInfo struct {
	Position   shard.Position  `json:"position"`
	Hash       string          `json:"hash,omitempty"` // of the entry there
	Digest     string          `json:"digest"`
	Checkpoint uint64          `json:"checkpoint"` // the last entry that is summed up in one; 0 if there is none
	Objects    liveObjectsInfo `json:"objects"`
	Takedowns  int             `json:"takedowns"`
	Forgotten  int             `json:"forgotten_users"`
	Upserted   []upsertedInfo  `json:"upserted"`
	// RequestsADay is how many requests a server makes at most that looks as often as is the
	// default; 0 in a folder, where they cost nothing.
	RequestsADay int64 `json:"requests_a_day,omitempty"`

	keyless bool // it was read without the key of users who are forgotten
}

// liveObjectsInfo is what the log takes in the store.
type liveObjectsInfo struct {
	Entries         int   `json:"entries"`
	EntryBytes      int64 `json:"entry_bytes"`
	CheckpointBytes int64 `json:"checkpoint_bytes"`
}

// upsertedInfo is what was upserted for one model version.
type upsertedInfo struct {
	Model        string    `json:"model"`
	ModelVersion string    `json:"model_version"`
	Apps         int       `json:"apps"`
	Users        int       `json:"users"`
	Bytes        int64     `json:"bytes"`
	Since        time.Time `json:"since"`
	Pending      bool      `json:"pending"` // no snapshot of it is released
}

// readLiveLog reads the live log of a store.
func readLiveLog(e *environment, f *liveFlags) (_ *liveLogInfo, err error) {
	store, err := snapshots.OpenStore(e.ctx, f.Store, f.cacheFlags.options())
	if err != nil {
		return nil, err
	}
	defer closing(&err, store)
	if err := isStore(e.ctx, store); err != nil {
		return nil, err
	}
	state, keyless, err := e.readLiveAnyway(store)
	if err != nil {
		return nil, err
	}
	at := state.Position()
	info := &liveLogInfo{
		keyless:  keyless,
		Position: at.Shard(), Digest: state.Digest().String(), Takedowns: state.TakenDown().Len(), Forgotten: state.Forgotten().Len(), Upserted: []upsertedInfo{},
	}
	if !at.Hash.IsZero() {
		info.Hash = at.Hash.String()
	}
	if err := info.measure(e.ctx, store); err != nil {
		return nil, err
	}
	released := &served{releases: release.New(store)}
	if err := released.know(e.ctx); err != nil {
		return nil, err
	}
	for _, p := range state.Fresh() {
		info.Upserted = append(info.Upserted, upsertedInfo{p.Model, p.ModelVersion, p.Apps, p.Users, p.Bytes, p.Since, !released.has(p.Model, p.ModelVersion)})
	}
	if store.Objects().Dir() == "" {
		info.RequestsADay = requestsADay(live.DefaultPoll)
	}
	return info, nil
}

// measure counts the objects of the log. Those that are deleted meanwhile are counted or not.
func (i *liveLogInfo) measure(ctx context.Context, store *snapshots.Store) error {
	for o, err := range store.Objects().List(ctx, "live/") {
		if err != nil {
			return err
		}
		name, isEntry := strings.CutSuffix(strings.TrimPrefix(o.Key, "live/"), ".log")
		number, isCheckpoint := strings.CutPrefix(name, "checkpoints/")
		if !isEntry {
			continue
		}
		if !isCheckpoint {
			i.Objects.Entries++
			i.Objects.EntryBytes += o.Size
			continue
		}
		var sequence uint64
		if _, err := fmt.Sscanf(number, "%d", &sequence); err == nil {
			i.Checkpoint = max(i.Checkpoint, sequence)
		}
		i.Objects.CheckpointBytes += o.Size
	}
	return nil
}

// requestsADay returns how many requests a server makes in a day that looks so often: a look
// is two.
func requestsADay(poll time.Duration) int64 { return int64(2 * 24 * time.Hour / poll) }

// dollarsADay is what so many requests cost at the public list price of a GET on S3.
func dollarsADay(requests int64) float64 { return float64(requests) * 0.0004 / 1000 }

// pollText says what looking costs.
func pollText(poll time.Duration) string {
	n := requestsADay(poll)
	return fmt.Sprintf("up to %s requests a day of a server that looks every %s, %.2f USD at the list price of S3; of 10 servers %.2f USD, of 1,000 %.2f USD",
		wording.Count(n), poll, dollarsADay(n), dollarsADay(10*n), dollarsADay(1000*n))
}

// write writes it for people.
func (i *liveLogInfo) write(w io.Writer) error {
	t := newTable(w)
	position := i.Position.String()
	if i.Hash != "" {
		position += fmt.Sprintf(", entry %.12s", i.Hash)
	}
	fmt.Fprintf(t, "position\t%s\n", release.Escape(position))
	fmt.Fprintf(t, "digest\t%.12s\n", i.Digest)
	summed := "none"
	if i.Checkpoint > 0 {
		summed = fmt.Sprintf("of entries 1 to %d, %s", i.Checkpoint, wording.Bytes(i.Objects.CheckpointBytes))
	}
	fmt.Fprintf(t, "checkpoint\t%s\n", summed)
	fmt.Fprintf(t, "entries\t%s, %s\n", wording.Count(i.Objects.Entries), wording.Bytes(i.Objects.EntryBytes))
	fmt.Fprintf(t, "takedowns\t%s\n", wording.Count(i.Takedowns))
	fmt.Fprintf(t, "forgotten\t%s\n", wording.Count(i.Forgotten))
	for n, u := range i.Upserted {
		name, pending := "", ""
		if n == 0 {
			name = "upserted"
		}
		if u.Pending {
			pending = "; no snapshot of it is released"
		}
		fmt.Fprintf(t, "%s\t%s at %s: %s, %s, %s, since %s%s\n", name, release.Escape(u.Model), release.Escape(u.ModelVersion),
			wording.Plural(u.Apps, "app"), wording.Plural(u.Users, "user"), wording.Bytes(u.Bytes), u.Since.Format(time.RFC3339), pending)
	}
	if i.RequestsADay > 0 {
		fmt.Fprintf(t, "polls\t%s\n", pollText(live.DefaultPoll))
	}
	return t.Flush()
}

// storeProofs returns what the live log of the store says of each app that is to be proved.
func (c *liveProveCommand) storeProofs(e *environment) (_ []appProofInfo, err error) {
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return nil, err
	}
	defer closing(&err, store)
	if err := isStore(e.ctx, store); err != nil {
		return nil, err
	}
	asked := time.Now()
	state, _, err := e.readLiveAnyway(store)
	if err != nil {
		return nil, err
	}
	at, down := state.Position().Shard(), state.TakenDown()
	list := make([]appProofInfo, len(c.Apps))
	for i, app := range c.Apps {
		p := &list[i]
		p.Server, p.App, p.Position, p.age = "the store", app, &at, time.Since(asked)
		age := p.age.Seconds()
		p.Staleness = &age
		d, ok := down.Get(app)
		if !ok {
			p.Why = fmt.Sprintf("it is not taken down at position %s", at)
			continue
		}
		p.Proved = true
		p.Takedown = &takedownInfo{shard.Position{Log: at.Log, Sequence: d.Sequence}, d.Time, d.Reason, d.Author}
	}
	return list, nil
}

// readLive reads the live log of a store.
func (e *environment) readLive(store *snapshots.Store) (*live.State, error) {
	log, err := live.Read(e.ctx, store.Objects())
	if err == nil {
		e.notePassed(log)
	}
	return log, err
}

// readLiveAnyway reads the live log of a store for those who need not know who is forgotten:
// where the key of those users cannot be used it says so, and reads on without.
func (e *environment) readLiveAnyway(store *snapshots.Store) (log *live.State, keyless bool, err error) {
	log, err = e.readLive(store)
	if !errors.Is(err, live.ErrNoKey) {
		return log, false, err
	}
	e.noteNoKey(err)
	if log, err = live.ReadWithoutKey(e.ctx, store.Objects()); err == nil {
		e.notePassed(log)
	}
	return log, true, err
}

// openReplica opens the live log of a store to write to it; without the key of users who are
// forgotten, where that cannot be used: takedowns do not wait for it.
func (e *environment) openReplica(store *snapshots.Store, o live.Options) (*live.Replica, error) {
	replica, err := live.Open(e.ctx, store.Objects(), o)
	if errors.Is(err, live.ErrNoKey) {
		e.noteNoKey(err)
		o.WithoutKey = true
		replica, err = live.Open(e.ctx, store.Objects(), o)
	}
	return replica, err
}

// noteNoKey says that the key of users who are forgotten cannot be used.
func (e *environment) noteNoKey(err error) {
	fmt.Fprintf(e.stderr, "warning: %s: until then no server that starts is ready, and here only apps can be read and written\n", err)
}

// notePassed says which checkpoints of the live log are damaged and were passed over.
func (e *environment) notePassed(s *live.State) {
	if err := s.Passed(); err != nil {
		fmt.Fprintf(e.stderr, "warning: %s: it was passed over, and the entries that it sums up were read\n", err)
	}
}
