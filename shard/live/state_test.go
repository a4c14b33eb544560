package live

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// model is what a state must amount to, in plain maps.
type model struct {
	sequence uint64
	time     time.Time
	seen     map[string]bool // ids of events
	down     map[string]Down
	gone     map[string]Gone // by user
	records  map[entityKey]*modelRecord
}

type modelRecord struct {
	removed uint64
	window  Window
	set     map[string]SetValue
	upserts map[modelVersion]Upserted
}

func newModel() *model {
	return &model{seen: map[string]bool{}, down: map[string]Down{}, gone: map[string]Gone{}, records: map[entityKey]*modelRecord{}}
}

func (m *model) entry(at time.Time, events []Event) {
	m.sequence++
	if at.After(m.time) {
		m.time = at
	}
	for _, e := range events {
		if m.seen[e.ID] {
			continue
		}
		m.seen[e.ID] = true
		m.event(e)
	}
}

func (m *model) event(e Event) {
	key := entityKey{e.Tower, e.Entity}
	if _, gone := m.gone[e.Entity]; gone && e.Tower == shard.Users && (e.Kind == SetAttributes || e.Kind == Remove) {
		return
	}
	r := m.records[key]
	if r == nil {
		r = &modelRecord{set: map[string]SetValue{}, upserts: map[modelVersion]Upserted{}}
	}
	switch e.Kind {
	case Takedown:
		m.down[e.Entity] = Down{m.sequence, m.time, e.Reason, cmp.Or(e.Author, "tester")}
		return
	case Restore:
		delete(m.down, e.Entity)
		return
	case Forget:
		m.gone[e.Entity] = Gone{m.sequence, m.time}
		delete(m.records, key)
		return
	case Settle:
		for key, r := range m.records {
			if e.Model != "" {
				v := modelVersion{e.Model, e.ModelVersion}
				if u, ok := r.upserts[v]; ok && u.Sequence <= min(e.Through, m.sequence-1) {
					delete(r.upserts, v)
				}
			} else {
				maps.DeleteFunc(r.set, func(_ string, v SetValue) bool { return v.Sequence <= min(e.Through, m.sequence-1) })
				if r.removed <= min(e.Through, m.sequence-1) {
					r.removed = 0
				}
			}
			m.tidy(key, r)
		}
		return
	case Upsert:
		u := Upserted{Model: e.Model, ModelVersion: e.ModelVersion, Sequence: m.sequence, Vector: e.Vector, Attributes: map[string]attribute.Value{}, Time: m.time}
		for name, v := range e.Attributes {
			if !v.Absent() {
				u.Attributes[name] = v
			}
		}
		r.upserts[modelVersion{e.Model, e.ModelVersion}] = u
		if gone, ok := m.gone[e.Entity]; ok && e.Tower == shard.Users {
			delete(m.gone, e.Entity)
			r.removed = max(r.removed, gone.Sequence)
		}
	case SetAttributes:
		for name, v := range e.Attributes {
			r.set[name] = SetValue{v, m.sequence}
			for _, u := range r.upserts {
				if v.Absent() {
					delete(u.Attributes, name)
				} else {
					u.Attributes[name] = v
				}
			}
		}
	case Remove:
		r.removed, r.set, r.upserts = m.sequence, map[string]SetValue{}, map[modelVersion]Upserted{}
	}
	if e.Window != nil {
		r.window = *e.Window
	}
	m.tidy(key, r)
}

func (m *model) tidy(key entityKey, r *modelRecord) {
	if r.removed == 0 && r.window == (Window{}) && len(r.set) == 0 && len(r.upserts) == 0 {
		delete(m.records, key)
	} else {
		m.records[key] = r
	}
}

// text is all that a model says, in order.
func (m *model) text() []string {
	var list []string
	for id, d := range m.down {
		list = append(list, fmt.Sprint("down ", id, " ", d))
	}
	for id, g := range m.gone {
		list = append(list, fmt.Sprint("gone ", HashUser(testKey, id), " ", g))
	}
	for key, r := range m.records {
		line := fmt.Sprint("record ", key, " ", r.removed, " ", r.window, " ", r.set)
		for _, v := range slices.SortedFunc(maps.Keys(r.upserts), compareVersions) {
			line += fmt.Sprint(" ", r.upserts[v])
		}
		list = append(list, line)
	}
	slices.Sort(list)
	return list
}

func compareVersions(a, b modelVersion) int {
	return cmp.Or(cmp.Compare(a.model, b.model), cmp.Compare(a.version, b.version))
}

