package server

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// modelWindow is when an app may be returned; a zero time is no bound.
type modelWindow struct{ from, until time.Time }

func (w modelWindow) contains(t time.Time) bool {
	return (w.from.IsZero() || !t.Before(w.from)) && (w.until.IsZero() || t.Before(w.until))
}

// modelEvent is a change of one app or user.
type modelEvent struct {
	id       string // empty: none is given
	kind     live.Kind
	tower    shard.Kind
	entity   string
	reason   string
	version  string // of an upsert
	vector   []float32
	values   modelValues // of SetAttributes: nil ends what there was
	window   *modelWindow
	sequence uint64 // of the entry that has it
}

// same reports whether two events change the same, so that one id may name both.
func (e *modelEvent) same(o *modelEvent) bool { return e.content() == o.content() }

func (e *modelEvent) content() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %q %q %q %q %v", e.kind, e.tower, e.entity, e.reason, e.version, e.vector)
	for _, name := range slices.Sorted(maps.Keys(e.values)) {
		fmt.Fprintf(&b, " %s=%T:%v", name, e.values[name], e.values[name])
	}
	if e.window != nil {
		fmt.Fprintf(&b, " %v %v", e.window.from, e.window.until)
	}
	return b.String()
}

// wire returns the event as a message has it.
func (e *modelEvent) wire() *tandemv1.LiveEvent {
	out := &tandemv1.LiveEvent{EventId: e.id}
	tower := tandemv1.Tower_TOWER_UNSPECIFIED
	if e.tower == shard.Users {
		tower = tandemv1.Tower_TOWER_USERS
	}
	set, clear := map[string]*tandemv1.AttributeValue{}, []string(nil)
	for _, name := range slices.Sorted(maps.Keys(e.values)) {
		if e.values[name] == nil {
			clear = append(clear, name)
		} else {
			set[name] = wireOfModel(e.values[name])
		}
	}
	var window *tandemv1.Window
	if e.window != nil {
		window = &tandemv1.Window{}
		if !e.window.from.IsZero() {
			window.From = timestamppb.New(e.window.from)
		}
		if !e.window.until.IsZero() {
			window.Until = timestamppb.New(e.window.until)
		}
	}
	switch e.kind {
	case live.Takedown:
		out.Change = &tandemv1.LiveEvent_Takedown{Takedown: &tandemv1.Takedown{App: e.entity, Reason: e.reason}}
	case live.Restore:
		out.Change = &tandemv1.LiveEvent_Restore{Restore: &tandemv1.Restore{App: e.entity, Reason: e.reason}}
	case live.Upsert:
		out.Change = &tandemv1.LiveEvent_Upsert{Upsert: &tandemv1.Upsert{
			Tower: tower, Id: e.entity, ModelVersion: e.version, Vector: e.vector, Attributes: set, Window: window,
		}}
	case live.SetAttributes:
		out.Change = &tandemv1.LiveEvent_SetAttributes{SetAttributes: &tandemv1.SetAttributes{
			Tower: tower, Id: e.entity, Attributes: set, Clear: clear, Window: window,
		}}
	case live.Remove:
		out.Change = &tandemv1.LiveEvent_Remove{Remove: &tandemv1.Remove{Tower: tower, Id: e.entity, Reason: e.reason}}
	case live.Forget:
		out.Change = &tandemv1.LiveEvent_ForgetUser{ForgetUser: &tandemv1.ForgetUser{User: e.entity}}
	}
	return out
}

// logged returns the event as package live has it.
func (e *modelEvent) logged() live.Event {
	out := live.Event{
		ID: e.id, Kind: e.kind, Tower: e.tower, Entity: e.entity, Reason: e.reason, ModelVersion: e.version, Vector: e.vector,
	}
	if e.version != "" {
		out.Model = "feed"
	}
	if len(e.values) > 0 {
		out.Attributes = map[string]attribute.Value{}
	}
	for name, v := range e.values {
		out.Attributes[name] = attributeOfModel(v)
	}
	if e.window != nil {
		out.Window = &live.Window{From: e.window.from, Until: e.window.until}
	}
	return out
}

// modelKey names an app or user.
type modelKey struct {
	tower  shard.Kind
	entity string
}

// modelLog is the live log as the model has it: what counts, in order.
type modelLog struct {
	of   map[modelKey][]*modelEvent
	ids  map[string]*modelEvent
	last uint64 // the number of the last entry

	settled []modelSettled
}

func newModelLog() *modelLog {
	return &modelLog{of: map[modelKey][]*modelEvent{}, ids: map[string]*modelEvent{}}
}

