package live

import (
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
	// ErrFull is the class of every error that says that there is no room for what was to be
	// upserted or set, until a snapshot has it. What it was appended with and needs no room was
	// written, see [PartialError].
	ErrFull = errors.New("there is no room, and a rebuild is due")
	// ErrEventConflict is the class of every error that says that an event's id is that of
	// another event. Nothing of what it was appended with was written.
	ErrEventConflict = errors.New("the event id is that of another event")
	// ErrUnconfirmed is the class of every error that says that events may have been written,
	// or may yet be: the store has not said. Appended again under the same ids those that
	// were count once.
	ErrUnconfirmed = errors.New("the store has not confirmed the events")
)

// FullError says what there is no room for. Its class is [ErrFull].
type FullError struct {
	Index int    // which of the events
	What  string // "bytes", "apps", "users", or what a record has too many of
	// Model and ModelVersion are those of rows.
	Model, ModelVersion string
	Have, Room          int64 // how many there would be with the event, and may be
}

func (e *FullError) Error() string {
	of := ""
	if e.ModelVersion != "" {
		of = fmt.Sprintf(" of model %.80q, version %.80q", e.Model, e.ModelVersion)
	}
	return fmt.Sprintf("%v: with it there would be %d %s%s; accepted: up to %d", ErrFull, e.Have, e.What, of, e.Room)
}

// Unwrap returns the class.
func (e *FullError) Unwrap() error { return ErrFull }

// PartialError says that some of the events of an append are in the log, and others are not,
// since there is no room for those. Appended again under the same ids, each counts once, and
// they amount to the same as if all had been appended at once.
type PartialError struct {
	Err     error   // why, of class [ErrFull] or [ErrUnconfirmed]
	Missing []int   // which of the events are not in the log, ascending
	All     int     // how many there are
	Receipt Receipt // of the others
}

func (e *PartialError) Error() string {
	return fmt.Sprintf("not written of the %d events: %s, counted from 0; all others are in the log, up to %s: %v", e.All, ranges(e.Missing), describe(e.Receipt.Position), e.Err)
}

// Unwrap returns why.
func (e *PartialError) Unwrap() error { return e.Err }

// ranges names numbers that ascend, of many the first.
func ranges(list []int) string {
	const most = 8
	var texts []string
	for i := 0; i < len(list); {
		if len(texts) == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		text := fmt.Sprint(list[i])
		if j > i {
			text += fmt.Sprintf(" to %d", list[j])
		}
		texts, i = append(texts, text), j+1
	}
	return strings.Join(texts, ", ")
}

// EventConflictError says which event has the id of another. Its class is
// [ErrEventConflict].
type EventConflictError struct {
	Index    int // which of the events
	ID       string
	Position shard.Position // of the other; zero if it is not in the log yet
	Within   bool           // the other is another one of the events, Other
	Other    int
}

func (e *EventConflictError) Error() string {
	where := "in " + describe(e.Position)
	switch {
	case e.Within:
		where = fmt.Sprintf("events[%d]", e.Other)
	case e.Position.Sequence == 0:
		where = "which is written at this time"
	}
	return fmt.Sprintf("event_id %q: %v, %s", e.ID, ErrEventConflict, where)
}

// Unwrap returns the class.
func (e *EventConflictError) Unwrap() error { return ErrEventConflict }

// Receipt says where appended events are.
type Receipt struct {
	Position shard.Position // that has all of them
	Repeated int            // how many had been appended before, and count once
}

// maxPerRecord is how many attributes a record may have, and how many model versions.
const maxPerRecord = 4096

// unit is what one Append appends: all of it in one entry, or nothing.
type unit struct {
	ctx     context.Context
	events  []Event
	changes [][]byte
	hashes  []pastEvent
	size    int // bytes, encoded
	urgent  bool
	asked   time.Time    // when it was handed over
	done    chan outcome // holds one

	writing bool // guarded by the queue: it is in an entry that is being appended
	left    bool // guarded by the queue: nobody waits for it
}

type outcome struct {
	receipt Receipt
	err     error
}

