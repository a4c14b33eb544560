package server

import (
	"context"
	"runtime"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/judge"
	"github.com/tandem-ann/tandem/server/recent"
)

// historySamples are how many samples a server remembers: those of 6 hours.
const historySamples = int(6 * time.Hour / recent.PartTime)

// samples are what a server was doing, a sample for each step. Samples are not changed once they
// are in it. Its methods may be called from any number of goroutines.
type samples struct {
	mu   sync.Mutex
	ring []*tandemv1.HistorySample // the oldest at next, once there are as many as there may be
	next int
}

// add remembers a sample in place of the oldest.
func (h *samples) add(s *tandemv1.HistorySample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) < historySamples {
		h.ring = append(h.ring, s)
		return
	}
	h.ring[h.next] = s
	h.next = (h.next + 1) % historySamples
}

// after returns the samples that ended after a time, the oldest first.
func (h *samples) after(t time.Time) (list []*tandemv1.HistorySample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.ring {
		if s := h.ring[(h.next+i)%len(h.ring)]; s.Time.AsTime().After(t) {
			list = append(list, s)
		}
	}
	return list
}

// remember takes a sample for each step until ctx ends.
func (s *Service) remember(ctx context.Context) {
	ticks := time.NewTicker(recent.PartTime)
	defer ticks.Stop()
	from, used, since := int64(-1), processorTime(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		var parts []recent.Part
		parts, from = s.recent.Ended(from)
		usedBefore, sinceBefore := used, since
		used, since = processorTime(), time.Now()
		for i := range parts {
			sample := sampleOf(&parts[i])
			sample.Cpu = (used - usedBefore).Seconds() / max(since.Sub(sinceBefore).Seconds(), 1e-3)
			if i == len(parts)-1 { // of those before nobody has looked at the end
				s.sample(sample)
			}
			s.history.add(sample)
		}
	}
}

// sampleOf returns what became of the queries of a part.
func sampleOf(p *recent.Part) *tandemv1.HistorySample {
	out := &tandemv1.HistorySample{Time: timestamppb.New(p.End), Answered: p.Answered, Refused: p.Refused, Failed: p.Failed}
	if p.Answered > 0 {
		out.P50, out.P99 = durationpb.New(p.P50), durationpb.New(p.P99)
	}
	if p.Answers > 0 {
		out.Coverage, out.LowestCoverage = &p.Coverage, &p.LowestCoverage
	}
	return out
}

// sample adds what is at this moment.
func (s *Service) sample(out *tandemv1.HistorySample) {
	if s.load != nil {
		load, _ := s.load()
		out.Requests = uint32(load.Requests)
	}
	if age, ok := s.staleness.age(); ok {
		out.Staleness = durationpb.New(age)
	}
	if s.live != nil && s.live.IsRead() {
		out.LiveStaleness = durationpb.New(s.live.Age())
	}
	now := s.current.Load()
	if now == nil {
		return
	}
	out.Generation = now.generation
	for i := range now.arms {
		a := &now.arms[i]
		arm := &tandemv1.HistoryArm{Name: a.name, Snapshot: string(a.snapshot.Digest()), Weight: uint32(a.weight), High: 1}
		if all := recallStatus(s.audits, a.audited).GetAll(); all != nil {
			arm.Audits, arm.Low, arm.High, arm.Floor, arm.Alarm = all.Audits, all.Low, all.High, all.Floor, all.Alarm != nil
			if all.EnoughData {
				arm.Recall = &all.Recall
			}
		}
		out.Arms = append(out.Arms, arm)
	}
}

// GetHistory implements [tandemv1connect.AdminServiceHandler].
func (s *Service) GetHistory(_ context.Context, r *connect.Request[tandemv1.GetHistoryRequest]) (*connect.Response[tandemv1.GetHistoryResponse], error) {
	var after time.Time
	if t := r.Msg.After; t != nil {
		if err := t.CheckValid(); err != nil {
			return nil, invalidf(reasonRule, "after", "after is no time: %w; accepted: of the years 1 to 9999", err)
		}
		after = t.AsTime()
	}
	return connect.NewResponse(&tandemv1.GetHistoryResponse{
		Step: durationpb.New(recent.PartTime), Samples: s.history.after(after), Processors: uint32(s.processors()),
	}), nil
}

// processors is how many the process works with, whatever more Go has for what waits.
func (s *Service) processors() int {
	if s.load != nil {
		if load, _ := s.load(); load.MaxTurns > 0 {
			return load.MaxTurns
		}
	}
	return runtime.GOMAXPROCS(0)
}

// GetFindings implements [tandemv1connect.AdminServiceHandler].
func (s *Service) GetFindings(ctx context.Context, _ *connect.Request[tandemv1.GetFindingsRequest]) (*connect.Response[tandemv1.GetFindingsResponse], error) {
	status, err := s.GetStatus(ctx, connect.NewRequest(&tandemv1.GetStatusRequest{Nodes: allNodes}))
	if err != nil {
		return nil, err
	}
	of := judge.Server{Status: status.Msg}
	switch live, err := s.GetLiveStatus(ctx, connect.NewRequest(&tandemv1.GetLiveStatusRequest{})); {
	case err != nil:
		of.LiveError = err.Error()
	default:
		of.Live = live.Msg
	}
	now := time.Now()
	out := &tandemv1.GetFindingsResponse{Time: timestamppb.New(now)}
	for _, f := range judge.Usual.Judge(&of, now) {
		out.Findings = append(out.Findings, &tandemv1.Finding{Alert: f.Alert, Why: f.Why, Next: f.Next, Runbook: f.Runbook})
	}
	return connect.NewResponse(out), nil
}
