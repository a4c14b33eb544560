package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/livelog"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/overlay"
)

// Write implements [tandemv1connect.LiveServiceHandler].
func (s *Service) Write(ctx context.Context, r *connect.Request[tandemv1.WriteRequest]) (*connect.Response[tandemv1.WriteResponse], error) {
	receipt, err := s.write(ctx, r.Msg, r.Peer().Addr)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&tandemv1.WriteResponse{
		Position: wire.LivePosition(receipt.Position), RepeatedEvents: uint32(receipt.Repeated),
	}), nil
}

// Import implements [tandemv1connect.LiveServiceHandler]. A message is read once the one
// before it is durable, so there is one at a time in memory.
func (s *Service) Import(ctx context.Context, stream *connect.ClientStream[tandemv1.ImportRequest]) (*connect.Response[tandemv1.ImportResponse], error) {
	if err := s.writable(ctx); err != nil {
		return nil, err
	}
	out := &tandemv1.ImportResponse{Position: wire.LivePosition(s.live.Position())}
	for stream.Receive() {
		m := stream.Msg()
		receipt, err := s.write(ctx, &tandemv1.WriteRequest{Events: m.Events, Author: m.Author}, stream.Peer().Addr)
		if err != nil {
			return nil, importError(err, out.Events)
		}
		out.Position = wire.LivePosition(receipt.Position)
		out.Events += uint64(len(m.Events))
		out.RepeatedEvents += uint64(receipt.Repeated)
	}
	if err := stream.Err(); err != nil {
		return nil, importError(err, out.Events)
	}
	return connect.NewResponse(out), nil
}

// importError says how many events of a stream were written before it failed.
func importError(err error, written uint64) error {
	coded, ok := errors.AsType[*connect.Error](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && !ok:
		coded = errorf(connect.CodeDeadlineExceeded, reasonDeadline, "the deadline passed before the stream had ended")
	case !ok:
		return err
	}
	out := connect.NewError(coded.Code(), fmt.Errorf("%s; %d events of the stream were written before", coded.Message(), written))
	for _, d := range coded.Details() {
		out.AddDetail(d)
	}
	for key, values := range coded.Meta() {
		out.Meta()[key] = values
	}
	return out
}

// meant returns an error if it may be that whoever writes did not mean this server: a web page
// that had its own name resolved to it. Whoever is known has shown what no page has.
func meant(ctx context.Context) error {
	x := exchangeFrom(ctx)
	if x == nil || x.identity != nil || auth.IsOwnHost(x.request.Host) {
		return nil
	}
	return errorf(connect.CodePermissionDenied, reasonWrites, "header host is %q: a web page may have had its own name resolved to this server; accepted for writes: localhost, or an IP address", excerpt(x.request.Host))
}

// writable returns an error unless the server takes writes of a request.
func (s *Service) writable(ctx context.Context) error {
	if err := meant(ctx); err != nil {
		return err
	}
	switch {
	case s.live == nil:
		return errorf(connect.CodePermissionDenied, reasonWrites, "the server follows no live log, and takes no writes")
	case !s.live.Writes():
		return errorf(connect.CodePermissionDenied, reasonWrites, "the server takes no writes, as it was not told to; accepted: by one that was, or by whoever may write to the store")
	case !s.live.IsRead():
		return errUnread()
	case s.health.current() == phaseDraining:
		return errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping")
	}
	if state, err := s.live.State(); livelog.Broken(state) {
		return errLogBroken(err)
	}
	return nil
}

// What a processor takes for an event, and for each of its numbers and attributes, from the
// message to the log and into what is laid over snapshots.
const (
	eventTime  = 20 * time.Microsecond
	valueTime  = 2 * time.Microsecond
	numberTime = 20 * time.Nanosecond
	// eventHeap is about the memory that an event takes beside its values.
	eventHeap = 512
)

// estimateWrite returns what it costs to write events.
func estimateWrite(r *tandemv1.WriteRequest) cost {
	k := cost{answer: answerOverhead}
	for _, e := range r.Events {
		values := len(e.GetUpsert().GetAttributes()) + len(e.GetSetAttributes().GetAttributes()) + len(e.GetSetAttributes().GetClear())
		numbers := len(e.GetUpsert().GetVector())
		k.work += eventTime + time.Duration(values)*valueTime + time.Duration(numbers)*numberTime
		k.memory += 2 * (eventHeap + values*valueHeap + 4*numbers) // the message, and what is made of it
	}
	return k
}

