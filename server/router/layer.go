package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/overlay"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Layer is a snapshot whose shards nodes have, with what lies over it, at the position that
// queries are asked at. It goes on until it is closed. It is safe for any number of goroutines.
type Layer struct {
	router   *Router
	digest   manifest.Digest
	manifest *manifest.Manifest
	shape    overlay.Shape
	towers   [2]*base // apps, users
	now      atomic.Pointer[livelog.Laid]
	closed   bool // guarded by the router's mu
}

var _ livelog.Over = (*Layer)(nil)

// kinds are the towers, in the order of [Layer].towers.
var kinds = [...]shard.Kind{shard.Apps, shard.Users}

// base is one tower, as far as it is the same at all positions.
type base struct {
	kind  shard.Kind
	sets  []*set
	facts []fact       // of each
	tower *shard.Tower // with parts that nobody asks
}

// held is what a node says of a shard.
type held struct {
	rows, changed, dead, fresh int
	segmentRows                []int
}

func (b *base) info(number int, h held) shard.Info {
	s := b.sets[number]
	return shard.Info{Name: snapshots.ShardName(b.kind, s.of.Number), Elsewhere: true, Rows: h.rows, SegmentRows: h.segmentRows, Changed: h.changed}
}

// Now returns the snapshot with what lies over it, at the position that is asked now.
func (l *Layer) Now() *livelog.Laid { return l.now.Load() }

// Inputs returns the position that the snapshot's inputs reflect.
func (l *Layer) Inputs() shard.Position {
	if l.manifest.Live == nil {
		return shard.Position{}
	}
	return *l.manifest.Live
}

// Shape returns what must be known of the snapshot to tell whether events fit it.
func (l *Layer) Shape() *overlay.Shape { return &l.shape }

// End does nothing: nodes read the files.
func (l *Layer) End() {}

// Manifest returns the manifest, which the caller must not change.
func (l *Layer) Manifest() *manifest.Manifest { return l.manifest }

// Digest returns the snapshot's name.
func (l *Layer) Digest() manifest.Digest { return l.digest }

// Tower returns a tower, as it is asked now.
func (l *Layer) Tower(kind shard.Kind) *shard.Tower { return l.now.Load().Tower(kind) }

// Rows returns what nodes have of an id in a tower of a layer, whatever lies over it.
func Rows(ctx context.Context, t *shard.Tower, at shard.Moment, id string) (remote.Rows, error) {
	list := t.Parts()
	p, ok := list[shard.Partition(id, len(list))].(*part)
	if !ok {
		return remote.Rows{}, fmt.Errorf("rows of %s are on no node", list[0].Info().Name)
	}
	return p.rows(ctx, at, t.Dim(), id)
}

// Trim lets go of the memory that nobody needed since it was called last.
func (l *Layer) Trim() {
	for _, b := range l.towers {
		b.tower.Trim()
	}
}

// Close has nodes told that the snapshot is not used any more.
func (l *Layer) Close() error {
	l.router.mu.Lock()
	was := l.closed
	l.closed = true
	delete(l.router.layers, l)
	l.router.mu.Unlock()
	if !was {
		l.router.use(l.digest, -1)
	}
	return nil
}

// NotReadyError says which shards too few nodes are ready for.
type NotReadyError struct {
	Snapshot manifest.Digest
	Want     int
	Missing  []Missing
}

// Missing is a shard for which too few nodes are ready.
type Missing struct {
	Of    remote.ShardID
	Ready int
	Why   string // what those that are not ready say; empty if none is to hold it
}

// Error implements error. It tells of the first few.
func (e *NotReadyError) Error() string {
	const told = 3
	var texts []string
	for _, m := range e.Missing[:min(len(e.Missing), told)] {
		text := fmt.Sprintf("%s %d of %d: %d ready", m.Of.Tower, m.Of.Number, m.Of.Of, m.Ready)
		if m.Why != "" {
			text += " (" + m.Why + ")"
		}
		texts = append(texts, text)
	}
	if more := len(e.Missing) - told; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("snapshot %s: want %d nodes ready for each shard: %s", e.Snapshot.Short(), e.Want, strings.Join(texts, "; "))
}