// judge says of events that are written together how many were written before, and whether one
// has the id of another event.
func (l *modelLog) judge(events []*modelEvent) (repeated int, conflict bool) {
	own := map[string]*modelEvent{}
	for _, e := range events {
		if e.id == "" {
			continue
		}
		old := l.ids[e.id]
		if old == nil {
			old = own[e.id]
		}
		switch {
		case old == nil:
			own[e.id] = e
		case old.same(e):
			repeated++
		default:
			conflict = true
		}
	}
	return repeated, conflict
}

// add has those of some events count that do not yet, in an entry.
func (l *modelLog) add(events []*modelEvent, sequence uint64) {
	l.last = max(l.last, sequence)
	for _, e := range events {
		if e.id != "" {
			if l.ids[e.id] != nil {
				continue
			}
			l.ids[e.id] = e
		}
		e.sequence = sequence
		key := modelKey{e.tower, e.entity}
		l.of[key] = append(l.of[key], e)
	}
}

// modelRow is an app or user of a snapshot with what lies over it.
type modelRow struct {
	id     string
	vector []float32
	values modelValues
	fresh  bool // it was upserted since
	window modelWindow
}

// modelSnapshot is what a snapshot was built of.
type modelSnapshot struct {
	name    string
	digest  manifest.Digest
	version string
	metric  index.Metric
	shards  int
	inputs  uint64 // the entry that its inputs reflect
	mean    []float32
	rows    map[shard.Kind]map[string]*modelRow
}

// fits reports whether a vector can be one of the snapshot.
func (s *modelSnapshot) fits(v []float32) bool { return fitsModel(s.version, s.metric, v) }

func fitsModel(version string, metric index.Metric, v []float32) bool {
	return len(v) == modelDims[version] && (metric != index.Cosine || slices.ContainsFunc(v, func(x float32) bool { return x != 0 }))
}

// modelFound is what a log amounts to for an app or user of a snapshot.
type modelFound struct {
	row  *modelRow   // nil if there is none, or it is taken down
	down *modelEvent // the takedown that holds
	base bool        // the snapshot has a row of it
	kept *modelRow   // what row is but for a takedown
}

// there reports whether a tower has it at a time.
func (f modelFound) there(now time.Time) bool { return f.row != nil && f.row.window.contains(now) }

// find says what there is of an app or user in a snapshot, by all events up to an entry, one
// after the other. What its inputs reflect is in its rows already, but for takedowns, windows
// and who is forgotten.
func (l *modelLog) find(s *modelSnapshot, kind shard.Kind, id string, at uint64) (f modelFound) {
	schema := modelSchemas[s.version][kind]
	own := s.rows[kind][id] // what the snapshot has
	f.base = own != nil
	var old, fresh *modelRow // what it has with what was set since, and what was upserted since
	if own != nil {
		old = &modelRow{id: id, vector: own.vector, values: maps.Clone(own.values)}
	}
	var window modelWindow
	forgotten := false
	var since map[string]bool // the attributes of what was upserted that were set after that
	var raw modelValues       // the same as they came
	for _, e := range l.of[modelKey{kind, id}] {
		if e.sequence > at {
			break
		}
		counts := e.sequence > s.inputs
		if e.window != nil {
			window = *e.window
		}
		switch e.kind {
		case live.Takedown:
			f.down = e
		case live.Restore:
			f.down = nil
		case live.Forget:
			forgotten, fresh = true, nil
			if counts {
				old = nil
			}
		case live.Upsert:
			forgotten = false
			if counts && e.version == s.version {
				fresh = &modelRow{id: id, vector: e.vector, fresh: true}
				raw, since = maps.Clone(e.values), map[string]bool{}
				if raw == nil {
					raw = modelValues{}
				}
			}
		case live.SetAttributes:
			if !counts || forgotten {
				continue
			}
			for name, v := range e.values {
				if fresh != nil {
					raw[name], since[name] = v, true
				}
				if old != nil {
					if stored, ok := convertModel(v, schema[name]); ok {
						old.values[name] = stored
					} else {
						delete(old.values, name)
					}
				}
			}
		case live.Remove:
			if counts && !forgotten {
				old, fresh = nil, nil
			}
		}
	}
	if fresh != nil && !l.complete(s, fresh, raw, since, schema) {
		fresh = nil
	}
	if f.kept = cmp.Or(fresh, old); f.kept != nil {
		f.kept.window = window
	}
	if forgotten {
		f.kept = nil
	}
	if f.down == nil {
		f.row = f.kept
	}
	return f
}