// Append appends events, and returns when all of them are durable and the view has them: all
// or, after an error, none, unless the error is of class [ErrUnconfirmed], or a
// [*PartialError]. Other errors of events are of class [ErrEvent], [ErrEventConflict],
// [ErrFull], or what Options.Check has returned; [appendlog.IsBroken] tells those of a log that
// is not the one which is followed.
//
// Want of room keeps back what needs it, and nothing else: all that is to be upserted; if
// there is no room for what is to be set either, that too; and what is set later of an id of
// those. What the events themselves remove or forget again needs no room. On a full disk a
// folder gives up its reserve for takedowns, restorations and what forgets, and for whatever
// else they are appended with and needs no room.
//
// Events of appends that come at a time share an entry, in which takedowns, restorations and
// what forgets come first, with what they were appended with. Append returns when ctx ends,
// or Options.Timeout is over where ctx has no deadline. Run must be running.
func (r *Replica) Append(ctx context.Context, events []Event) (Receipt, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.o.Timeout)
		defer cancel()
	}
	u, err := r.unit(ctx, events)
	if err == nil {
		err = r.queue.add(u)
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("append to the live log: %w", err)
	}
	var o outcome
	select {
	case o = <-u.done:
	case <-ctx.Done():
		o = r.queue.leave(u)
	}
	if o.err != nil {
		return Receipt{}, fmt.Errorf("append to the live log: %w", o.err)
	}
	return o.receipt, nil
}

// unit returns what is to be appended, encoded.
func (r *Replica) unit(ctx context.Context, events []Event) (*unit, error) {
	if len(events) < 1 || len(events) > MaxEvents {
		return nil, wrong("events", "there are %d; accepted: 1 to %d", len(events), MaxEvents)
	}
	u := &unit{ctx: ctx, events: slices.Clone(events), asked: time.Now(), done: make(chan outcome, 1)}
	for i := range u.events {
		e := &u.events[i]
		if e.Author == "" {
			e.Author = r.o.Author
		}
		if e.ID == "" {
			e.ID = newID()
		}
		change, err := e.check()
		if err != nil {
			return nil, at(err, i)
		}
		if e.Tower == shard.Users && r.o.WithoutKey {
			return nil, errWithoutKey
		}
		if e.Kind == Forget && e.Entity != "" {
			var key []byte
			err := r.bucket.Spend(func() (err error) {
				key, err = r.key(ctx)
				return err
			})
			if err != nil {
				return nil, err
			}
			e.User, e.Key = HashUser(key, e.Entity), newHashKeys(key).name()
			if change, err = e.encode(); err != nil {
				return nil, at(wrong("event", "%w", err), i)
			}
		}
		u.changes = append(u.changes, change)
		u.hashes = append(u.hashes, pastEvent{hashEventID(e.ID), contentHash(change)})
		u.size += len(change) + len(e.ID) + len(e.Author) + 16
		u.urgent = u.urgent || e.Kind == Takedown || e.Kind == Restore || e.Kind == Forget
	}
	if u.size > MaxAppend {
		return nil, wrong("events", "they have %d bytes, encoded; accepted: up to %d", u.size, MaxAppend)
	}
	return u, nil
}

// at says which event an error is about.
func at(err error, index int) error {
	var wrong *EventError
	if errors.As(err, &wrong) {
		wrong.Index = index
	}
	return err
}

func newID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

// key returns the store's key, and makes one if there is none.
func (r *Replica) key(ctx context.Context) ([]byte, error) {
	r.mu.Lock()
	known := r.state.key
	r.mu.Unlock()
	if known != nil {
		return known.key, nil
	}
	key, err := Key(ctx, r.bucket)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return key, r.state.SetKey(key)
}

// commits appends what waits, entry by entry, until ctx ends.
func (r *Replica) commits(ctx context.Context) {
	for ctx.Err() == nil {
		units := r.queue.take()
		if len(units) == 0 {
			select {
			case <-r.queue.news:
				continue
			case <-ctx.Done():
				return
			}
		}
		r.commit(ctx, units)
	}
}