// textOf is the same of a state.
func textOf(s *State) []string {
	var list []string
	for id, d := range s.TakenDown().All() {
		list = append(list, fmt.Sprint("down ", id, " ", d))
	}
	for h := range s.Forgotten().All() {
		g, _ := s.Forgotten().Get(h)
		list = append(list, fmt.Sprint("gone ", h, " ", g))
	}
	for _, tower := range []shard.Kind{shard.Apps, shard.Users} {
		for id, r := range s.Records(tower) {
			m := modelRecord{r.Removed, r.Window, maps.Clone(r.Set), nil}
			if m.set == nil {
				m.set = map[string]SetValue{}
			}
			line := fmt.Sprint("record ", entityKey{tower, id}, " ", m.removed, " ", m.window, " ", m.set)
			for _, u := range r.Upserts {
				if u.Attributes == nil {
					u.Attributes = map[string]attribute.Value{}
				}
				line += fmt.Sprint(" ", u)
			}
			list = append(list, line)
		}
	}
	slices.Sort(list)
	return list
}

// byEntity is what a state has of each app and user, to compare before and after.
func byEntity(s *State) map[Change]string {
	m := map[Change]string{}
	for id, d := range s.TakenDown().All() {
		m[Change{Tower: shard.Apps, Entity: id}] += fmt.Sprint("down ", d)
	}
	for _, tower := range []shard.Kind{shard.Apps, shard.Users} {
		for id, r := range s.Records(tower) {
			m[Change{Tower: tower, Entity: id}] += fmt.Sprint(r.sum)
		}
	}
	return m
}

var values = rapid.SampledFrom([]attribute.Value{
	{}, attribute.OfKeyword("ios"), attribute.OfKeywords([]string{"b", "a"}), attribute.OfBool(true), attribute.OfInt(-7),
	attribute.OfFloat(2.5), attribute.OfFloat(1e300), attribute.OfFloat32(9.99), attribute.OfTimestamp(noon),
	attribute.OfTimestamp(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)), attribute.OfKeyword(""), attribute.OfBool(false), attribute.OfInt(0),
})

// drawEvent draws an event of a small world.
func drawEvent(t *rapid.T) Event {
	e := Event{Kind: Kind(rapid.IntRange(int(Takedown), int(Settle)).Draw(t, "kind")), Tower: shard.Apps}
	if rapid.IntRange(0, 9).Draw(t, "again") == 0 {
		e.ID = fmt.Sprint("again ", rapid.IntRange(0, 5).Draw(t, "which"))
	} else {
		e.ID = newEventID()
	}
	e.Author = rapid.SampledFrom([]string{"", "a moderator"}).Draw(t, "author")
	if e.Kind == Forget || e.Kind > Restore && rapid.Bool().Draw(t, "user") {
		e.Tower = shard.Users
	}
	e.Entity = rapid.SampledFrom([]string{"a", "b", "ä", "d\x00"}).Draw(t, "entity")
	attributes := func() {
		n := rapid.IntRange(0, 3).Draw(t, "attributes")
		for range n {
			if e.Attributes == nil {
				e.Attributes = map[string]attribute.Value{}
			}
			e.Attributes[rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")] = values.Draw(t, "value")
		}
		if e.Tower == shard.Apps && rapid.Bool().Draw(t, "window") {
			w := rapid.SampledFrom([]Window{{}, {From: noon}, {Until: noon.Add(time.Nanosecond)}, {noon, noon.Add(time.Hour)}}).Draw(t, "when")
			e.Window = &w
		}
	}
	switch e.Kind {
	case Takedown:
		e.Reason = rapid.SampledFrom([]string{"malware", "spam"}).Draw(t, "reason")
	case Upsert:
		e.Model, e.ModelVersion = "feed", rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version")
		e.Vector = rapid.SliceOfN(rapid.Float32Range(-1, 1), 2, 2).Draw(t, "vector")
		attributes()
	case SetAttributes:
		if attributes(); len(e.Attributes) == 0 && e.Window == nil {
			e.Attributes = map[string]attribute.Value{"x": attribute.OfInt(1)}
		}
	case Settle:
		e.Tower, e.Entity, e.Through = "", "", rapid.Uint64Range(1, 12).Draw(t, "through")
		if rapid.Bool().Draw(t, "of a version") {
			e.Model, e.ModelVersion = "feed", rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version")
		}
	}
	return e
}

// Whatever events there are, in whatever entries, with whatever clocks, some of them again,
// a state is what plain maps say; so is one that begins with a checkpoint of it, wherever.
// What an entry has changed is what it says it has.
func TestStateIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, w, now := newModel(), &writer{}, noon
		s := keyed(t)
		others := []*State{}
		for range rapid.IntRange(1, 12).Draw(t, "entries") {
			now = now.Add(time.Duration(rapid.IntRange(-3, 10).Draw(t, "hours")) * time.Hour)
			events := rapid.SliceOfN(rapid.Custom(drawEvent), 0, 6).Draw(t, "events")
			for _, e := range events {
				require.NoError(t, e.Check())
			}
			entry := w.entry(t, now, slices.Clone(events)...)
			before := byEntity(s)
			changes := apply(t, s, entry)
			after := byEntity(s)
			m.entry(now, events)
			require.Equal(t, m.text(), textOf(s))
			require.Equal(t, w.at, s.Position())
			require.Equal(t, m.time, s.Time())
			told := map[Change]bool{}
			for i, c := range changes {
				require.True(t, i == 0 || changes[i-1].compare(c) < 0, "%v", changes)
				c.User = UserHash{}
				told[c] = true
			}
			for c := range maps.Keys(after) {
				require.True(t, before[c] == after[c] || told[c], "%v has changed", c)
			}
			for c := range before {
				require.True(t, before[c] == after[c] || told[c], "%v has changed", c)
			}
			for _, o := range others {
				require.Equal(t, changes, apply(t, o, entry))
			}
			if rapid.IntRange(0, 3).Draw(t, "checkpoint") == 0 {
				others = append(others, again(t, s))
			}
			for _, o := range others {
				same(t, s, o)
			}
			require.Empty(t, difference(s, again(t, s)))
		}
	})
}

