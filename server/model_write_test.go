package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
)

// drawEvents draws the events of one write.
func (w *modelWorld) drawEvents() (list []*modelEvent) {
	for range between(w.t, 1, 5, "events") {
		list = append(list, w.drawEvent())
	}
	return list
}

// drawEvent draws an event, most likely one that fits what serves.
func (w *modelWorld) drawEvent() *modelEvent {
	t := w.t
	if len(w.named) > 0 && between(t, 0, 7, "sent again") == 7 {
		return w.again(oneOf(t, w.named, "event"))
	}
	e := &modelEvent{tower: shard.Apps}
	e.kind = oneOf(t, []live.Kind{
		live.Takedown, live.Restore, live.Upsert, live.Upsert, live.Upsert, live.SetAttributes, live.SetAttributes, live.SetAttributes, live.Remove, live.Forget,
	}, "kind")
	switch e.kind {
	case live.Upsert, live.SetAttributes, live.Remove:
		if between(t, 0, 3, "tower") == 3 {
			e.tower = shard.Users
		}
	case live.Forget:
		e.tower = shard.Users
	}
	e.entity = drawID(t, e.tower)
	if e.kind == live.Takedown || e.kind == live.Restore || e.kind == live.Remove {
		e.reason = "because"
	}
	apt := between(t, 0, 11, "apt") < 11
	if e.kind == live.Upsert {
		e.version = oneOf(t, []string{modelV1, modelV2, modelV3}, "version")
		e.vector = modelVector(e.version, w.metric, between(t, 0, 60, "vector"))
		if !apt && rapid.Bool().Draw(t, "another dimension") {
			e.vector = append(slices.Clone(e.vector), 1)
		}
	}
	if e.kind == live.Upsert || e.kind == live.SetAttributes {
		e.values = w.drawValues(e, apt)
		if e.tower == shard.Apps && (between(t, 0, 3, "with a window") == 3 || len(e.values) == 0) {
			e.window = w.drawWindow()
		}
	}
	if e.kind == live.SetAttributes && len(e.values) == 0 && e.window == nil {
		e.values = modelValues{"country": nil}
	}
	if between(t, 0, 2, "with an id") == 2 {
		e.id = w.newID()
	}
	return e
}

func (w *modelWorld) newID() string {
	w.names++
	return fmt.Sprint("e", w.names)
}

// again returns an event that is to be written again, or another one of its id.
func (w *modelWorld) again(of *modelEvent) *modelEvent {
	e := *of
	if between(w.t, 0, 9, "but another") == 9 {
		if e.entity += "x"; len(e.entity) > 200 {
			e.entity = "y"
		}
	}
	return &e
}

// drawValues draws attributes of an event; apt ones fit what it is for.
func (w *modelWorld) drawValues(e *modelEvent, apt bool) modelValues {
	t := w.t
	versions := []string{e.version}
	if e.kind == live.SetAttributes {
		versions = servedVersions(w.released[w.generation])
	}
	values := modelValues{}
	for _, name := range slices.Sorted(maps.Keys(modelPool[e.tower])) {
		if between(t, 0, 2, name) < 2 {
			continue
		}
		var pool []modelValue
		for _, v := range modelPool[e.tower][name] {
			if !apt || fitsAll(versions, e.tower, name, v) {
				pool = append(pool, v)
			}
		}
		if e.kind == live.SetAttributes && (!apt || fitsAll(versions, e.tower, name, nil)) {
			pool = append(pool, nil) // ends what there was
		}
		if len(pool) > 0 {
			values[name] = oneOf(t, pool, "value")
		}
	}
	return values
}

// fitsAll reports whether some of versions, as far as there are snapshots of them, have an
// attribute, and all that have can have a value of it; nil is none.
func fitsAll(versions []string, kind shard.Kind, name string, v modelValue) bool {
	known, has := false, false
	for _, version := range versions {
		schema, ok := modelSchemas[version]
		known = known || ok
		typ, ok := schema[kind][name]
		if !ok {
			continue
		}
		has = true
		if _, ok := convertModel(v, typ); v != nil && !ok {
			return false
		}
	}
	return has || !known
}

// drawWindow draws a window about the time that it is.
func (w *modelWorld) drawWindow() *modelWindow {
	bound := func(label string) time.Time {
		n := between(w.t, -3, 4, label)
		if n == 4 {
			return time.Time{}
		}
		return w.now().Truncate(time.Hour).Add(time.Duration(n) * time.Hour)
	}
	out := &modelWindow{bound("from"), bound("until")}
	if !out.from.IsZero() && !out.until.IsZero() && !out.from.Before(out.until) {
		out.until = out.from.Add(time.Hour)
	}
	return out
}

