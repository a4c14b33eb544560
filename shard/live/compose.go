package live

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
)

// composed is an entry that is to be appended.
type composed struct {
	commit   Commit
	after    Position
	proved   time.Time
	units    []*unit
	repeated []int           // of each unit: how many of its events are in the log
	partial  []*PartialError // of each unit: what of it is left out; nil if nothing is
	open     []*unit         // all that have not ended
	full     bool            // whether some of these need room that there is not, as far as is known

	ids  map[eventHash]uint64 // the contents of events
	gone map[UserHash]bool    // whether users are forgotten, as far as events say
	held []sized              // what has room reserved
	reservation
}

// outcome returns what became of a unit that is in the log, but for what of it is left out.
func (e *composed) outcome(i int, receipt Receipt) outcome {
	return outcomeOf(e.partial[i], receipt)
}

func outcomeOf(p *PartialError, receipt Receipt) outcome {
	if p == nil {
		return outcome{receipt: receipt}
	}
	p.Receipt = receipt
	return outcome{err: p}
}

// sized is an event, and how many bytes it has.
type sized struct {
	event *Event
	size  int
}

// reservation is the room that an entry takes.
type reservation struct {
	rows  map[modelVersion]*rows        // that it adds
	fresh map[freshRow]bool             // those rows
	sets  map[entityKey]map[string]bool // attributes that it adds to records
	bytes int64                         // about
}

func newReservation() reservation {
	return reservation{rows: map[modelVersion]*rows{}, fresh: map[freshRow]bool{}, sets: map[entityKey]map[string]bool{}}
}

type entityKey struct {
	tower  shard.Kind
	entity string
}

type freshRow struct {
	entityKey
	of modelVersion
}

// compose makes an entry of what is not in the log yet, and ends what need not be, or may
// not. Unless the log is known to its end, or was proved to end where it is known since a unit
// was handed over, one that there is no room for does not end: others may have freed some. If
// nothing that needs room may be written, cramped says why.
func (r *Replica) compose(units []*unit, toTheEnd bool, cramped error) *composed {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	e := &composed{
		after: s.position, proved: r.View().Proof.time(),
		commit: Commit{Previous: s.position.Hash, Log: s.position.Log, Time: r.clock(), Author: r.o.Author, Writer: r.writer},
		ids:    map[eventHash]uint64{}, gone: map[UserHash]bool{}, reservation: newReservation(),
	}
	_, _ = rand.Read(e.commit.nonce[:]) // it never fails
	for _, u := range units {
		last, repeated, fresh, err := e.sort(s, u)
		kept := fresh
		var full error
		if err == nil {
			kept, full = e.room(s, r.o.Room, u, fresh, cramped)
		}
		if errors.Is(full, ErrFull) && !toTheEnd && !e.proved.After(u.asked) {
			e.open, e.full = append(e.open, u), true
			continue
		}
		partial := u.partial(fresh, kept, full)
		if err == nil && len(kept) == 0 && last > r.settled {
			// Others may have written it, and died before they knew that it outlasts a crash.
			if err = r.bucket.Settle("live/"); err != nil {
				err = fmt.Errorf("%w: %w", ErrUnconfirmed, err)
			} else {
				r.settled = last
			}
		}
		switch {
		case err != nil:
			u.done <- outcome{err: err}
		case partial != nil && len(partial.Missing) == len(u.events):
			u.done <- outcome{err: full}
		case len(kept) == 0 && last > 0:
			u.done <- outcomeOf(partial, Receipt{shard.Position{Log: s.position.Log, Sequence: last}, repeated})
		default:
			e.add(s, u, repeated, kept, partial)
		}
	}
	e.blank(s)
	return e
}

// blank takes out of an entry what is in it of users whom it forgets later: that counts for
// nothing behind it, and would be in the log until that is collected.
func (e *composed) blank(s *State) {
	if s.key == nil {
		return
	}
	gone := map[UserHash]bool{}
	for i := range slices.Backward(e.commit.Events) {
		event := &e.commit.Events[i]
		switch {
		case event.Kind == Forget:
			gone[event.User] = true
		case len(gone) > 0 && event.Tower == shard.Users && gone[s.key.hash(event.Entity)]:
			*event, e.commit.changes[i], _ = s.key.moot(event, e.commit.changes[i])
		}
	}
}