// again returns a state that a checkpoint of another has made.
func again(t *rapid.T, s *State) *State {
	data, err := s.Checkpoint()
	require.NoError(t, err)
	o, err := ReadCheckpoint(data, testKey)
	require.NoError(t, err)
	twice, err := o.Checkpoint()
	require.NoError(t, err)
	require.Equal(t, data, twice)
	return o
}

// same fails unless two states amount to the same.
func same(t *rapid.T, a, b *State) {
	require.Equal(t, textOf(a), textOf(b))
	require.Equal(t, a.Digest(), b.Digest())
	require.Equal(t, a.Position(), b.Position())
	require.Equal(t, a.Bytes(), b.Bytes())
	require.Equal(t, a.Fresh(), b.Fresh())
	require.Equal(t, a.rows, b.rows)
	require.Equal(t, a.ids, b.ids)
	require.Equal(t, a.past.index, b.past.index)
	require.Equal(t, a.Lineage(), b.Lineage())
	x, err := a.Checkpoint()
	require.NoError(t, err)
	y, err := b.Checkpoint()
	require.NoError(t, err)
	require.Equal(t, x, y)
}

// The digest tells states apart that differ in anything, and not how events were sent.
func TestDigest(t *testing.T) {
	digest := func(events ...[]Event) Digest {
		w, s := &writer{}, keyed(t)
		for _, list := range events {
			apply(t, s, w.entry(t, noon, list...))
		}
		return s.Digest()
	}
	one, two := takedown("a"), upsert(shard.Apps, "b", "1", 1, 2)
	base := digest([]Event{one, two})
	assert.Equal(t, base, digest([]Event{two, one}), "in another order")
	assert.Equal(t, base, digest([]Event{one, two, one}, []Event{two}), "sent again")
	assert.Equal(t, base, digest([]Event{takedown("x"), one, restore("x"), two}), "what was, and is not")
	for name, other := range map[string][]Event{
		"nothing": nil, "less": {one}, "more": {one, two, takedown("c")},
		"another vector": {one, upsert(shard.Apps, "b", "1", 1, 3)}, "another version": {one, upsert(shard.Apps, "b", "2", 1, 2)},
		"a user": {one, upsert(shard.Users, "b", "1", 1, 2)}, "an attribute": {one, two, setTo(shard.Apps, "b", "x", attribute.OfInt(1))},
		"forgotten": {one, two, forget("u")},
	} {
		assert.NotEqual(t, base, digest(other), name)
	}
	assert.Equal(t, Digest{}, NewState().Digest())
}

