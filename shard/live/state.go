package live

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// Position is where a reader of the live log stands: behind the entry that it has read
// last. The zero Position is before the first.
type Position struct {
	Log      string // the id of the log
	Sequence uint64
	Hash     appendlog.Hash // of the entry of that number
}

// Shard returns the position as snapshots and queries have it.
func (p Position) Shard() shard.Position { return shard.Position{Log: p.Log, Sequence: p.Sequence} }

// State is what the events up to a position amount to. It is for one goroutine at a time:
// the one that follows the log has it. What queries need of it is a value that does not
// change: see [View].
type State struct {
	position Position
	time     time.Time // of the last entry
	lineage  Lineage
	down     TakenDown
	texts    *texts
	gone     Forgotten
	key      *hashKeys // nil if it is not known
	keyless  bool      // it is read without the key
	keyName  UserHash  // of the key that the log takes; zero if it does not say
	apps     records
	users    records
	ids      map[UserHash]string // of all in users, once the key is known
	rows     map[modelVersion]*rows
	bytes    int64 // of all records
	past     *past
	digest   sum
	passed   error // see Passed
}

type records map[string]*Record

// modelVersion names the towers that vectors belong to.
type modelVersion struct{ model, version string }

// rows are how many apps and users were upserted for a model version.
type rows struct{ apps, users int }

func (r *rows) of(tower shard.Kind) *int {
	if tower == shard.Users {
		return &r.users
	}
	return &r.apps
}

// Passed returns why checkpoints were passed over when the state was read from a store: each is
// damaged, and the entries that it sums up were read in its place. It is nil if none was, and
// else of class [ErrDamaged].
func (s *State) Passed() error { return s.passed }

// Change is an app or user of which an entry has changed the takedown, the forgetting or the
// record.
type Change struct {
	Tower shard.Kind
	// Entity is the id. It is empty of a user who was forgotten and of whom the state had
	// nothing but that.
	Entity string
	// User is the hash of a user who was forgotten, or is no more; zero of others.
	User UserHash
}

// ErrKey is the class of the error that says that a state needs the store's key, see
// [State.SetKey].
var ErrKey = errors.New("the key of users who are forgotten is not known")

// NewState returns what no events amount to.
func NewState() *State {
	return &State{texts: newTexts(), apps: records{}, users: records{}, rows: map[modelVersion]*rows{}, past: newPast()}
}

// SetKey tells the key of the store, see [Key]. A state needs it from the first user on who
// is forgotten.
func (s *State) SetKey(key []byte) error {
	if len(key) != KeySize {
		return fmt.Errorf("the key of users who are forgotten has %d bytes; accepted: %d", len(key), KeySize)
	}
	if err := newHashKeys(key).checkName(s.keyName); err != nil {
		return err
	}
	if s.key != nil {
		if !bytes.Equal(s.key.key, key) {
			return errors.New("the key of users who are forgotten is another one than before")
		}
		return nil
	}
	s.key = newHashKeys(slices.Clone(key))
	s.ids = make(map[UserHash]string, len(s.users))
	for id := range s.users {
		s.ids[s.key.hash(id)] = id
	}
	if s.gone.Len() > 0 {
		s.gone = Forgotten{&forgotten{s.gone.set, s.key}}
	}
	return nil
}

// Position returns where in the log the state stands.
func (s *State) Position() Position { return s.position }

// Time returns when the last entry was accepted.
func (s *State) Time() time.Time { return s.time }

// Record returns what there is of an app or user, nil if there is nothing.
func (s *State) Record(tower shard.Kind, id string) *Record { return s.records(tower)[id] }

func (s *State) records(tower shard.Kind) records {
	if tower == shard.Users {
		return s.users
	}
	return s.apps
}

// Records returns the records of all apps or users, in no order. The state must not change
// meanwhile.
func (s *State) Records(tower shard.Kind) iter.Seq2[string, *Record] {
	return func(yield func(string, *Record) bool) {
		for id, r := range s.records(tower) {
			if !yield(id, r) {
				return
			}
		}
	}
}