// Open returns a snapshot once enough nodes are ready for each of its shards: as many as there
// are to be replicas, or all that there are if that is fewer, or 1 if that is all that is
// asked for. It waits for as long as patience; the error is that of ctx or a [*NotReadyError].
func (r *Router) Open(ctx context.Context, d manifest.Digest, m *manifest.Manifest, one bool, patience time.Duration) (*Layer, error) {
	l := &Layer{router: r, digest: d, manifest: m, shape: overlay.Shape{
		Model: m.Model, ModelVersion: m.ModelVersion, Dim: m.Dim, Metric: m.Metric, Apps: m.Apps.Schema, Users: m.Users.Schema,
	}}
	for i, kind := range kinds {
		b := &base{kind: kind}
		n := len(m.Tower(kind).Shards)
		for number := range n {
			s := &set{of: remote.ShardID{Snapshot: d, Tower: kind, Number: number, Of: n}, router: r}
			s.now.Store(&[]replica{})
			b.sets = append(b.sets, s)
		}
		l.towers[i] = b
	}
	r.use(d, 1)
	r.mu.Lock()
	r.layers[l] = struct{}{}
	r.mu.Unlock()
	if err := l.open(ctx, one, patience); err != nil {
		_ = l.Close() // it has no error
		return nil, err
	}
	return l, nil
}

func (l *Layer) open(ctx context.Context, one bool, patience time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l.router.changed()
	for {
		l.router.mu.Lock()
		updated := l.router.updated
		l.router.mu.Unlock()
		err := l.short(one)
		if err == nil {
			err = l.begin(waiting)
		}
		_, gone := errors.AsType[*NoReplicaError](err) // since it was counted
		_, short := errors.AsType[*NotReadyError](err)
		if err == nil || !gone && !short && !errors.Is(err, errApart) {
			return err
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		case <-updated:
		}
	}
}

// errApart is the class of errors that pass as nodes go on with the live log.
var errApart = errors.New("its shards have no position in common, or the live log is not read yet")

// begin has the snapshot be asked, once what does not change of its shards is known.
func (l *Layer) begin(ctx context.Context) error {
	for _, b := range l.towers {
		if b.tower != nil { // this goroutine has set it
			continue
		}
		tower, err := b.learn(ctx, l.manifest)
		if err != nil {
			return err
		}
		l.router.mu.Lock()
		b.tower = tower
		l.router.mu.Unlock()
	}
	l.router.mu.Lock()
	defer l.router.mu.Unlock()
	if l.lay(l.router.clock()); l.now.Load() == nil {
		return fmt.Errorf("open snapshot %s: %w", l.digest.Short(), errApart)
	}
	return nil
}