func TestChanges(t *testing.T) {
	w, s := &writer{}, keyed(t)
	u := HashUser(testKey, "u")
	assert.Equal(t, []Change{{Tower: shard.Apps, Entity: "a"}, {Tower: shard.Users, Entity: "u"}},
		apply(t, s, w.entry(t, noon, takedown("a"), upsert(shard.Users, "u", "1", 1), restore("b"))))
	assert.Equal(t, []Change{{Tower: shard.Users, Entity: "u", User: u}}, apply(t, s, w.entry(t, noon, forget("u"))))
	assert.Equal(t, []Change{{Tower: shard.Users, User: u}}, apply(t, s, w.entry(t, noon, forget("u"))))
	assert.Equal(t, []Change{{Tower: shard.Users, Entity: "u", User: u}}, apply(t, s, w.entry(t, noon, upsert(shard.Users, "u", "1", 1))))
	assert.Empty(t, apply(t, s, w.entry(t, noon)))
	none := setTo(shard.Apps, "c", "x", attribute.Value{})
	none.Attributes, none.Window = nil, &Window{}
	assert.Empty(t, apply(t, s, w.entry(t, noon, none)))
}

// An entry that does not follow changes nothing.
func TestApplyOfWhatDoesNotFollow(t *testing.T) {
	w, s := &writer{}, NewState()
	apply(t, s, w.entry(t, noon, takedown("a")))
	fork := *w
	second := w.entry(t, noon, takedown("b"))
	other := fork.entry(t, noon, takedown("c"))
	apply(t, s, second)
	before := s.Digest()
	for name, c := range map[string]struct {
		entry appendlog.Entry
		class error
		text  string
	}{
		"again":       {second, nil, "entry 2 is the last that was applied"},
		"a gap":       {appendlog.Entry{Sequence: 4, Data: second.Data}, nil, "entry 2 is the last"},
		"a fork":      {fork.entry(t, noon, takedown("d")), appendlog.ErrForked, "it was appended to another entry 2"},
		"an old copy": {appendlog.Entry{Sequence: 3, Data: other.Data}, appendlog.ErrForked, "it was appended to another entry 2"},
		"no entry":    {appendlog.Entry{Sequence: 3, Data: []byte("x")}, nil, "entry of the live log: header: "},
		"no key":      {w.entry(t, noon, forget("u")), ErrKey, "the key of users who are forgotten is not known"},
	} {
		_, err := s.Apply(c.entry)
		assert.ErrorContains(t, err, c.text, name)
		assert.ErrorContains(t, err, fmt.Sprintf("apply entry %d of the live log: ", c.entry.Sequence), name)
		if c.class != nil {
			assert.ErrorIs(t, err, c.class, name)
		}
		assert.Equal(t, before, s.Digest(), name)
		assert.EqualValues(t, 2, s.Position().Sequence, name)
	}
}

// What a person has accepted is another log: inputs that reflect later entries of the one
// that was left are older than what follows.
func TestLineage(t *testing.T) {
	w, s := &writer{}, NewState()
	for range 5 {
		apply(t, s, w.entry(t, noon, takedown("a")))
	}
	accept := func(log string, common uint64) {
		apply(t, s, w.commit(t, Commit{Log: log, Time: noon, Accepted: &Accepted{"restored", common}}))
	}
	accept("2026-a", 3) // entry 6
	apply(t, s, w.entry(t, noon, takedown("b")))
	accept("2026-b", 99) // entry 8: all that there is
	apply(t, s, w.entry(t, noon, takedown("b")))
	require.Equal(t, Position{"2026-b", 9, w.at.Hash}, s.Position())
	for _, c := range []struct {
		log              string
		inputs, sequence uint64
		want             bool
	}{
		{"", 9, 3, true}, {"", 9, 4, false}, {"", 2, 3, false}, {"", 3, 3, true}, {"", 1000, 9, false},
		{"2026-a", 9, 7, true}, {"2026-a", 9, 8, false}, {"2026-a", 6, 7, false},
		{"2026-b", 9, 9, true}, {"2026-b", 8, 9, false}, {"2026-c", 99, 1, false},
	} {
		assert.Equal(t, c.want, s.Covers(shard.Position{Log: c.log, Sequence: c.inputs}, c.sequence), c)
	}
	_, err := s.Apply(w.commit(t, Commit{Log: "2026-a", Time: noon}))
	assert.ErrorIs(t, err, appendlog.ErrForked)
}