// write appends the events of a message, which keeps the rules of the contract, once it is
// admitted, and returns when they are durable.
func (s *Service) write(ctx context.Context, r *tandemv1.WriteRequest, peer string) (live.Receipt, error) {
	if err := s.writable(ctx); err != nil {
		return live.Receipt{}, err
	}
	c := callFrom(ctx)
	if c != nil {
		if err := c.admit(ctx, estimateWrite(r)); err != nil {
			return live.Receipt{}, err
		}
	}
	list, err := s.liveEvents(ctx, r, peer)
	if err != nil {
		return live.Receipt{}, err
	}
	if c != nil {
		c.worked() // the rest is waiting
	}
	limit := DefaultMaxDeadline
	if c != nil {
		limit = c.limits.maxDeadline // a stream has more
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	appending, stop := beforeDeadline(bounded)
	defer stop()
	span := spanFrom(ctx).Begin("append")
	receipt, err := s.live.Append(appending, list)
	span.End()
	if err != nil {
		return live.Receipt{}, s.appendError(ctx, r, err)
	}
	return receipt, nil
}

// appendError gives the error of events that were not appended, or only some, its code.
func (s *Service) appendError(ctx context.Context, r *tandemv1.WriteRequest, err error) error {
	out := s.appendFailure(ctx, r, err)
	coded, ok := errors.AsType[*connect.Error](out)
	partial, some := errors.AsType[*live.PartialError](err)
	if !ok || !some {
		return out
	}
	// Beside the reason, which is the same as of a message of which nothing was written.
	return withMetadata(coded, map[string]string{
		metaWritten: fmt.Sprint(partial.All - len(partial.Missing)), metaPosition: partial.Receipt.Position.String(),
	})
}

// What the metadata of the reason of an error tells of a message of which some events were
// written: how many, and up to which position.
const (
	metaWritten  = "events_written"
	metaPosition = "position"
)

func (s *Service) appendFailure(ctx context.Context, r *tandemv1.WriteRequest, err error) error {
	text := shortened(err.Error(), maxDescription)
	var unsent *connect.Error
	wrong, isWrong := errors.AsType[*live.EventError](err)
	conflict, isConflict := errors.AsType[*live.EventConflictError](err)
	switch {
	case isWrong && wrong.Index < len(r.Events):
		return eventError(r.Events[wrong.Index], wrong.Index, err)
	case errors.Is(err, live.ErrEvent):
		return invalidf(reasonEvent, "", "%w", err)
	case isConflict:
		return errorf(connect.CodeAlreadyExists, reasonConflict, "%s: %s", eventPlace(conflict.Index), shortened(conflict.Error(), maxDescription))
	case errors.Is(err, live.ErrEnded):
		return errorf(connect.CodeUnavailable, reasonStopping, "the server is stopping: %s", text)
	case errors.Is(err, live.ErrFull):
		s.live.Full(err)
		return errorf(connect.CodeResourceExhausted, reasonFull, "%s", text)
	case livelog.Broken(livelog.StateOf(err)), errors.Is(err, live.ErrTimeTravel):
		return errLogBroken(err)
	case errors.Is(err, live.ErrUnconfirmed):
		unsent = errorf(connect.CodeUnavailable, reasonUnconfirmed, "whether the events count is not known: write them again under the same ids; %s", text)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		unsent = errorf(connect.CodeUnavailable, reasonUnconfirmed, "the store did not answer in time: write them again under the same ids; %s", text)
	default:
		return err
	}
	retryLater(unsent)
	return unsent
}

// errLogBroken is the error of a write to a log that is not the one that is followed.
func errLogBroken(why error) error {
	err := errorf(connect.CodeUnavailable, reasonBroken, "the live log in the store is not the one that the server follows, and nothing was written: %s", shortened(why.Error(), maxDescription))
	retryLater(err)
	return err
}

// fits returns an error of class [live.ErrEvent] if an event does not fit the snapshots that it
// would count in and that answer, by the name of an arm (see [overlay.FitsServed]).
func (s *Service) fits(e *live.Event) error {
	if e.Kind != live.Upsert && e.Kind != live.SetAttributes {
		return nil
	}
	now := s.current.Load()
	if now == nil {
		return nil
	}
	var served []overlay.Served
	for i := range now.arms {
		if a := &now.arms[i]; a.layer != nil {
			served = append(served, overlay.Served{Name: fmt.Sprintf("arm %s, of model %s", a.name, modelName(a.snapshot.Manifest())), Shape: a.layer.Shape()})
		}
	}
	return overlay.FitsServed(served, e)
}

// GetLiveStatus implements [tandemv1connect.LiveServiceHandler].
func (s *Service) GetLiveStatus(context.Context, *connect.Request[tandemv1.GetLiveStatusRequest]) (*connect.Response[tandemv1.GetLiveStatusResponse], error) {
	if s.live == nil {
		return nil, errorf(connect.CodeFailedPrecondition, reasonLogUnknown, "the server follows no live log")
	}
	state, failed := s.live.State()
	out := &tandemv1.GetLiveStatusResponse{
		Fence: duration(s.live.Fence()), AnswersStale: s.live.AnswersStale(), Writes: s.live.Writes(),
		LogState: state, NoTimeTravel: s.live.Vouched(), Poll: duration(s.live.Poll()), Memory: s.live.Memory(),
	}
	if failed != nil {
		out.LogError = failed.Error()
	}
	held := s.mapped.hold()
	defer releaseAll(held)
	view, laid := s.live.Look(layersOf(held))
	if view == nil {
		return connect.NewResponse(out), nil
	}
	out.Position, out.Digest, out.Staleness = wire.LivePosition(view.Position.Shard()), view.Digest.String(), duration(view.Proof.Age())
	if !view.Position.Hash.IsZero() {
		out.Hash = view.Position.Hash.String()
	}
	out.Takedowns, out.ForgottenUsers = uint64(view.Down.Len()), uint64(view.Forgotten.Len())
	room, used := s.live.Room()
	out.FreshBytes, out.FreshBytesLimit = uint64(used), uint64(room.Bytes)
	for i, l := range laid {
		m, status := held[i].snapshot.Manifest(), l.Status
		out.Overlays = append(out.Overlays, &tandemv1.Overlay{
			Snapshot: string(held[i].snapshot.Digest()), ModelVersion: m.ModelVersion, Inputs: wire.LivePosition(held[i].layer.Inputs()),
			Apps: overlayTower(&status.Apps, room.Rows), Users: overlayTower(&status.Users, room.Rows),
		})
	}
	for _, p := range s.live.Pending(layersOf(held)) {
		out.Pending = append(out.Pending, &tandemv1.PendingUpserts{
			Model: p.Model, ModelVersion: p.ModelVersion, Apps: uint64(p.Apps), Users: uint64(p.Users), Since: timestamppb.New(p.Since),
		})
	}
	return connect.NewResponse(out), nil
}

func overlayTower(s *overlay.TowerStatus, limit int) *tandemv1.OverlayTower {
	return &tandemv1.OverlayTower{
		DeadRows: uint64(s.Dead), ChangedRows: uint64(s.Changed), FreshRows: uint64(s.Fresh), FreshRowsLimit: uint64(limit),
		Windows: uint64(s.Windows), Misfits: s.Misfits, MisfitCount: uint64(s.MisfitCount),
	}
}

func releaseAll(held []*serving) {
	for _, m := range held {
		m.release()
	}
}

func layersOf(held []*serving) []livelog.Over {
	layers := make([]livelog.Over, len(held))
	for i, m := range held {
		layers[i] = m.layer
	}
	return layers
}

// Prove implements [tandemv1connect.LiveServiceHandler].
func (s *Service) Prove(ctx context.Context, r *connect.Request[tandemv1.ProveRequest]) (*connect.Response[tandemv1.ProveResponse], error) {
	arrived := s.clock()
	switch {
	case s.live == nil:
		return nil, errorf(connect.CodeFailedPrecondition, reasonLogUnknown, "the server follows no live log")
	case !s.live.IsRead():
		return nil, errUnread()
	}
	if err := s.reach(ctx, r.Msg.MinLive); err != nil {
		return nil, err
	}
	held := s.mapped.hold()
	defer releaseAll(held)
	if c := callFrom(ctx); c != nil {
		n := len(r.Msg.Apps) * (1 + len(held))
		k := cost{work: time.Duration(n) * 2 * embeddingTime, answer: answerOverhead + n*proofBytes}
		k.memory = (1 + encodings) * k.answer
		if err := c.admit(ctx, k); err != nil {
			return nil, err
		}
	}
	view, laid := s.live.Look(layersOf(held))
	oldest := view
	for _, l := range laid {
		if l.View.Position.Sequence < oldest.Position.Sequence { // it could not be laid
			oldest = l.View
		}
	}
	out := &tandemv1.ProveResponse{Position: wire.LivePosition(oldest.Position.Shard()), Staleness: duration(oldest.Proof.Age()), Refuses: s.live.Refuses()}
	for i, app := range r.Msg.Apps {
		if i%embeddingStep == embeddingStep-1 {
			if err := giveWay(ctx); err != nil {
				return nil, err
			}
		}
		proof := &tandemv1.AppProof{App: app}
		if down, ok := oldest.Down.Get(app); ok {
			proof.Takedown = &tandemv1.TakedownRecord{
				Position: &tandemv1.LivePosition{Log: oldest.Position.Log, Sequence: down.Sequence},
				Time:     timestamppb.New(down.Time), Reason: down.Reason, Author: down.Author,
			}
		}
		down := view.Down.Has(app)
		for j, l := range laid {
			there, err := s.proveIn(ctx, held[j], l, app, arrived)
			if err != nil {
				return nil, err
			}
			down = down && l.View.Down.Has(app)
			proof.Snapshots = append(proof.Snapshots, there)
		}
		proof.State = stateOf(down, proof.Snapshots)
		proof.CannotBeReturned = proof.State == tandemv1.AppState_APP_STATE_TAKEN_DOWN
		out.Apps = append(out.Apps, proof)
	}
	return connect.NewResponse(out), nil
}

// stateOf returns the state of an app by what there is of it in each snapshot; down is whether
// what lies over each of them has it taken down.
func stateOf(down bool, in []*tandemv1.AppInSnapshot) tandemv1.AppState {
	switch {
	case slices.ContainsFunc(in, (*tandemv1.AppInSnapshot).GetFound):
		return tandemv1.AppState_APP_STATE_RETURNABLE
	case down:
		return tandemv1.AppState_APP_STATE_TAKEN_DOWN
	case len(in) == 0:
		return tandemv1.AppState_APP_STATE_NO_SNAPSHOT
	case slices.ContainsFunc(in, (*tandemv1.AppInSnapshot).GetOutsideWindow):
		return tandemv1.AppState_APP_STATE_OUTSIDE_WINDOW
	}
	return tandemv1.AppState_APP_STATE_UNKNOWN
}

const (
	// proofBytes is about what an answer has for an app, and for each snapshot of it.
	proofBytes = 160
	// embeddingStep is how many ids are looked up between two looks whether the caller waits.
	embeddingStep = 64
)

// proveIn says what there is of an app in one snapshot, and in what is laid over it.
func (s *Service) proveIn(ctx context.Context, m *serving, laid *livelog.Laid, app string, arrived time.Time) (*tandemv1.AppInSnapshot, error) {
	at := shard.Moment{Snapshot: string(m.snapshot.Digest()), Position: laid.Position(), Time: arrived}
	out := &tandemv1.AppInSnapshot{Snapshot: at.Snapshot}
	err := s.proveRows(ctx, m, laid, app, at, out)
	if err == nil {
		out.Found, err = laid.Apps.Has(ctx, at, app)
	}
	if err != nil {
		s.noteLost(m, nil, err)
		return nil, err
	}
	out.Found = out.Found && !laid.View.Down.Has(app)
	if out.Found {
		return out, nil
	}
	if out.OutsideWindow, err = laid.Apps.OutsideWindow(ctx, at, app); err != nil {
		s.noteLost(m, nil, err)
		return nil, err
	}
	return out, nil
}

// proveRows says which rows there are of an app, whatever lies over them.
func (s *Service) proveRows(ctx context.Context, m *serving, laid *livelog.Laid, app string, at shard.Moment, out *tandemv1.AppInSnapshot) (err error) {
	if s.router != nil {
		rows, err := router.Rows(ctx, laid.Apps, at, app)
		out.InSnapshot, out.Fresh, out.RowsUnknown = rows.InSnapshot, rows.Fresh, !rows.Told
		return err
	}
	base := at
	base.Position = shard.Position{}
	if out.InSnapshot, err = m.snapshot.Tower(shard.Apps).Has(ctx, base, app); err != nil {
		return err
	}
	for _, beside := range laid.Apps.Parts()[len(m.snapshot.Tower(shard.Apps).Parts()):] {
		l, ok := beside.(*shard.Local)
		if !ok {
			continue
		}
		// Whether its window has begun does not matter.
		ordinal, ok := l.Shard().Ordinal(app)
		out.Fresh = out.Fresh || ok && !l.Overlay().IsDead(ordinal)
	}
	return nil
}