// learn asks for what does not change of the shards, and returns a tower that says so. Nodes may
// cease to be ready meanwhile.
func (b *base) learn(ctx context.Context, m *manifest.Manifest) (*shard.Tower, error) {
	b.facts = make([]fact, len(b.sets))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i, s := range b.sets {
		g.Go(func() error {
			list := *s.now.Load()
			if len(list) == 0 {
				return &NoReplicaError{Of: s.of}
			}
			at := shard.Position{Log: list[0].log, Sequence: list[0].newest}
			var facts [2]fact
			won, err := s.do(ctx, at, &s.other, func(ctx context.Context, n *remote.Node, to slot) (err error) {
				facts[to].GetShardResponse, facts[to].model, err = n.GetShard(ctx, s.of, shard.Moment{Snapshot: string(s.of.Snapshot), Position: at, Time: s.router.clock()})
				return err
			})
			b.facts[i] = facts[won]
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("learn about shards: %w", err)
	}
	parts := make([]shard.Part, len(b.sets))
	for i, s := range b.sets {
		list := *s.now.Load()
		if len(list) == 0 {
			return nil, &NoReplicaError{Of: s.of}
		}
		parts[i] = &part{set: s, info: b.partInfo(i, list[0].held, m)}
	}
	tower, err := shard.NewTowerOf(b.kind, parts, len(parts), m.Metric, m.Dim, m.Tower(b.kind).Schema)
	if err != nil {
		return nil, err
	}
	var unformed []string
	for _, f := range b.facts {
		unformed = append(unformed, remote.Texts(f.GetUnformedIds())...)
	}
	tower.KnowForms(unformed)
	return tower, nil
}

// partInfo is what a tower knows of a shard.
func (b *base) partInfo(number int, h held, m *manifest.Manifest) shard.Info {
	info := b.info(number, h)
	info.Segments = m.Tower(b.kind).SegmentList()
	if len(info.SegmentRows) != len(info.Segments) {
		info.SegmentRows = make([]int, len(info.Segments))
	}
	info.Costs = b.facts[number].costs(h.dead)
	return info
}

// short returns which shards too few nodes are ready for, nil if there are enough.
func (l *Layer) short(one bool) error {
	r := l.router
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen.view == nil {
		return fmt.Errorf("open snapshot %s: %w", l.digest.Short(), errApart)
	}
	nodes := 0
	for _, m := range r.members {
		if m.status != nil && m.left.IsZero() && !m.Leaving && m.status.GetPhase() != shardv1.NodePhase_NODE_PHASE_STOPPING {
			nodes++
		}
	}
	e := &NotReadyError{Snapshot: l.digest, Want: max(min(r.o.Replicas, nodes), 1)}
	if one {
		e.Want = 1
	}
	for _, b := range l.towers {
		for _, s := range b.sets {
			if n := len(*s.now.Load()); n < e.Want {
				e.Missing = append(e.Missing, Missing{Of: s.of, Ready: n, Why: r.why(s.of)})
			}
		}
	}
	if len(e.Missing) == 0 {
		return nil
	}
	return e
}

// why says what nodes that are not ready for a shard say of it.
func (r *Router) why(of remote.ShardID) string {
	var texts []string
	for _, m := range r.members {
		h := find(m.status, of)
		switch {
		case h == nil:
		case h.GetState() == shardv1.HeldState_HELD_STATE_FAILED:
			texts = append(texts, fmt.Sprintf("%s: %.200s", m.address, h.GetError()))
		case h.GetState() == shardv1.HeldState_HELD_STATE_LOADING:
			texts = append(texts, m.address+": loading")
		}
	}
	slices.Sort(texts)
	return strings.Join(texts[:min(len(texts), 3)], ", ")
}

// find returns what a node says of a shard, nil if nothing.
func find(s *shardv1.NodeStatus, of remote.ShardID) *shardv1.HeldShard {
	for _, snapshot := range s.GetSnapshots() {
		if snapshot.GetSnapshot() != string(of.Snapshot) {
			continue
		}
		for _, h := range snapshot.GetShards() {
			if int(h.GetNumber()) == of.Number && kindOf(h.GetTower()) == of.Tower {
				return h
			}
		}
	}
	return nil
}

func kindOf(t tandemv1.Tower) shard.Kind {
	if t == tandemv1.Tower_TOWER_USERS {
		return shard.Users
	}
	return shard.Apps
}

// heldAt returns what is said of a shard at a position, or at another one if nobody says that.
func heldAt(list []replica, at shard.Position) held {
	i := slices.IndexFunc(list, func(r replica) bool { return r.log == at.Log && r.newest == at.Sequence })
	return list[max(i, 0)].held
}

// lay has queries asked at the position that is best now. The caller holds the router's mu.
func (l *Layer) lay(now time.Time) {
	view := l.router.seen.view
	if view == nil || l.towers[0].tower == nil || l.towers[1].tower == nil {
		return
	}
	last := l.now.Load()
	at, ok := l.choose(view, last, now)
	if !ok {
		if last == nil {
			return
		}
		at = last.Position()
	}
	proved := view
	if last, lags := l.router.seen.proved(at); lags { // what came after is not in the shards
		old := *view
		old.Proof = live.NewProof(last)
		proved = &old
	}
	if last != nil && last.Position() == at && (last.View == view || last.View.Position == view.Position && proved != view) {
		return
	}
	next := &overlay.Overlaid{Position: at}
	for i, b := range l.towers {
		parts := make([]shard.Part, len(b.sets))
		status := &next.Status.Apps
		if i == 1 {
			status = &next.Status.Users
		}
		for number, s := range b.sets {
			info := b.tower.Parts()[number].Info()
			if list := *s.now.Load(); len(list) > 0 {
				h := heldAt(list, at)
				info.Rows, info.Changed, info.Costs = h.rows, h.changed, b.facts[number].costs(h.dead)
				if len(h.segmentRows) == len(info.Segments) {
					info.SegmentRows = h.segmentRows
				}
				status.Dead += h.dead
				status.Changed += h.changed
				status.Fresh += h.fresh
			}
			parts[number] = &part{set: s, at: at, info: info, names: remote.NewNames(l.manifest.Metric)}
		}
		var refused shard.Refused
		if i == 0 && view.Down.Len() > 0 {
			refused = view.Down
		} else if i == 1 && view.Forgotten.Len() > 0 {
			refused = view.Forgotten
		}
		t, err := b.tower.With(parts, nil, refused)
		if err != nil {
			return // there are as many parts as there were
		}
		if i == 0 {
			next.Apps = t
		} else {
			next.Users = t
		}
	}
	l.now.Store(&livelog.Laid{Overlaid: next, View: proved})
}
