package overlay

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/lowest"
)

// share is which ids a tower has: those that [shard.Partition] puts into one shard of so many,
// or all of them, if it is zero.
type share struct{ number, of int }

// has reports whether an id is one of them.
func (s share) has(id string) bool { return s.of <= 1 || shard.Partition(id, s.of) == s.number }

// tower is what lies over one tower of a snapshot, or over one shard of it.
type tower struct {
	share    share
	inputs   shard.Position // that the snapshot's inputs reflect
	shape    *Shape         // what of it upserts must fit: not the schema of the other tower
	kind     shard.Kind
	base     *shard.Tower
	schema   attribute.Schema
	locals   []*shard.Local
	overlays []*shard.Overlay // of each
	runs     []*run           // the larger first
	made     int              // runs so far, for their names
	hashes   [][]hashed       // of users, by shard; nil until one is forgotten
	misfits  map[string][]string
	told     []string // of the first misfits
	count    int      // of misfits
	current  *shard.Tower
}

func newTower(base *shard.Tower, of share, inputs shard.Position, shape *Shape) (*tower, error) {
	t := &tower{share: of, inputs: inputs, shape: shape, kind: base.Kind(), base: base, schema: base.Schema()}
	for _, p := range base.Parts() {
		l, ok := p.(*shard.Local)
		if !ok {
			return nil, fmt.Errorf("lay over %s: shard %s is not of this process", t.kind, p.Info().Name)
		}
		t.locals = append(t.locals, l)
	}
	return t, nil
}

// clear takes away all that lies over the tower.
func (t *tower) clear() {
	t.overlays, t.runs = make([]*shard.Overlay, len(t.locals)), nil
	for i, l := range t.locals {
		t.overlays[i] = l.Overlay()
	}
	t.misfits, t.told, t.count = map[string][]string{}, nil, 0
}

// find returns the shard that an app or user is in, and its ordinal there.
func (t *tower) find(id string) (number int, ordinal uint32, ok bool) {
	if len(t.locals) == 0 {
		return 0, 0, false
	}
	number = shard.Partition(id, len(t.locals))
	ordinal, ok = t.locals[number].Shard().Ordinal(id)
	return number, ordinal, ok
}

// batch is what a change makes of a tower. Nothing of the tower is changed before it is
// committed.
type batch struct {
	*tower
	state   *live.State
	refused shard.Refused
	rows    []map[uint32]shard.OverlaidRow // of each shard
	inRuns  []map[uint32]shard.OverlaidRow // of each run
	fresh   map[string]freshRow
	misfits map[string][]string // of those that are in the batch
}

// freshRow is a row that is to be written to a run.
type freshRow struct {
	given
	id         string
	attributes []attribute.Value // by schema position; nil if a run has them:
	from       *run
	place      uint32
	window     live.Window
}

// begin returns an empty batch.
func (t *tower) begin(s *live.State) *batch {
	return &batch{tower: t, state: s, refused: t.refusedBy(s), fresh: map[string]freshRow{}, misfits: map[string][]string{}}
}

// refusedBy returns those who are as unknown whatever the snapshot has, nil if nobody is.
func (t *tower) refusedBy(s *live.State) shard.Refused {
	if t.kind == shard.Users {
		if forgotten := s.Forgotten(); forgotten.Len() > 0 {
			return forgotten
		}
	} else if down := s.TakenDown(); down.Len() > 0 {
		return down
	}
	return nil
}

// refuse returns a tower that was published, which refuses whom the state does.
func (t *tower) refuse(published *shard.Tower, s *live.State) (*shard.Tower, error) {
	parts, hashed := published.Parts(), len(t.locals)
	return published.With(parts[:hashed], parts[hashed:], t.refusedBy(s))
}

// checkEvery is how many rows pass between two looks at a context.
const checkEvery = 1024

// addAll adds all that the state has, to a tower that has nothing over it.
func (b *batch) addAll(ctx context.Context) error {
	b.resize()
	n := 0
	for id := range b.state.Records(b.kind) {
		if n++; n%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		b.add(id)
	}
	if b.kind == shard.Users {
		for h := range b.state.Forgotten().All() {
			b.addHash(h)
		}
		return nil
	}
	down := b.state.TakenDown()
	if down.Len()/max(b.share.of, 1) < b.base.Rows()/4 {
		for id := range down.All() {
			if n++; n%checkEvery == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			b.add(id)
		}
		return nil
	}
	for number, l := range b.locals {
		s := l.Shard()
		for ordinal := range uint32(s.Rows()) {
			if ordinal%checkEvery == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if down.Has(s.ID(ordinal)) {
				b.rows[number][ordinal] = shard.OverlaidRow{Ordinal: ordinal, Dead: true}
			}
		}
	}
	return nil
}

// resize makes room for what shards and runs there are.
func (b *batch) resize() {
	b.rows, b.inRuns = make([]map[uint32]shard.OverlaidRow, len(b.locals)), make([]map[uint32]shard.OverlaidRow, len(b.runs))
	for i := range b.rows {
		b.rows[i] = map[uint32]shard.OverlaidRow{}
	}
	for i := range b.inRuns {
		b.inRuns[i] = map[uint32]shard.OverlaidRow{}
	}
}