// commit appends one entry with what it can of units, and waits until it is another's turn,
// or its own again. What lost to another writer goes back to the queue.
func (r *Replica) commit(ctx context.Context, units []*unit) {
	r.committing.Lock()
	defer r.committing.Unlock()
	writing, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	if units = r.fitting(units); len(units) == 0 {
		return
	}
	e := r.compose(units, false, nil)
	if e.full {
		// What others have freed counts, though it may not be known here yet.
		if err := r.catchUp(writing); err != nil {
			r.notWritten(ctx, e.open, err)
			return
		}
		e = r.compose(e.open, true, nil)
	}
	if len(e.units) == 0 {
		return
	}
	asked := time.Now()
	data, err := r.extend(writing, e)
	if r.bucket.Dir() != "" && objects.IsFull(err) {
		if e = r.spare(ctx, e, err); len(e.units) == 0 {
			return
		}
		err = r.bucket.Spend(func() (err error) {
			data, err = r.extend(writing, e)
			return err
		})
	}
	took := time.Since(asked)
	conflict := (*appendlog.ConflictError)(nil)
	switch {
	case err == nil:
		if err := r.appended(ctx, e, data); err != nil {
			finish(e.units, outcome{err: fmt.Errorf("%w: %w", ErrUnconfirmed, err)})
			return
		}
		r.bucket.KeepReserve()
		if entries, bound := r.turns.won(took, r.rivals()); entries > 0 {
			r.yield(ctx, entries, bound)
		}
	case errors.As(err, &conflict):
		if err := r.takeAll(ctx, conflict.Entries); errors.Is(err, errAccepted) {
			r.log.Hint() // who watches reads the log anew
		} else if err != nil {
			finish(e.units, outcome{err: fmt.Errorf("nothing was written: %w", err)})
			return
		}
		r.queue.again(e.units)
		rest(ctx, r.turns.lost(took))
	default:
		r.notWritten(ctx, e.units, err)
	}
}

// extend appends an entry to the log of the store, and returns its bytes.
func (r *Replica) extend(ctx context.Context, e *composed) ([]byte, error) {
	data, err := e.commit.encode()
	if err == nil {
		err = r.log.Extend(ctx, appendlog.Position(e.after), e.proved, data, r.turns.few(r.rivals()))
	}
	return data, err
}

// spare ends what the reserve of a full disk is not for, and returns an entry of the rest.
func (r *Replica) spare(ctx context.Context, e *composed, full error) *composed {
	var urgent, others []*unit
	for _, u := range e.units {
		if u.urgent {
			urgent = append(urgent, u)
		} else {
			others = append(others, u)
		}
	}
	r.notWritten(ctx, others, full)
	return r.compose(urgent, true, fmt.Errorf("%w: %w", ErrUnconfirmed, full))
}

// notWritten ends units that could not be appended, or has them wait until the log was read
// anew.
func (r *Replica) notWritten(ctx context.Context, units []*unit, err error) {
	restored := (*appendlog.RestoredError)(nil)
	switch {
	case errors.As(err, &restored), errors.Is(err, appendlog.ErrCompacted):
		r.log.Hint() // who watches reads the log anew
		r.queue.again(units)
		rest(ctx, r.log.Poll())
	case appendlog.IsBroken(err):
		finish(units, outcome{err: fmt.Errorf("nothing was written: %w", err)})
	default:
		finish(units, outcome{err: fmt.Errorf("%w: %w", ErrUnconfirmed, err)})
	}
}

// catchUp applies what others have appended, to where the log ended at some moment since.
func (r *Replica) catchUp(ctx context.Context) error {
	for {
		entries, ended, err := r.log.Look(ctx, r.at())
		if err == nil {
			err = r.takeAll(ctx, entries)
		}
		if err != nil || ended {
			return err
		}
	}
}

// appended applies an entry of the replica's own, which is durable, and tells those who wait.
func (r *Replica) appended(ctx context.Context, e *composed, data []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	sequence := e.after.Sequence + 1
	if err := r.take(context.WithoutCancel(ctx), appendlog.Entry{Sequence: sequence, Data: data}); err != nil {
		return err
	}
	r.settled = sequence
	for i, u := range e.units {
		u.done <- e.outcome(i, Receipt{shard.Position{Log: e.commit.Log, Sequence: sequence}, e.repeated[i]})
	}
	if r.tail.due() {
		select {
		case r.due <- struct{}{}:
		default:
		}
	}
	return nil
}

// takeAll applies entries that others have appended.
func (r *Replica) takeAll(ctx context.Context, entries []appendlog.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if err := r.take(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func finish(units []*unit, o outcome) {
	for _, u := range units {
		u.done <- o
	}
}

// fitting returns the units whose events fit, as far as they are not in the log already, and
// tells the others that they do not.
func (r *Replica) fitting(units []*unit) []*unit {
	return slices.DeleteFunc(units, func(u *unit) bool {
		for i := range u.events {
			r.mu.Lock()
			_, _, repeated := r.state.past.find(u.hashes[i].id)
			r.mu.Unlock()
			if repeated {
				continue
			}
			if err := r.o.Check(&u.events[i]); err != nil {
				u.done <- outcome{err: at(err, i)}
				return true
			}
		}
		return false
	})
}