// fitsReleases says whether events fit all arms of all releases that a server may judge them
// by, and whether they fit those of any. What was written before is not judged again, or may be.
func (w *modelWorld) fitsReleases(s *modelServer, events []*modelEvent) (all, some bool) {
	all = true
	for _, g := range w.generations(s) {
		fits, certain := true, true
		for _, e := range events {
			var versions []string // that it counts in
			for _, a := range g.Arms {
				if e.kind == live.Upsert && e.version == a.ModelVersion || e.kind == live.SetAttributes {
					versions = append(versions, a.ModelVersion)
				}
			}
			ok := e.kind != live.Upsert || len(versions) == 0 || fitsModel(e.version, w.metric, e.vector)
			for name, v := range e.values {
				ok = ok && fitsAll(versions, e.tower, name, v)
			}
			certain = certain && ok
			fits = fits && (ok || e.id != "" && w.log.ids[e.id] != nil)
		}
		all, some = all && certain, some || fits
	}
	return all, some
}

// mayBeFull says whether events may be refused for want of room by one who has read the log to
// the end, or not so far.
func (w *modelWorld) mayBeFull(from uint64, events []*modelEvent) bool {
	for at := from; at <= w.log.last; at++ {
		if w.full(events, at) {
			return true
		}
	}
	return false
}

// full says whether, after an entry, there is no room for events, if what they free themselves
// does not count before they are written.
func (w *modelWorld) full(events []*modelEvent, at uint64) bool {
	type of struct {
		tower   shard.Kind
		version string
	}
	more := map[of]map[string]bool{}
	known := func(e *modelEvent) bool {
		old := w.log.ids[e.id]
		return e.id != "" && old != nil && old.sequence <= at
	}
	for i, e := range events {
		// What the events themselves remove again needs no room.
		undone := slices.ContainsFunc(events[i+1:], func(o *modelEvent) bool {
			return (o.kind == live.Remove || o.kind == live.Forget) && o.tower == e.tower && o.entity == e.entity && !known(o)
		})
		if e.kind != live.Upsert || known(e) || undone {
			continue
		}
		key := of{e.tower, e.version}
		if more[key] == nil {
			more[key] = map[string]bool{}
		}
		more[key][e.entity] = true
	}
	for key, ids := range more {
		have := w.log.upserted(key.tower, key.version, at)
		n := len(have)
		for id := range ids {
			if !have[id] {
				n++
			}
		}
		if n > w.rows && n > len(have) {
			return true
		}
	}
	return false
}

// write writes events through a server.
func (w *modelWorld) write() {
	events := w.drawEvents()
	if between(w.t, 0, 7, "as a stream") == 7 {
		w.importAll(w.drawServer(), events)
		return
	}
	w.writeTo(w.drawServer(), events)
}

func wireOfAll(events []*modelEvent) *tandemv1.WriteRequest {
	r := &tandemv1.WriteRequest{Author: "model"}
	for _, e := range events {
		r.Events = append(r.Events, e.wire())
	}
	return r
}

func (w *modelWorld) writeTo(s *modelServer, events []*modelEvent) {
	got, err := s.live.Write(context.Background(), connect.NewRequest(wireOfAll(events)))
	if err != nil {
		w.notWritten(s, events, err)
		return
	}
	w.written(s, events, got.Msg.Position, int(got.Msg.RepeatedEvents))
}

// missingOf finds which events of a message there was no room for, where others were written.
var missingOf = regexp.MustCompile(`not written of the \d+ events: ([0-9, to]+), counted from 0; all others are in the log, up to entry (\d+)`)

// partly returns those events of a message that were written, and where, though there was no
// room for others. Nothing but these may be left out, and what changes the same ids later.
func (w *modelWorld) partly(events []*modelEvent, text string) (written []*modelEvent, at uint64) {
	found := missingOf.FindStringSubmatch(text)
	if found == nil {
		for _, e := range events {
			require.Contains(w.t, []live.Kind{live.Upsert, live.SetAttributes}, e.kind, "%s\n%s", text, describeEvents(events))
		}
		return nil, 0
	}
	missing := map[int]bool{}
	for part := range strings.SplitSeq(found[1], ", ") {
		first, last, _ := strings.Cut(part, " to ")
		from, err := strconv.Atoi(first)
		require.NoError(w.t, err)
		to, err := strconv.Atoi(cmp.Or(last, first))
		require.NoError(w.t, err)
		for i := from; i <= to; i++ {
			missing[i] = true
		}
	}
	late := map[modelKey]bool{}
	for i, e := range events {
		key := modelKey{e.tower, e.entity}
		if !missing[i] {
			written = append(written, e)
			continue
		}
		require.True(w.t, e.kind == live.Upsert || e.kind == live.SetAttributes && late[key], "%s\n%s", text, describeEvents(events))
		late[key] = true
	}
	at, err := strconv.ParseUint(found[2], 10, 64)
	require.NoError(w.t, err)
	return written, at
}