// addChange adds the app or user that a change is about.
func (b *batch) addChange(c *live.Change) {
	if c.Entity != "" {
		b.add(c.Entity)
	}
	if c.User != (live.UserHash{}) {
		b.addHash(c.User)
	}
}

// addHash adds the user of a hash, if the snapshot has one.
func (b *batch) addHash(h live.UserHash) {
	forgotten := b.state.Forgotten()
	if forgotten.Len() == 0 {
		return // who comes back is known by the id
	}
	if b.hashes == nil {
		b.hashes = hashesOf(b.locals, forgotten)
	}
	prefix := prefixOf(h)
	for number, list := range b.hashes {
		s := b.locals[number].Shard()
		at, _ := slices.BinarySearchFunc(list, prefix, func(h hashed, prefix uint64) int { return cmp.Compare(h.prefix, prefix) })
		for ; at < len(list) && list[at].prefix == prefix; at++ {
			if id := s.ID(list[at].ordinal); hashOf(forgotten, id) == h {
				b.add(id)
			}
		}
	}
}

// add adds an app or user, as it is by now, if it is one of the tower's.
func (b *batch) add(id string) {
	if !b.share.has(id) {
		return
	}
	if b.rows == nil {
		b.resize()
	}
	r := b.rowOf(id)
	b.misfits[id] = r.misfits
	if number, ordinal, ok := b.find(id); ok {
		b.rows[number][ordinal] = shard.OverlaidRow{
			Ordinal: ordinal, Dead: r.dead, From: r.window.From, Until: r.window.Until,
			Attributes: b.over(b.locals[number].Shard(), ordinal, r.set),
		}
	}
	delete(b.fresh, id)
	for i, run := range b.runs {
		ordinal, ok := run.local.Shard().Ordinal(id)
		if !ok {
			continue
		}
		// What has been written once, and is the same, is taken up again.
		same := r.fresh != nil && run.given[ordinal].is(r.fresh)
		if same || !run.over.IsDead(ordinal) {
			b.inRuns[i][ordinal] = shard.OverlaidRow{Ordinal: ordinal, Dead: !same, From: r.window.From, Until: r.window.Until}
		}
		if same {
			r.fresh = nil
		}
	}
	if r.fresh != nil {
		b.fresh[id] = freshRow{
			given: given{r.fresh.Vector, r.fresh.Attributes, sizeOf(id, r.fresh.Vector, r.attributes)},
			id:    id, attributes: r.attributes, window: r.window,
		}
	}
}

// commit makes the tower what the batch says.
func (b *batch) commit() error {
	at := b.state.Position().Shard()
	t := b.tower
	overlays := slices.Clone(t.overlays)
	for i, o := range overlays {
		var rows []shard.OverlaidRow
		if b.rows != nil {
			rows = sorted(b.rows[i])
		}
		var err error
		if overlays[i], err = o.With(at, rows); err != nil {
			return err
		}
	}
	runs, made, err := b.nextRuns(at)
	if err != nil {
		return err
	}
	hashed, beside := make([]shard.Part, len(t.locals)), make([]shard.Part, len(runs))
	for i, o := range overlays {
		hashed[i] = o.Part()
	}
	for i, r := range runs {
		beside[i] = r.over.Part()
	}
	refused := b.refused
	if t.share.of > 0 {
		refused = nil // who asks shards one by one refuses by itself, and past positions keep no set
	}
	current, err := t.base.With(hashed, beside, refused)
	if err != nil {
		return err
	}
	t.overlays, t.runs, t.made, t.current = overlays, runs, made, current
	t.tell(b.misfits)
	return nil
}

// sorted returns rows in ascending order of their ordinals.
func sorted(rows map[uint32]shard.OverlaidRow) []shard.OverlaidRow {
	list := slices.Collect(maps.Values(rows))
	slices.SortFunc(list, func(a, b shard.OverlaidRow) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	return list
}

// toldMisfits is how many misfits a status has.
const toldMisfits = 10

// tell takes in which apps or users do not fit.
func (t *tower) tell(misfits map[string][]string) {
	differs := false
	for id, list := range misfits {
		before := t.misfits[id]
		if slices.Equal(before, list) {
			continue
		}
		differs = true
		t.count += len(list) - len(before)
		if len(list) == 0 {
			delete(t.misfits, id)
		} else {
			t.misfits[id] = list
		}
	}
	if !differs {
		return
	}
	first := lowest.New(toldMisfits, strings.Compare)
	for id := range t.misfits {
		first.Add(id)
	}
	t.told = nil
	for _, id := range first.Sorted() {
		t.told = append(t.told, t.misfits[id]...)
	}
	t.told = slices.Clip(t.told[:min(len(t.told), toldMisfits)])
}

// status says what lies over the tower.
func (t *tower) status() TowerStatus {
	s := TowerStatus{Misfits: t.told, MisfitCount: t.count, Runs: len(t.runs)}
	for _, o := range t.overlays {
		s.Dead += o.Dead()
		s.Changed += o.Changed()
		s.Windows += o.Windows()
		s.Layers += o.Layers()
	}
	for _, r := range t.runs {
		s.Fresh += r.over.Rows()
		s.Windows += r.over.Windows()
		s.FreshBytes += r.bytes
	}
	return s
}