// Events are remembered for a day, and a million of them whatever their age.
func TestRememberedEvents(t *testing.T) {
	p := newPast()
	id := func(n int) eventHash { return hashEventID(fmt.Sprint(n)) }
	var now time.Time
	n, sequence := 0, uint64(0)
	add := func(events int, later time.Duration) {
		now = now.Add(later)
		sequence++
		for range events {
			p.note(pastEvent{id(n), uint64(n)})
			n++
		}
		p.add(sequence, now, appendlog.Hash{byte(sequence)})
	}
	add(10, 0)
	add(10, 0)
	for range 1100 {
		add(1000, 0)
	}
	content, at, ok := p.find(id(3))
	require.True(t, ok, "it is not a day old")
	assert.EqualValues(t, 3, content)
	assert.EqualValues(t, 1, at)
	add(1, 25*time.Hour)
	_, _, ok = p.find(id(3))
	assert.False(t, ok)
	_, ok = p.entry(1)
	assert.False(t, ok)
	assert.InDelta(t, 1_000_000, len(p.events), 1001)
	assert.Len(t, p.index, len(p.events))
	for _, i := range []int{n - 1, n - 2, n - 900_000} {
		content, at, ok := p.find(id(i))
		require.True(t, ok)
		assert.EqualValues(t, i, content)
		e, ok := p.entry(at)
		require.True(t, ok)
		assert.Equal(t, at, e.sequence)
	}
	for range 3 {
		add(10, 1000*time.Hour)
	}
	_, _, ok = p.find(id(n - 900_000))
	assert.True(t, ok, "it is of the last million")
}

func TestBefore(t *testing.T) {
	w, s := &writer{}, NewState()
	for i := range 5 {
		apply(t, s, w.entry(t, noon.Add(time.Duration(i)*time.Minute), takedown("a")))
	}
	for minutes, want := range map[float64]uint64{0: 1, 0.5: 1, 1: 2, 4: 5, 100: 5} {
		p, ok := s.Before(noon.Add(time.Duration(minutes * float64(time.Minute))))
		assert.True(t, ok)
		assert.Equal(t, shard.Position{Sequence: want}, p, minutes)
	}
	_, ok := s.Before(noon.Add(-time.Second))
	assert.False(t, ok)
}

// A key that comes late finds the users who are there already.
func TestLateKey(t *testing.T) {
	w, s := &writer{}, NewState()
	apply(t, s, w.entry(t, noon, upsert(shard.Users, "u", "1", 1)))
	entry := w.entry(t, noon, forget("u"))
	_, err := s.Apply(entry)
	require.ErrorIs(t, err, ErrKey)
	require.NoError(t, s.SetKey(testKey))
	assert.Equal(t, []Change{{Tower: shard.Users, Entity: "u", User: HashUser(testKey, "u")}}, apply(t, s, entry))
	assert.Nil(t, s.Record(shard.Users, "u"))
	assert.True(t, s.Forgotten().Has("u"))
	assert.False(t, s.Forgotten().Has("v"))
	assert.Error(t, s.SetKey([]byte("x")))
	assert.Error(t, s.SetKey(append([]byte("x"), testKey[1:]...)))
}

// What was upserted and set is not kept once every snapshot has it.
func TestSettle(t *testing.T) {
	w, s := &writer{}, NewState()
	apply(t, s, w.entry(t, noon, upsert(shard.Apps, "a", "1", 1), upsert(shard.Apps, "a", "2", 1), upsert(shard.Apps, "b", "1", 1)))
	apply(t, s, w.entry(t, noon, setTo(shard.Apps, "a", "x", attribute.OfInt(1)), upsert(shard.Apps, "b", "1", 2), remove(shard.Apps, "c")))
	require.Len(t, s.Fresh(), 2)
	settle := Event{ID: newEventID(), Kind: Settle, Model: "feed", ModelVersion: "1", Through: 1}
	assert.Equal(t, []Change{{Tower: shard.Apps, Entity: "a"}}, apply(t, s, w.entry(t, noon, settle)))
	assert.Equal(t, []Pending{{"feed", "1", 1, 0, overhead + 4, noon}, {"feed", "2", 1, 0, overhead + 4, noon}}, s.Fresh())
	settle = Event{ID: newEventID(), Kind: Settle, Through: 1000}
	apply(t, s, w.entry(t, noon, settle))
	assert.Nil(t, s.Record(shard.Apps, "c"))
	assert.Empty(t, s.Record(shard.Apps, "a").Set)
	assert.NotEmpty(t, s.Record(shard.Apps, "a").Upserted("feed", "2").Attributes)
}

func TestEventErrors(t *testing.T) {
	var e *EventError
	assert.True(t, errors.As(wrong("id", "x"), &e))
	assert.ErrorIs(t, wrong("id", "x"), ErrEvent)
}