// notWritten judges why events were not written: nothing of them was, but for what needs no
// room.
func (w *modelWorld) notWritten(s *modelServer, events []*modelEvent, err error) {
	reason, text := modelReason(err)
	w.report.refused[reason]++
	_, conflict := w.log.judge(events)
	all, _ := w.fitsReleases(s, events)
	full := w.full(events, w.log.last)
	switch reason {
	case "EVENT_INVALID":
		require.False(w.t, all, "%s\n%s", text, describeEvents(events))
	case "EVENT_CONFLICT":
		require.True(w.t, conflict, "%s\n%s", text, describeEvents(events))
	case "FRESH_FULL":
		require.True(w.t, full, "%s\n%s", text, describeEvents(events))
		if written, at := w.partly(events, text); len(written) > 0 {
			known, _ := w.log.judge(written)
			w.written(s, written, &tandemv1.LivePosition{Sequence: at}, known)
		}
	default:
		w.t.Fatalf("server %s does not write: %s\n%s", s.name, text, describeEvents(events))
	}
}

// written notes that events were written, if they may have been.
func (w *modelWorld) written(s *modelServer, events []*modelEvent, at *tandemv1.LivePosition, repeated int) {
	t := w.t
	known, conflict := w.log.judge(events)
	require.False(t, conflict, "an id is that of another event:\n%s", describeEvents(events))
	if s != nil {
		_, some := w.fitsReleases(s, events)
		require.True(t, some, "events do not fit what serves:\n%s", describeEvents(events))
	}
	require.False(t, w.full(events, w.log.last), "there is no room for:\n%s", describeEvents(events))
	require.Equal(t, known, repeated, "repeated:\n%s", describeEvents(events))
	if known == len(events) {
		require.LessOrEqual(t, at.GetSequence(), w.log.last)
		for _, e := range events {
			require.GreaterOrEqual(t, at.GetSequence(), w.log.ids[e.id].sequence)
		}
	} else {
		require.Equal(t, w.log.last+1, at.GetSequence())
	}
	w.add(events, at.GetSequence())
	if s != nil {
		s.sequence = max(s.sequence, at.GetSequence())
	}
}

// add has events count in the model.
func (w *modelWorld) add(events []*modelEvent, sequence uint64) {
	if sequence > w.log.last {
		w.report.entries++
	}
	for _, e := range events {
		if e.id != "" && w.log.ids[e.id] == nil {
			w.named = append(w.named, e)
			w.named = w.named[max(len(w.named)-12, 0):]
		}
	}
	w.log.add(events, sequence)
	w.report.events += len(events)
	w.t.Logf("entry %d:\n%s", sequence, describeEvents(events))
}

func describeEvents(events []*modelEvent) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "  %s %s\n", e.id, e.content())
	}
	return b.String()
}

// importAll writes events as a stream of one message or two.
func (w *modelWorld) importAll(s *modelServer, events []*modelEvent) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := between(w.t, 1, len(events), "in the first message")
	messages := [][]*modelEvent{events[:n]}
	if n < len(events) {
		messages = append(messages, events[n:])
	}
	stream := s.live.Import(ctx)
	for _, m := range messages {
		all := wireOfAll(m)
		if stream.Send(&tandemv1.ImportRequest{Events: all.Events, Author: all.Author}) != nil {
			break // CloseAndReceive says why
		}
	}
	got, err := stream.CloseAndReceive()
	sent, written := len(events), len(events)
	if err != nil {
		found := writtenBefore.FindStringSubmatch(err.Error())
		require.NotNil(w.t, found, "%v", err)
		written, _ = strconv.Atoi(found[1])
	}
	repeated := 0
	var last uint64
	for _, m := range messages {
		if len(m) > written {
			w.notWritten(s, m, err)
			return
		}
		written -= len(m)
		known, _ := w.log.judge(m)
		repeated += known
		last = w.log.last + 1
		if known == len(m) {
			last = 0
			for _, e := range m {
				last = max(last, w.log.ids[e.id].sequence)
			}
		}
		w.written(s, m, &tandemv1.LivePosition{Sequence: last}, known)
	}
	require.NoError(w.t, err)
	require.Equal(w.t, []uint64{uint64(sent), uint64(repeated)}, []uint64{got.Msg.Events, got.Msg.RepeatedEvents})
	require.Equal(w.t, last, got.Msg.Position.GetSequence())
}

