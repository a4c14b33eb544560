package server

import (
	"bytes"
	"context"
	"errors"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// DiffSnapshots implements [tandemv1connect.ReleaseServiceHandler]. The handler lets one in at
// a time.
func (d *releaseDesk) DiffSnapshots(ctx context.Context, r *connect.Request[tandemv1.DiffSnapshotsRequest]) (*connect.Response[tandemv1.DiffSnapshotsResponse], error) {
	if d.compare == nil {
		return nil, errorf(connect.CodeFailedPrecondition, reasonDiff, "the server compares no snapshots; accepted: by whoever reads the store")
	}
	bounded, cancel, err := d.admitted(ctx, 1, describeTime)
	if err != nil {
		return nil, err
	}
	defer cancel()
	out, err := d.diff(bounded, r.Msg)
	if err != nil {
		return nil, storeError(bounded, err)
	}
	return fits(ctx, out, "the report")
}

func (d *releaseDesk) diff(ctx context.Context, r *tandemv1.DiffSnapshotsRequest) (_ *tandemv1.DiffSnapshotsResponse, err error) {
	defer sections.Guard(&err)()
	candidate, err := d.resolve(ctx, "candidate", r.Candidate)
	if err != nil {
		return nil, err
	}
	previous, err := d.resolve(ctx, "previous", r.Previous)
	if err != nil {
		return nil, err
	}
	if previous == candidate && r.Previous == "" {
		return nil, invalidf(reasonRule, "previous", "previous is left out, and candidate %s is what is released; accepted: what to compare it with", candidate.Short())
	}
	now, end, err := d.borrow(ctx, candidate)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	before, endBefore, err := d.borrow(ctx, previous)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, endBefore()) }()
	report, err := d.compare(ctx, now, before)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := wording.WriteJSON(&text, report); err != nil {
		return nil, err
	}
	return &tandemv1.DiffSnapshotsResponse{Candidate: string(candidate), Previous: string(previous), Report: text.Bytes()}, nil
}

// borrow returns a snapshot until end is called: one that is mapped, or else one that it opens,
// if that fits beside what is mapped.
func (d *releaseDesk) borrow(ctx context.Context, digest manifest.Digest) (_ *snapshots.Snapshot, end func() error, err error) {
	if m := d.service.mapped.of(digest); m != nil {
		if s, ok := m.snapshot.(*snapshots.Snapshot); ok {
			return s, func() error { m.release(); return nil }, nil
		}
		m.release() // its rows are not here
	}
	m, err := d.releases.Store().Manifest(ctx, digest)
	if err != nil {
		return nil, nil, err
	}
	size, status := bytesOf(m), d.service.status.Load()
	if status.bytes+size > status.limit {
		return nil, nil, errorf(connect.CodeFailedPrecondition, reasonDiff, "snapshot %s takes %d bytes beside the %d that are mapped; accepted: %d in all", digest.Short(), size, status.bytes, status.limit)
	}
	s, err := snapshots.Open(ctx, d.releases.Store(), digest)
	if err != nil {
		return nil, nil, err
	}
	return s, s.Close, nil
}