// complete gives what was upserted its attributes, unless it does not fit the snapshot: then
// nothing of it counts there. What does not fit of what was set since it does not have.
func (l *modelLog) complete(s *modelSnapshot, fresh *modelRow, raw modelValues, since map[string]bool, schema map[string]attribute.Type) bool {
	if !s.fits(fresh.vector) {
		return false
	}
	fresh.values = modelValues{}
	for name, v := range raw {
		typ, known := schema[name]
		if v == nil || !known {
			continue
		}
		stored, ok := convertModel(v, typ)
		if !ok && !since[name] {
			return false
		}
		if ok {
			fresh.values[name] = stored
		}
	}
	return true
}

// all returns what there is of all apps or users in a snapshot.
func (l *modelLog) all(s *modelSnapshot, kind shard.Kind, at uint64) map[string]modelFound {
	out := map[string]modelFound{}
	for id := range s.rows[kind] {
		out[id] = l.find(s, kind, id, at)
	}
	for key := range l.of {
		if _, there := out[key.entity]; key.tower == kind && !there {
			out[key.entity] = l.find(s, kind, key.entity, at)
		}
	}
	return out
}

// upserted returns the apps or users of which something is kept, after an entry, that was
// upserted for a version.
func (l *modelLog) upserted(kind shard.Kind, version string, at uint64) map[string]bool {
	out := map[string]bool{}
	for key, events := range l.of {
		if key.tower != kind {
			continue
		}
		for _, e := range events {
			if e.sequence > at {
				break
			}
			switch {
			case e.kind == live.Upsert && e.version == version:
				delete(out, key.entity)
				if !l.isSettled(e, at) {
					out[key.entity] = true
				}
			case e.kind == live.Remove, e.kind == live.Forget:
				delete(out, key.entity)
			}
		}
	}
	return out
}

// takedowns counts the apps that are taken down after an entry, and forgotten the users who are
// forgotten.
func (l *modelLog) takedowns(at uint64) (down, forgotten int) {
	for key, events := range l.of {
		is := false
		for _, e := range events {
			if e.sequence > at {
				break
			}
			switch e.kind {
			case live.Takedown, live.Forget:
				is = true
			case live.Restore:
				is = false
			case live.Upsert:
				is = is && key.tower == shard.Apps
			}
		}
		switch {
		case is && key.tower == shard.Apps:
			down++
		case is:
			forgotten++
		}
	}
	return down, forgotten
}

// scoreModel is a metric's value. The vectors of the model are such that every step of it is
// exact, in whatever order it is done.
func scoreModel(metric index.Metric, a, b []float32) float32 {
	var dot, aa, bb, l2 float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		dot, aa, bb, l2 = dot+x*y, aa+x*x, bb+y*y, l2+(x-y)*(x-y)
	}
	switch metric {
	case index.Dot:
		return float32(dot)
	case index.Cosine:
		return float32(dot / math.Sqrt(aa) / math.Sqrt(bb))
	}
	return float32(l2)
}

// modelHit is a row with its score.
type modelHit struct {
	*modelRow
	score float32
}

// before reports whether a hit ranks before another.
func (h *modelHit) before(o *modelHit, metric index.Metric) bool {
	if h.score != o.score {
		return metric != index.L2 && h.score > o.score || metric == index.L2 && h.score < o.score
	}
	return h.id < o.id
}

// modelQuestion is a request, with what its filter means and where its page begins.
type modelQuestion struct {
	request *tandemv1.RetrieveRequest
	chain   []modelClause
	user    map[string]float64
	after   *modelHit // the candidate that the page before ended with; only its id and score are set
	rank    int       // of that
}

func (q *modelQuestion) kind() shard.Kind { return kindOf(q.request.Target) }

// modelAnswer is what the answer to a question must be.
type modelAnswer struct {
	metric   index.Metric
	rows     map[string]modelFound
	eligible []modelHit // best first
	taken    []modelHit // those that at_most leaves
	before   int        // how many of these are of earlier pages
	page     []modelHit
	score    func(*modelRow) float32
	self     string // the row that is the query itself
	fell     bool   // whether it is by the mean user
	now      time.Time
}

// modelMissing says what a question needs and a snapshot does not have.
type modelMissing string