// add adds the events of a unit that are kept.
func (e *composed) add(s *State, u *unit, repeated int, kept []int, partial *PartialError) {
	e.units, e.repeated, e.partial, e.open = append(e.units, u), append(e.repeated, repeated), append(e.partial, partial), append(e.open, u)
	forgotten, gone := e.forgotten(s, u, kept)
	maps.Copy(e.gone, gone)
	for _, i := range kept {
		event, change, content := u.events[i], u.changes[i], u.hashes[i].content
		if forgotten[i] {
			event, change, content = s.key.moot(&event, change)
		}
		e.ids[u.hashes[i].id] = content
		e.commit.Events = append(e.commit.Events, event)
		e.commit.changes = append(e.commit.changes, change)
	}
}

// forgotten returns which of some events of a unit are about users who are forgotten by then,
// so that nothing of them is written, and who is forgotten behind them or is no more.
func (e *composed) forgotten(s *State, u *unit, list []int) (moot map[int]bool, gone map[UserHash]bool) {
	moot, gone = map[int]bool{}, map[UserHash]bool{}
	if s.key == nil {
		return moot, gone
	}
	for _, i := range list {
		event := &u.events[i]
		if event.Tower != shard.Users {
			continue
		}
		h := s.key.hash(event.Entity)
		switch event.Kind {
		case Forget:
			gone[event.User] = true
		case Upsert:
			gone[h] = false
		case SetAttributes, Remove:
			is, said := gone[h]
			if !said {
				is, said = e.gone[h]
			}
			if moot[i] = is; !said {
				moot[i] = s.gone.HasHash(h)
			}
		}
	}
	return moot, gone
}

// moot returns what is written of an event about a user who is forgotten: that there was one of
// its id. Its content is that of the event by the key, so that the event is known when it is
// sent again, and nobody without the key can try what it was.
func (k *hashKeys) moot(e *Event, change []byte) (Event, []byte, uint64) {
	m := Event{ID: e.ID, Kind: Moot, Author: e.Author, Original: k.content(change)}
	encoded, err := m.encode()
	if err != nil {
		panic(err) // it has no more than a number
	}
	return m, encoded, m.Original
}

// content returns the content of an event as [Moot] has it, never 0.
func (k *hashKeys) content(change []byte) uint64 {
	h := k.hash(string(change))
	return max(binary.BigEndian.Uint64(h[:]), 1)
}

// content returns what tells an event, encoded, from another of its id.
func (e *Event) content(change []byte) uint64 {
	if e.Kind == Moot {
		return e.Original
	}
	return contentHash(change)
}

// partial says what of a unit's fresh events is not kept, and why; nil if all are.
func (u *unit) partial(fresh, kept []int, why error) *PartialError {
	if why == nil {
		return nil
	}
	out := map[eventHash]bool{}
	for _, i := range fresh {
		if _, is := slices.BinarySearch(kept, i); !is {
			out[u.hashes[i].id] = true
		}
	}
	p := &PartialError{Err: why, All: len(u.events)}
	for i, h := range u.hashes { // an event may be there twice
		if out[h.id] {
			p.Missing = append(p.Missing, i)
		}
	}
	return p
}

// clock returns the time of the next entry: never one before the last. The caller holds mu.
func (r *Replica) clock() time.Time {
	now := time.Now().UTC().Truncate(time.Millisecond)
	if now.Before(r.state.time) {
		now = r.state.time
	}
	return now
}

// sort tells the events of a unit that are new from those that are in the log, or in the
// entry: last is the last entry of the log that has one, and 0 if this one has to be.
func (e *composed) sort(s *State, u *unit) (last uint64, repeated int, fresh []int, err error) {
	own, here := map[eventHash]int{}, false
	for i, h := range u.hashes {
		content, sequence, known := s.past.find(h.id)
		if !known {
			content, known = e.ids[h.id]
		}
		other, within := own[h.id]
		if within = within && !known; within {
			content, known = u.hashes[other].content, true
		}
		switch {
		case !known:
			fresh = append(fresh, i)
			own[h.id] = i
		case content != h.content && (s.key == nil || content != s.key.content(u.changes[i])):
			err := &EventConflictError{Index: i, ID: u.events[i].ID, Within: within, Other: other}
			if sequence > 0 {
				err.Position = shard.Position{Log: s.position.Log, Sequence: sequence}
			}
			return 0, 0, nil, err
		default:
			repeated++
			last, here = max(last, sequence), here || sequence == 0 && !within
		}
	}
	if here {
		last = 0
	}
	return last, repeated, fresh, nil
}