// writtenBefore finds how many events of a stream were written before it failed.
var writtenBefore = regexp.MustCompile(`(\d+) events of the stream were written before`)

// race writes events about different apps and users at once, and asks meanwhile.
func (w *modelWorld) race() {
	t := w.t
	var lists [][]*modelEvent
	about := map[modelKey]bool{}
	for range between(t, 2, 4, "writers") {
		var list []*modelEvent
		for _, e := range w.drawEvents() {
			key := modelKey{e.tower, e.entity}
			if e.id == "" && !about[key] {
				list = append(list, e)
			}
		}
		for _, e := range list {
			about[modelKey{e.tower, e.entity}] = true
		}
		if len(list) > 0 {
			lists = append(lists, list)
		}
	}
	var servers []*modelServer
	for range lists {
		servers = append(servers, w.drawServer())
	}
	asked, q := w.drawServer(), w.drawQuestion(true)
	q.request.MinLive = nil

	positions, errs := make([]*tandemv1.LivePosition, len(lists)), make([]error, len(lists))
	var all sync.WaitGroup
	for i, list := range lists {
		all.Go(func() {
			got, err := servers[i].live.Write(context.Background(), connect.NewRequest(wireOfAll(list)))
			if errs[i] = err; err == nil {
				positions[i] = got.Msg.Position
			}
		})
	}
	answer, failed := asked.retrieval.Retrieve(context.Background(), connect.NewRequest(q.request))
	all.Wait()
	order := make([]int, 0, len(lists))
	var every []*modelEvent
	for i, list := range lists {
		every = append(every, list...)
		if errs[i] == nil {
			order = append(order, i)
		}
	}
	full := w.mayBeFull(0, every)
	first := w.log.last
	for i, list := range lists {
		if errs[i] == nil {
			continue
		}
		reason, text := modelReason(errs[i])
		w.report.refused[reason]++
		fits, _ := w.fitsReleases(servers[i], list)
		require.True(t, reason == "FRESH_FULL" && full || reason == "EVENT_INVALID" && !fits, text)
		if reason != "FRESH_FULL" {
			continue
		}
		if written, at := w.partly(list, text); len(written) > 0 {
			lists[i], positions[i], order = written, &tandemv1.LivePosition{Sequence: at}, append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return int(positions[a].Sequence) - int(positions[b].Sequence) })
	for _, i := range order {
		at := positions[i].Sequence
		require.Greater(t, at, first)
		require.LessOrEqual(t, at, w.log.last+1)
		require.GreaterOrEqual(t, at, w.log.last)
		_, some := w.fitsReleases(servers[i], lists[i])
		require.True(t, some, describeEvents(lists[i]))
		w.add(lists[i], at)
	}
	if failed != nil {
		reason, text := modelReason(failed)
		w.refused(asked, q, nil, reason, text)
	} else if !w.isRouter(asked) {
		w.judge(asked, q, answer.Msg)
	}
	for _, i := range order {
		servers[i].sequence = max(servers[i].sequence, positions[i].Sequence)
	}
}