// answer answers a question by a snapshot with all events up to an entry over it. It is nil if
// something is missing.
func (l *modelLog) answer(q *modelQuestion, s *modelSnapshot, at uint64, now time.Time) (*modelAnswer, modelMissing) {
	a := &modelAnswer{metric: s.metric, rows: l.all(s, q.kind(), at), now: now}
	vectors, self, missing := l.vectors(q.request, s, at, now)
	if missing != "" {
		return nil, missing
	}
	a.self = self
	a.fell = q.request.UserId != "" && !l.find(s, shard.Users, q.request.UserId, at).there(now)
	a.score = func(row *modelRow) float32 {
		best := modelHit{row, scoreModel(s.metric, vectors[0], row.vector)}
		for _, v := range vectors[1:] {
			if next := (modelHit{row, scoreModel(s.metric, v, row.vector)}); next.before(&best, s.metric) {
				best = next
			}
		}
		return best.score
	}
	for id, f := range a.rows {
		if f.there(now) && a.reason(q, id, f.row) == 0 {
			a.eligible = append(a.eligible, modelHit{f.row, a.score(f.row)})
		}
	}
	slices.SortFunc(a.eligible, func(x, y modelHit) int {
		switch {
		case x.before(&y, s.metric):
			return -1
		case y.before(&x, s.metric):
			return 1
		}
		return 0
	})
	counts := newModelCounts(q.request.AtMost)
	for _, h := range a.eligible {
		if i, _ := counts.full(h.values); i < 0 {
			counts.take(h.values)
			a.taken = append(a.taken, h)
		}
	}
	for q.after != nil && a.before < len(a.taken) && !q.after.before(&a.taken[a.before], s.metric) {
		a.before++
	}
	a.page = a.taken[a.before:min(a.before+int(q.request.K), len(a.taken))]
	return a, ""
}

// vectors returns those that a request searches with, and which row of its target it is itself.
func (l *modelLog) vectors(r *tandemv1.RetrieveRequest, s *modelSnapshot, at uint64, now time.Time) (vectors [][]float32, self string, missing modelMissing) {
	kind, id := shard.Users, r.UserId
	if r.AppId != "" {
		kind, id = shard.Apps, r.AppId
	}
	switch {
	case id != "":
		f := l.find(s, kind, id, at)
		if f.there(now) {
			if kind == kindOf(r.Target) {
				self = id
			}
			return [][]float32{f.row.vector}, self, ""
		}
		if r.Fallback != tandemv1.Fallback_FALLBACK_MEAN_USER {
			return nil, "", "entity"
		}
		if s.mean == nil {
			return nil, "", "mean"
		}
		return [][]float32{s.mean}, "", ""
	case len(r.Vectors) > 0:
		for _, v := range r.Vectors {
			vectors = append(vectors, v.Values)
		}
		return vectors, "", ""
	}
	return [][]float32{r.Vector}, "", ""
}

// reason says why a row that is there may not be returned, 0 if it may be.
func (a *modelAnswer) reason(q *modelQuestion, id string, row *modelRow) tandemv1.Verdict {
	r := q.request
	switch {
	case id == a.self:
		return tandemv1.Verdict_VERDICT_QUERY
	case slices.Contains(r.ExcludeIds, id):
		return tandemv1.Verdict_VERDICT_EXCLUDED
	case len(r.IncludeIds) > 0 && !slices.Contains(r.IncludeIds, id):
		return tandemv1.Verdict_VERDICT_NOT_INCLUDED
	case firstFalse(modelSegments[r.Segment], row.values, nil) != nil, firstFalse(q.chain, row.values, q.user) != nil:
		return tandemv1.Verdict_VERDICT_NOT_ELIGIBLE
	}
	return 0
}

// modelCounts count the candidates with each value of the attributes that are limited.
type modelCounts struct {
	limits []*tandemv1.AtMost
	taken  []map[any]int
}

func newModelCounts(limits []*tandemv1.AtMost) *modelCounts {
	c := &modelCounts{limits: limits}
	for range limits {
		c.taken = append(c.taken, map[any]int{})
	}
	return c
}

// eachOf returns the values that count of an attribute.
func eachOf(v modelValue) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []string:
		var list []any
		for _, s := range v {
			list = append(list, s)
		}
		return list
	}
	return []any{v}
}

func (c *modelCounts) take(v modelValues) {
	for i, limit := range c.limits {
		for _, each := range eachOf(v[limit.Attribute]) {
			c.taken[i][each]++
		}
	}
}

// full returns the place of the first limit that leaves no room for a row, -1 if all do, and
// the values of the row that there is no room for.
func (c *modelCounts) full(v modelValues) (place int, values []any) {
	for i, limit := range c.limits {
		for _, each := range eachOf(v[limit.Attribute]) {
			if c.taken[i][each] >= int(limit.N) {
				values = append(values, each)
			}
		}
		if values != nil {
			return i, values
		}
	}
	return -1, nil
}