// TakenDown returns the apps that are taken down.
func (s *State) TakenDown() TakenDown { return s.down }

// Forgotten returns the users who are forgotten.
func (s *State) Forgotten() Forgotten { return s.gone }

// Lineage returns the logs that this one has gone on from.
func (s *State) Lineage() Lineage { return s.lineage }

// Covers is that of the lineage.
func (s *State) Covers(inputs shard.Position, sequence uint64) bool {
	return s.lineage.Covers(inputs, sequence)
}

// Before returns the position of the last entry that was accepted by a time, and false if
// that is before all that the state remembers: of a day and a million events at least.
func (s *State) Before(t time.Time) (shard.Position, bool) {
	sequence, ok := s.past.before(t)
	return shard.Position{Log: s.position.Log, Sequence: sequence}, ok
}

// Digest returns a digest of what the state amounts to.
func (s *State) Digest() (d Digest) {
	for i, x := range s.digest {
		binary.BigEndian.PutUint64(d[8*i:], x)
	}
	return d
}

// Bytes returns how many bytes records take, about. They are what there must be room for.
func (s *State) Bytes() int64 { return s.bytes }

// Pending is what was upserted for one model version, whether anything serves it or not.
type Pending struct {
	Model, ModelVersion string
	Apps, Users         int
	Bytes               int64     // about
	Since               time.Time // of what there is, the first was upserted then
}

// Fresh returns what was upserted, by model and model version, ascending. It looks at every
// record.
func (s *State) Fresh() []Pending {
	found := map[modelVersion]*Pending{}
	for _, tower := range towers[1:] {
		for _, r := range s.records(tower) {
			for _, u := range r.Upserts {
				p := found[modelVersion{u.Model, u.ModelVersion}]
				if p == nil {
					p = &Pending{Model: u.Model, ModelVersion: u.ModelVersion, Since: u.Time}
					found[modelVersion{u.Model, u.ModelVersion}] = p
				}
				p.Bytes += overhead + int64(4*len(u.Vector))
				if u.Time.Before(p.Since) {
					p.Since = u.Time
				}
				if tower == shard.Users {
					p.Users++
				} else {
					p.Apps++
				}
			}
		}
	}
	var list []Pending
	for _, p := range found {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b Pending) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model), cmp.Compare(a.ModelVersion, b.ModelVersion))
	})
	return list
}

// Apply applies the entry that follows the state's position, and returns what it has
// changed: each app and user once, in the order of towers and ids. After an error the state
// is what it was. An error is of class [appendlog.ErrForked] if the entry does not follow
// what was applied, [ErrVersion] if a newer build has written it, and [ErrKey] if it forgets
// a user and the key is not known.
func (s *State) Apply(e appendlog.Entry) ([]Change, error) {
	c, err := Decode(e.Data)
	if err == nil {
		err = s.follows(e, c)
	}
	if err != nil {
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%s: %w; bring that object back from a copy of the store", names.EntryKey(e.Sequence), err)
		}
		return nil, fmt.Errorf("apply entry %d of the live log: %w", e.Sequence, err)
	}
	return s.apply(e, c), nil
}

// follows returns an error unless an entry can be applied.
func (s *State) follows(e appendlog.Entry, c *Commit) error {
	switch {
	case e.Sequence != s.position.Sequence+1:
		return fmt.Errorf("entry %d is the last that was applied", s.position.Sequence)
	case c.Previous != s.position.Hash:
		return fmt.Errorf("%w: it was appended to another entry %d (%s) than was applied (%s)",
			appendlog.ErrForked, s.position.Sequence, c.Previous.Short(), s.position.Hash.Short())
	case c.Log < s.position.Log:
		return fmt.Errorf("%w: it is of log %.80q, and log %.80q has taken its place", appendlog.ErrForked, c.Log, s.position.Log)
	}
	return s.checkKeys(c.Events)
}

