package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// How many things a page has by default.
const (
	releasesEach  = 20
	snapshotsEach = 20
	runsEach      = 5
	// pageBytes is how many bytes of the store a page has before it takes no more.
	pageBytes = 1 << 20
)

// fits returns an answer, or an error if it is longer than one may be.
func fits[T any](ctx context.Context, out *T, what string) (*connect.Response[T], error) {
	m, ok := any(out).(proto.Message)
	if most := boundsFrom(ctx).answer; ok && most > 0 && proto.Size(m) > most {
		return nil, invalidf(reasonAnswer, "", "%s takes %d bytes; accepted: up to %d", what, proto.Size(m), most)
	}
	return connect.NewResponse(out), nil
}

// ListReleases implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) ListReleases(ctx context.Context, r *connect.Request[tandemv1.ListReleasesRequest]) (*connect.Response[tandemv1.ListReleasesResponse], error) {
	most := pageSize(r.Msg.PageSize, releasesEach)
	var after *release.Place
	if r.Msg.PageToken != "" {
		after = &release.Place{}
		if err := readListToken(releasesToken, r.Msg.PageToken, after); err != nil {
			return nil, err
		}
	}
	bounded, cancel, err := d.admitted(ctx, most, entryTime)
	if err != nil {
		return nil, err
	}
	defer cancel()
	page, err := d.releases.Page(bounded, after, most, pageBytes)
	if err != nil {
		return nil, storeError(bounded, err)
	}
	out := &tandemv1.ListReleasesResponse{Generation: page.Head}
	for _, e := range page.Entries {
		out.Entries = append(out.Entries, entryOnWire(&e))
	}
	if page.Next != nil {
		out.NextPageToken = listToken(releasesToken, page.Next)
	}
	return fits(ctx, out, "a release")
}

func entryOnWire(e *release.Entry) *tandemv1.ReleaseEntry {
	u, b := (*release.UnreadableError)(nil), (*release.BrokenError)(nil)
	switch {
	case errors.As(e.Err, &u):
		return wire.UnreadableRelease(u, e.Data)
	case errors.As(e.Err, &b):
		return wire.BrokenReleases(b)
	}
	return wire.Release(e.Release, e.Data)
}

// snapshotPlace is where a page of snapshots begins: behind one.
type snapshotPlace struct {
	Time   int64 // in nanoseconds since 1970
	Digest manifest.Digest
}

// before reports whether a snapshot comes no later in the list than the place.
func (p *snapshotPlace) before(s snapshots.Published) bool {
	at := s.Time.UnixNano()
	return at > p.Time || at == p.Time && s.Digest <= p.Digest
}

// ListSnapshots implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) ListSnapshots(ctx context.Context, r *connect.Request[tandemv1.ListSnapshotsRequest]) (*connect.Response[tandemv1.ListSnapshotsResponse], error) {
	most := pageSize(r.Msg.PageSize, snapshotsEach)
	var after *snapshotPlace
	if r.Msg.PageToken != "" {
		after = &snapshotPlace{}
		if err := readListToken(snapshotsToken, r.Msg.PageToken, after); err != nil {
			return nil, err
		}
	}
	bounded, cancel, err := d.admitted(ctx, most, describeTime)
	if err != nil {
		return nil, err
	}
	defer cancel()
	out, err := d.listSnapshots(bounded, after, most)
	if err != nil {
		return nil, storeError(bounded, err)
	}
	return fits(ctx, out, "the page")
}

func (d *releaseDesk) listSnapshots(ctx context.Context, after *snapshotPlace, most int) (*tandemv1.ListSnapshotsResponse, error) {
	list, err := d.releases.Store().Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	if after != nil {
		list = slices.DeleteFunc(list, after.before)
	}
	beside, err := d.releases.Beside(ctx)
	if err != nil {
		return nil, err
	}
	out := &tandemv1.ListSnapshotsResponse{}
	for i, p := range list {
		if i == most {
			last := list[i-1]
			out.NextPageToken = listToken(snapshotsToken, &snapshotPlace{last.Time.UnixNano(), last.Digest})
			break
		}
		described, err := d.releases.Describe(ctx, p, beside)
		if errors.Is(err, snapshots.ErrNoSnapshot) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out.Snapshots = append(out.Snapshots, wire.SnapshotSummary(described))
	}
	return out, nil
}