// refuse writes events of which one is wrong whatever serves: nothing of them counts.
func (w *modelWorld) refuse() {
	t := w.t
	r := wireOfAll([]*modelEvent{{kind: live.Takedown, tower: shard.Apps, entity: drawID(t, shard.Apps), reason: "because"}})
	app, now := "a1", timestamppb.New(w.now())
	some := []float32{1}
	var change *tandemv1.LiveEvent
	switch between(t, 0, 11, "what is wrong") {
	case 0:
		change = takedown(app)
		change.GetTakedown().Reason = ""
	case 1:
		change = upsert(&tandemv1.Upsert{Id: app, Vector: some})
	case 2:
		change = upsert(&tandemv1.Upsert{Id: app, ModelVersion: modelV3, Vector: []float32{float32(math.NaN())}})
	case 3:
		change = setAttributes(&tandemv1.SetAttributes{Id: app})
	case 4:
		change = setAttributes(&tandemv1.SetAttributes{Id: app, Window: &tandemv1.Window{From: now, Until: now}})
	case 5:
		change = setAttributes(&tandemv1.SetAttributes{Id: "u1", Tower: tandemv1.Tower_TOWER_USERS, Window: &tandemv1.Window{From: now}})
	case 6:
		change = takedown(app)
		change.EventId = strings.Repeat("x", 129)
	case 7:
		change = takedown("")
	case 8:
		change = setAttributes(&tandemv1.SetAttributes{Id: app, Attributes: map[string]*tandemv1.AttributeValue{"free": wireOfModel(true)}, Clear: []string{"free"}})
	case 9:
		change = setAttributes(&tandemv1.SetAttributes{Id: app, Attributes: map[string]*tandemv1.AttributeValue{"free": {}}})
	case 10:
		change = &tandemv1.LiveEvent{EventId: w.newID()}
	case 11:
		change = upsert(&tandemv1.Upsert{Id: strings.Repeat("x", 257), ModelVersion: modelV3, Vector: some})
	}
	r.Events = append(r.Events, change)
	_, err := w.drawServer().live.Write(context.Background(), connect.NewRequest(r))
	require.Error(t, err, "%v", r)
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), "%v: %v", r, err)
	reason, _ := modelReason(err)
	w.report.refused[reason]++
}

// reach has a server read the log to its end.
func (w *modelWorld) reach(s *modelServer) {
	r := &tandemv1.GetEmbeddingsRequest{Ids: []string{"a0"}, MinLive: &tandemv1.LivePosition{Sequence: w.log.last}}
	got, err := s.retrieval.GetEmbeddings(context.Background(), connect.NewRequest(r))
	require.NoError(w.t, err)
	require.Equal(w.t, w.log.last, got.Msg.Live.Sequence)
	s.sequence = w.log.last
}

// aside has a process beside the servers do something with the log.
func (w *modelWorld) aside(do func(ctx context.Context, r *live.Replica)) {
	r, err := live.Open(context.Background(), w.store.Objects(), live.Options{Author: "aside", Room: live.Room{Rows: w.rows}})
	require.NoError(w.t, err)
	require.Equal(w.t, w.log.last, r.View().Position.Sequence)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			require.ErrorIs(w.t, err, context.Canceled)
		}
	}()
	do(ctx, r)
}

// direct writes events to the store, where nobody judges whether they fit what serves.
func (w *modelWorld) direct() {
	events := w.drawEvents()
	w.aside(func(ctx context.Context, r *live.Replica) { w.append(ctx, r, events) })
}

func (w *modelWorld) append(ctx context.Context, r *live.Replica, events []*modelEvent) {
	var list []live.Event
	for _, e := range events {
		list = append(list, e.logged())
	}
	receipt, err := r.Append(ctx, list)
	_, conflict := w.log.judge(events)
	full := w.full(events, w.log.last)
	switch {
	case errors.Is(err, live.ErrEventConflict):
		require.True(w.t, conflict, "%v\n%s", err, describeEvents(events))
	case errors.Is(err, live.ErrFull):
		require.True(w.t, full, "%v\n%s", err, describeEvents(events))
		if written, at := w.partly(events, err.Error()); len(written) > 0 {
			known, _ := w.log.judge(written)
			w.written(nil, written, &tandemv1.LivePosition{Sequence: at}, known)
		}
	default:
		require.NoError(w.t, err, describeEvents(events))
		w.written(nil, events, &tandemv1.LivePosition{Sequence: receipt.Position.Sequence}, receipt.Repeated)
	}
}

// compact sums the log up, and deletes what is summed up, as if that were two days later: by
// then servers that are up have read it.
func (w *modelWorld) compact() {
	trim := between(w.t, 0, 2, "trim") > 0
	for _, s := range w.up() {
		w.reach(s)
	}
	w.aside(func(ctx context.Context, r *live.Replica) {
		at, err := r.Checkpoint(ctx)
		require.NoError(w.t, err)
		require.Equal(w.t, w.log.last, at.Sequence)
		if !trim {
			return
		}
		old := time.Now().Add(-48 * time.Hour)
		names, err := filepath.Glob(filepath.Join(w.dir, "store", "live", "checkpoints", "*"))
		require.NoError(w.t, err)
		for _, name := range names {
			require.NoError(w.t, os.Chtimes(name, old, old))
		}
		_, err = r.Trim(ctx, 24*time.Hour)
		require.NoError(w.t, err)
	})
}