// checkKeys returns an error unless all who are forgotten by events are so by the state's key.
func (s *State) checkKeys(events []Event) error {
	for i := range events {
		if events[i].Kind != Forget || s.keyless {
			continue
		}
		if s.key == nil {
			return ErrKey
		}
		if err := s.key.checkName(events[i].Key); err != nil {
			return err
		}
	}
	return nil
}

// applying is an entry that is being applied.
type applying struct {
	*State
	sequence uint64
	down     map[string]*Down   // what becomes of takedowns; nil: none
	gone     map[UserHash]*Gone // what becomes of users who are forgotten; nil: they are not
	changed  map[Change]UserHash
}

// note notes that an app or user has changed.
func (a *applying) note(c Change) {
	key := c
	if c.Entity != "" {
		key.User = UserHash{}
	}
	if old := a.changed[key]; c.User == (UserHash{}) {
		c.User = old
	}
	a.changed[key] = c.User
}

func (s *State) apply(e appendlog.Entry, c *Commit) []Change {
	if c.Log != s.position.Log {
		common := e.Sequence - 1
		if c.Accepted != nil {
			common = min(common, c.Accepted.Common)
		}
		s.lineage = s.lineage.next(c.Log, common)
	}
	if c.Time.After(s.time) {
		s.time = c.Time
	}
	a := &applying{s, e.Sequence, map[string]*Down{}, map[UserHash]*Gone{}, map[Change]UserHash{}}
	for i := range c.Events {
		id := hashEventID(c.Events[i].ID)
		if _, _, repeated := s.past.find(id); repeated {
			continue
		}
		s.past.note(pastEvent{id, c.Events[i].content(c.changes[i])})
		c.Events[i].Time = s.time
		a.event(&c.Events[i])
	}
	a.finish()
	s.position = Position{Log: c.Log, Sequence: e.Sequence, Hash: appendlog.HashOf(e.Data)}
	s.past.add(e.Sequence, s.time, s.position.Hash)
	return a.list()
}

// list returns what has changed.
func (a *applying) list() []Change {
	list := make([]Change, 0, len(a.changed))
	for change, user := range a.changed {
		change.User = user
		list = append(list, change)
	}
	slices.SortFunc(list, Change.compare)
	return list
}

func (c Change) compare(o Change) int {
	return cmp.Or(cmp.Compare(c.Tower, o.Tower), cmp.Compare(c.Entity, o.Entity), bytes.Compare(c.User[:], o.User[:]))
}

// event has an event count.
func (a *applying) event(e *Event) {
	switch e.Kind {
	case Takedown:
		a.down[e.Entity] = &Down{a.sequence, e.Time, e.Reason, e.Author}
	case Restore:
		a.down[e.Entity] = nil
	case Moot:
	case Forget:
		if e.Key != (UserHash{}) {
			a.keyName = e.Key
		}
		change := Change{Tower: shard.Users, Entity: a.ids[e.User], User: e.User}
		if change.Entity != "" {
			a.put(shard.Users, change.Entity, nil)
		}
		a.gone[e.User] = &Gone{a.sequence, e.Time}
		a.note(change)
	case Settle:
		through := *e
		through.Through = min(e.Through, a.sequence-1)
		for _, tower := range towers[1:] {
			for id, r := range a.records(tower) {
				if next := r.settled(&through); next != r {
					a.put(tower, id, next)
					a.note(Change{Tower: tower, Entity: id})
				}
			}
		}
	default:
		change := Change{Tower: e.Tower, Entity: e.Entity}
		var forgotten *Gone
		if e.Tower == shard.Users && a.key != nil {
			if h := a.key.hash(e.Entity); a.forgotten(h) != nil {
				if e.Kind != Upsert {
					return // of a user who is forgotten nothing is kept
				}
				forgotten, a.gone[h] = a.forgotten(h), nil
				change.User = h
			}
		}
		old := a.records(e.Tower)[e.Entity]
		next := old.changed(e, a.sequence)
		if forgotten != nil {
			next.Removed = max(next.Removed, forgotten.Sequence) // what older snapshots have stays forgotten
		}
		if old == nil && next == nil && change.User == (UserHash{}) {
			return // the window of nothing was taken away
		}
		a.put(e.Tower, e.Entity, next)
		a.note(change)
	}
}

