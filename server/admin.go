package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/livelog"
)

// GetStatus implements [tandemv1connect.AdminServiceHandler].
func (s *Service) GetStatus(_ context.Context, r *connect.Request[tandemv1.GetStatusRequest]) (*connect.Response[tandemv1.GetStatusResponse], error) {
	f, target := s.status.Load(), s.target.Load()
	out := &tandemv1.GetStatusResponse{
		MappedBytes: uint64(f.bytes), MemoryLimit: uint64(f.limit), Phase: tandemv1.Phase_PHASE_LOADING,
	}
	for _, d := range f.kept {
		out.KeptSnapshots = append(out.KeptSnapshots, string(d))
	}
	now, lost := s.current.Load(), ""
	if now != nil {
		out.Generation, out.Since = now.generation, timestamppb.New(now.since)
		if out.Unreleased = now.hash.IsZero(); !out.Unreleased {
			out.Hash, out.Log = now.hash.String(), now.log
		}
		for _, a := range now.arms {
			m := a.snapshot.Manifest()
			out.Arms = append(out.Arms, &tandemv1.ArmStatus{
				Name: a.name, Snapshot: string(a.snapshot.Digest()), Model: m.Model, ModelVersion: m.ModelVersion,
				Weight: uint32(a.weight), Apps: uint64(m.Apps.Rows), Users: uint64(m.Users.Rows),
				Recall: recallStatus(s.audits, a.audited),
			})
			if text := a.lost.text(); text != "" && lost == "" {
				lost = fmt.Sprintf("arm %s: %s", a.name, text)
			}
		}
	}
	var failed error
	if target != nil {
		out.TargetGeneration, out.TargetHash = target.generation, target.hash.String()
		if failed = target.unreadable; failed == nil && f.of == target.hash {
			failed = f.failed
		}
	}
	state, err := s.staleness.look()
	if out.LogState = state; err != nil {
		out.LogError = err.Error()
	}
	switch {
	case livelog.Broken(state) && failed == nil:
		failed = err
	case livelog.Broken(state):
		failed = fmt.Errorf("%w; %w", err, failed)
	}
	if age, ok := s.staleness.age(); ok {
		out.Staleness = durationpb.New(age)
	}
	if s.live != nil && !s.live.IsRead() {
		if _, err := s.live.State(); err != nil && failed == nil {
			failed = fmt.Errorf("read the live log: %w", err)
		}
	}
	switch {
	case s.health.current() == phaseDraining:
		out.Phase = tandemv1.Phase_PHASE_DRAINING
	case failed != nil:
		out.Phase, out.Error = tandemv1.Phase_PHASE_FAILED, failed.Error()
	case now != nil && out.Hash == out.TargetHash:
		out.Phase = tandemv1.Phase_PHASE_SERVING
	}
	if out.Error == "" {
		out.Error = lost
	}
	s.operate(r.Msg, out, now)
	return connect.NewResponse(out), nil
}