// room takes the room that the new events of a unit need, and returns those that are kept: all
// of them without an error, and else what need not wait for room.
func (e *composed) room(s *State, room Room, u *unit, fresh []int, cramped error) (kept []int, full error) {
	moot := u.moot(fresh)
	forgotten, _ := e.forgotten(s, u, fresh)
	for i, is := range forgotten {
		moot[i] = moot[i] || is
	}
	before := len(e.held)
	reserve := func(list []int) error {
		for _, i := range list {
			if moot[i] {
				continue
			}
			if err := e.reserve(s, room, &u.events[i], len(u.changes[i])); err != nil {
				err.Index = i
				e.held = e.held[:before]
				e.release(s, room)
				return err
			}
			e.held = append(e.held, sized{&u.events[i], len(u.changes[i])})
		}
		return nil
	}
	if full = cramped; full == nil {
		if full = reserve(fresh); full == nil {
			return fresh, nil
		}
		kept = u.without(fresh, moot, func(e *Event) bool { return e.Kind == Upsert })
		if reserve(kept) == nil {
			return kept, full
		}
	}
	if kept = u.without(fresh, moot, (*Event).needsRoom); len(kept) == len(fresh) {
		full = nil
	}
	return kept, full
}

// release takes back what is reserved and not held.
func (e *composed) release(s *State, room Room) {
	e.reservation = newReservation()
	for _, h := range e.held {
		_ = e.reserve(s, room, h.event, h.size) // there was room before
	}
}

// needsRoom reports whether an event takes room.
func (e *Event) needsRoom() bool {
	return e.Kind == Upsert || e.Kind == SetAttributes && len(e.Attributes) > 0
}

// moot returns which new events of a unit others of it undo, so that they need no room in the
// end. Kept back, and appended later, they would undo those.
func (u *unit) moot(fresh []int) map[int]bool {
	undone, moot := map[entityKey]bool{}, map[int]bool{}
	for _, i := range slices.Backward(fresh) {
		switch e := &u.events[i]; e.Kind {
		case Remove, Forget:
			undone[entityKey{e.Tower, e.Entity}] = true
		case Upsert, SetAttributes:
			moot[i] = undone[entityKey{e.Tower, e.Entity}]
		}
	}
	return moot
}

// without returns the new events of a unit without what is left out, and what is set or
// upserted later of the same ids: appended again, those come in their order.
func (u *unit) without(fresh []int, moot map[int]bool, out func(*Event) bool) (kept []int) {
	late := map[entityKey]bool{}
	for _, i := range fresh {
		e := &u.events[i]
		key := entityKey{e.Tower, e.Entity}
		if (e.Kind == Upsert || e.Kind == SetAttributes) && !moot[i] && (out(e) || late[key]) {
			late[key] = true
			continue
		}
		kept = append(kept, i)
	}
	return kept
}

// reserve takes the room that an event of so many bytes needs.
func (r *reservation) reserve(s *State, room Room, e *Event, size int) *FullError {
	if !e.needsRoom() {
		return nil
	}
	r.bytes += int64(size) + 2*overhead
	if have := s.bytes + r.bytes; have > room.Bytes {
		return &FullError{What: "bytes", Have: have, Room: room.Bytes}
	}
	record := s.Record(e.Tower, e.Entity)
	if record == nil {
		record = &Record{}
	}
	key := entityKey{e.Tower, e.Entity}
	if e.Kind == SetAttributes {
		if r.sets[key] == nil {
			r.sets[key] = map[string]bool{}
		}
		for name := range e.Attributes {
			if _, there := record.Set[name]; !there {
				r.sets[key][name] = true
			}
		}
		if have := len(record.Set) + len(r.sets[key]); have > maxPerRecord {
			return &FullError{What: "attributes that were set of one id", Have: int64(have), Room: maxPerRecord}
		}
		return nil
	}
	row := freshRow{key, modelVersion{e.Model, e.ModelVersion}}
	if r.fresh[row] || record.Upserted(e.Model, e.ModelVersion) != nil {
		return nil
	}
	if have := len(record.Upserts) + 1; have > maxPerRecord {
		return &FullError{What: "model versions that one id was upserted for", Have: int64(have), Room: maxPerRecord}
	}
	r.fresh[row] = true
	if r.rows[row.of] == nil {
		r.rows[row.of] = &rows{}
	}
	have := r.rows[row.of].of(e.Tower)
	*have++
	total := *have
	if there := s.rows[row.of]; there != nil {
		total += *there.of(e.Tower)
	}
	if total > room.Rows {
		return &FullError{What: string(e.Tower), Model: e.Model, ModelVersion: e.ModelVersion, Have: int64(total), Room: int64(room.Rows)}
	}
	return nil
}