// forgotten returns when a user was forgotten, nil if the user is not, so far.
func (a *applying) forgotten(h UserHash) *Gone {
	if gone, ok := a.gone[h]; ok {
		return gone
	}
	if gone, ok := a.State.gone.Get(h); ok {
		return &gone
	}
	return nil
}

// put replaces the record of an app or user; nil is none.
func (s *State) put(tower shard.Kind, id string, next *Record) {
	list := s.records(tower)
	old := list[id]
	if old != nil {
		s.count(tower, old, -1)
	}
	if next == nil {
		delete(list, id)
	} else {
		next.seal(tower, id)
		list[id] = next
		s.count(tower, next, 1)
	}
	if tower != shard.Users || s.key == nil || (old == nil) == (next == nil) {
		return
	}
	if next == nil {
		delete(s.ids, s.key.hash(id))
	} else {
		s.ids[s.key.hash(id)] = id
	}
}

// count adds a record to what is counted, or takes it off.
func (s *State) count(tower shard.Kind, r *Record, by int) {
	s.bytes += int64(by) * r.size
	if by > 0 {
		s.digest.add(r.sum)
	} else {
		s.digest.subtract(r.sum)
	}
	for _, u := range r.Upserts {
		v := modelVersion{u.Model, u.ModelVersion}
		if s.rows[v] == nil {
			s.rows[v] = &rows{}
		}
		*s.rows[v].of(tower) += by
		if *s.rows[v] == (rows{}) {
			delete(s.rows, v)
		}
	}
}

// finish makes the sets of those that are taken down and forgotten.
func (a *applying) finish() {
	var items []item
	for id, next := range a.down {
		old, was := a.State.down.Get(id)
		if was {
			a.digest.subtract(old.sum(id))
		}
		i := item{hash: hashKey(id), key: id, gone: next == nil}
		if next != nil {
			a.digest.add(next.sum(id))
			i.value = a.texts.encode(*next)
		}
		if was || next != nil {
			items = append(items, i)
			a.note(Change{Tower: shard.Apps, Entity: id})
		}
	}
	if len(items) > 0 {
		var before set
		if a.State.down.downs != nil {
			before = a.State.down.set
		}
		a.State.down = TakenDown{&downs{before.with(items), a.texts.list}}
	}
	items = nil
	for h, next := range a.gone {
		old, was := a.State.gone.Get(h)
		if was {
			a.digest.subtract(old.sum(h))
		}
		i := item{hash: hashKey(string(h[:])), key: string(h[:]), gone: next == nil}
		if next != nil {
			a.digest.add(next.sum(h))
			i.value = next.encode()
		}
		if was || next != nil {
			items = append(items, i)
		}
	}
	if len(items) > 0 {
		var before set
		if a.State.gone.forgotten != nil {
			before = a.State.gone.set
		}
		a.State.gone = Forgotten{&forgotten{before.with(items), a.key}}
	}
}

// sum returns the sum of a takedown.
func (d Down) sum(id string) sum {
	var buffer [256]byte
	data := append(buffer[:0], "takedown"...)
	for _, text := range []string{id, d.Reason, d.Author} {
		data = binary.BigEndian.AppendUint32(data, uint32(len(text)))
		data = append(data, text...)
	}
	data = binary.BigEndian.AppendUint64(data, d.Sequence)
	return sumOf(binary.BigEndian.AppendUint64(data, uint64(d.Time.UnixMilli())))
}

// sum returns the sum of a user who is forgotten.
func (g Gone) sum(h UserHash) sum {
	data := append([]byte("forgotten"), h[:]...)
	data = binary.BigEndian.AppendUint64(data, g.Sequence)
	return sumOf(binary.BigEndian.AppendUint64(data, uint64(g.Time.UnixMilli())))
}