// GetSnapshot implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) GetSnapshot(ctx context.Context, r *connect.Request[tandemv1.GetSnapshotRequest]) (*connect.Response[tandemv1.GetSnapshotResponse], error) {
	bounded, cancel, err := d.admitted(ctx, 1, describeTime)
	if err != nil {
		return nil, err
	}
	defer cancel()
	out, err := d.getSnapshot(bounded, r.Msg.Snapshot)
	if err != nil {
		return nil, storeError(bounded, err)
	}
	return fits(ctx, out, "the manifest")
}

func (d *releaseDesk) getSnapshot(ctx context.Context, ref string) (*tandemv1.GetSnapshotResponse, error) {
	digest, err := d.resolve(ctx, "snapshot", ref)
	if err != nil {
		return nil, err
	}
	store := d.releases.Store()
	_, data, err := store.ManifestBytes(ctx, digest)
	if err != nil {
		return nil, err
	}
	published, err := store.Published(ctx, digest)
	if err != nil {
		return nil, err
	}
	beside, err := d.releases.Beside(ctx)
	if err != nil {
		return nil, err
	}
	verdict, err := d.releases.Verdict(ctx, digest, beside)
	if err != nil {
		return nil, err
	}
	return &tandemv1.GetSnapshotResponse{
		Snapshot: string(digest), Manifest: data, Published: timestamppb.New(published), Arms: beside.Arms(digest), Gates: wire.GateVerdict(verdict),
	}, nil
}

// ListGateRuns implements [tandemv1connect.ReleaseServiceHandler].
func (d *releaseDesk) ListGateRuns(ctx context.Context, r *connect.Request[tandemv1.ListGateRunsRequest]) (*connect.Response[tandemv1.ListGateRunsResponse], error) {
	most, before := pageSize(r.Msg.PageSize, runsEach), 0
	if r.Msg.PageToken != "" {
		if err := readListToken(runsToken, r.Msg.PageToken, &before); err != nil {
			return nil, err
		}
	}
	bounded, cancel, err := d.admitted(ctx, most, describeTime)
	if err != nil {
		return nil, err
	}
	defer cancel()
	out, err := d.listGateRuns(bounded, r.Msg.Snapshot, before, most)
	if err != nil {
		return nil, storeError(bounded, err)
	}
	return fits(ctx, out, "a run of the gates")
}

// listGateRuns returns some runs, those before a place, counted from the oldest on; 0 is all.
func (d *releaseDesk) listGateRuns(ctx context.Context, ref string, before, most int) (*tandemv1.ListGateRunsResponse, error) {
	digest, err := d.resolve(ctx, "snapshot", ref)
	if err != nil {
		return nil, err
	}
	out := &tandemv1.ListGateRunsResponse{Snapshot: string(digest)}
	runs, err := gates.Runs(ctx, d.releases.Store(), digest)
	if errors.Is(err, gates.ErrNotRun) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	if before > 0 && before < len(runs) {
		runs = runs[:before]
	}
	size := 0
	for i, run := range slices.Backward(runs) {
		var report bytes.Buffer
		if err := run.WriteJSON(&report); err != nil {
			return nil, err
		}
		out.Runs = append(out.Runs, gateRun(run, report.Bytes()))
		if size += report.Len(); i > 0 && (len(out.Runs) == most || size >= pageBytes) {
			out.NextPageToken = listToken(runsToken, i)
			break
		}
	}
	return out, nil
}

func gateRun(run *gates.Recorded, report []byte) *tandemv1.GateRun {
	out := &tandemv1.GateRun{Tool: run.Tool, Previous: string(run.Report.Previous), Rows: wire.GateRows(run.Rows()), Report: report}
	if !run.Time.IsZero() {
		out.Time = timestamppb.New(run.Time)
	}
	return out
}

// What the tokens of pages are of.
const (
	releasesToken  = "r"
	snapshotsToken = "s"
	runsToken      = "g"
)

// listToken returns the token of a page that begins at a place. It grants nothing that its
// request does not, so it has no signature.
func listToken(of string, place any) string {
	data, _ := json.Marshal(place) // of numbers and texts
	return of + tokenEncoding.EncodeToString(data)
}

// readListToken reads a token into a place.
func readListToken(of, text string, place any) error {
	rest, ok := strings.CutPrefix(text, of)
	if ok {
		data, err := tokenEncoding.DecodeString(rest)
		ok = err == nil && json.Unmarshal(data, place) == nil
	}
	if !ok {
		return invalidf(reasonPageToken, "page_token", "page_token is %q; accepted: next_page_token of an answer to the same method", excerpt(text))
	}
	return nil
}
