package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// GetStatus implements [tandemv1connect.AdminServiceHandler].
func (s *Service) GetStatus(context.Context, *connect.Request[tandemv1.GetStatusRequest]) (*connect.Response[tandemv1.GetStatusResponse], error) {
	f := s.status.Load()
	out := &tandemv1.GetStatusResponse{
		TargetGeneration: f.target, MappedBytes: uint64(f.bytes), MemoryLimit: uint64(f.limit), Phase: tandemv1.Phase_PHASE_LOADING,
	}
	for _, d := range f.kept {
		out.KeptSnapshots = append(out.KeptSnapshots, string(d))
	}
	now, lost := s.current.Load(), ""
	if now != nil {
		out.Generation, out.Since = now.generation, timestamppb.New(now.since)
		out.TargetGeneration = max(out.TargetGeneration, now.generation)
		for _, a := range now.arms {
			m := a.snapshot.Manifest()
			out.Arms = append(out.Arms, &tandemv1.ArmStatus{
				Name: a.name, Snapshot: string(a.snapshot.Digest()), Model: m.Model, ModelVersion: m.ModelVersion,
				Weight: uint32(a.weight), Apps: uint64(m.Apps.Rows), Users: uint64(m.Users.Rows),
			})
			if text := a.lost.text(); text != "" && lost == "" {
				lost = fmt.Sprintf("arm %s: %s", a.name, text)
			}
		}
	}
	failed := f.failed
	// A release that came later makes good for an entry that is none.
	if u := s.unreadable.Load(); u != nil && u.Generation > out.TargetGeneration {
		out.TargetGeneration, failed = u.Generation, u
	}
	switch {
	case s.health.current() == phaseDraining:
		out.Phase = tandemv1.Phase_PHASE_DRAINING
	case failed != nil:
		out.Phase, out.Error = tandemv1.Phase_PHASE_FAILED, failed.Error()
	case now != nil && out.Generation == out.TargetGeneration:
		out.Phase = tandemv1.Phase_PHASE_SERVING
	}
	if out.Error == "" {
		out.Error = lost
	}
	return connect.NewResponse(out), nil
}
