package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// releaseClient returns a client of a server's ReleaseService.
func (s *site) releaseClient(options ...connect.ClientOption) tandemv1connect.ReleaseServiceClient {
	return tandemv1connect.NewReleaseServiceClient(s.http2, s.url, options...)
}

// publishing is a configuration of a server that changes releases, and is quiet.
func publishing() Config {
	return Config{ReleaseWrites: true, Logger: slog.New(slog.DiscardHandler)}
}

// to is a change of a generation.
func to(generation uint64) *tandemv1.ReleaseChange {
	return &tandemv1.ReleaseChange{Generation: &generation, Author: "ann", Reason: "a test"}
}

// startOf starts a snapshot by its digest.
func startOf(generation uint64, digest string) *connect.Request[tandemv1.StartRequest] {
	return connect.NewRequest(&tandemv1.StartRequest{Change: to(generation), Snapshot: digest})
}

// unpin is a change that any generation takes, and that asks no gate.
func unpin(generation uint64) *connect.Request[tandemv1.SplitRequest] {
	return connect.NewRequest(&tandemv1.SplitRequest{Change: to(generation), Unpin: []string{"nobody"}})
}

// briefly has a request end soon at the server, while the client waits for what that says.
func briefly[T any](r *connect.Request[T]) *connect.Request[T] {
	r.Header().Set("Connect-Timeout-Ms", "400")
	return r
}

// requireRefused checks the code and the reason of an error, and returns the metadata of that.
func requireRefused(t *testing.T, err error, code connect.Code, want string) map[string]string {
	t.Helper()
	var coded *connect.Error
	require.ErrorAs(t, err, &coded)
	require.Equal(t, code, coded.Code(), coded.Message())
	for _, d := range coded.Details() {
		m, err := d.Value()
		require.NoError(t, err)
		if info, ok := m.(*errdetails.ErrorInfo); ok {
			require.Equal(t, want, info.Reason, coded.Message())
			return info.Metadata
		}
	}
	require.Fail(t, "an error has no reason", coded.Message())
	return nil
}

// history returns all that was released, newest first, in pages.
func history(t *testing.T, c tandemv1connect.ReleaseServiceClient, each uint32) (list []*tandemv1.ReleaseEntry) {
	t.Helper()
	token := ""
	for {
		page, err := c.ListReleases(t.Context(), connect.NewRequest(&tandemv1.ListReleasesRequest{PageSize: each, PageToken: token}))
		require.NoError(t, err)
		list = append(list, page.Msg.Entries...)
		if token = page.Msg.NextPageToken; token == "" {
			return list
		}
		require.NotEmpty(t, page.Msg.Entries)
	}
}

// TestReleasesThroughAServer walks a release from its start to its end, and looks what the log
// of the store has of it.
func TestReleasesThroughAServer(t *testing.T) {
	f := newFleet(t, 2, publishing())
	c, ctx := f.p.releaseClient(), t.Context()
	list, err := c.ListSnapshots(ctx, connect.NewRequest(&tandemv1.ListSnapshotsRequest{PageSize: 1}))
	require.NoError(t, err)
	require.Len(t, list.Msg.Snapshots, 1)
	rest, err := c.ListSnapshots(ctx, connect.NewRequest(&tandemv1.ListSnapshotsRequest{PageToken: list.Msg.NextPageToken}))
	require.NoError(t, err)
	require.Len(t, rest.Msg.Snapshots, 1)
	require.Empty(t, rest.Msg.NextPageToken)
	both := map[string]*tandemv1.SnapshotSummary{}
	for _, s := range append(list.Msg.Snapshots, rest.Msg.Snapshots...) {
		both[s.Snapshot] = s
		assert.Equal(t, []any{"feed", uint64(60), uint64(10), uint32(4)}, []any{s.Model, s.Apps, s.Users, s.Shards})
		assert.Equal(t, tandemv1.GateState_GATE_STATE_PASSED, s.Gates.Rows[0].State)
	}
	require.Len(t, both, 2)
	assert.Equal(t, []string{"control"}, both[string(f.digests[0])].Arms)
	assert.Empty(t, both[string(f.digests[1])].Arms)

	started, err := c.Start(ctx, startOf(1, string(f.digests[1])[:12]))
	require.NoError(t, err)
	one := started.Msg.Release.Release
	assert.Equal(t, []any{uint64(2), tandemv1.ReleaseKind_RELEASE_KIND_START, "a test"}, []any{one.Generation, one.Kind, one.Reason})
	assert.Regexp(t, `^ann \(127\.0\.0\.1:\d+\)$`, one.Author)
	assert.Equal(t, []any{"candidate", uint32(10), "990-999"}, []any{one.Arms[1].Name, one.Arms[1].Weight, one.Arms[1].Buckets})
	f.await(t, 2)
	split, err := c.Split(ctx, connect.NewRequest(&tandemv1.SplitRequest{
		Change: to(2), Weights: map[string]uint32{"candidate": 300}, Pins: []*tandemv1.Pin{{Arm: "candidate", Key: "u1"}}, AutoRollback: true,
	}))
	require.NoError(t, err)
	assert.Equal(t, []any{uint32(300), uint32(1), true}, []any{split.Msg.Release.Release.Arms[1].Weight, split.Msg.Release.Release.Arms[1].Pins, split.Msg.Release.Release.AutoRollback})
	promoted, err := c.Promote(ctx, connect.NewRequest(&tandemv1.PromoteRequest{Change: to(3)}))
	require.NoError(t, err)
	require.Len(t, promoted.Msg.Release.Release.Arms, 1)
	back, err := c.Rollback(ctx, connect.NewRequest(&tandemv1.RollbackRequest{Change: to(4), AwayFrom: string(f.digests[1])[:8]}))
	require.NoError(t, err)
	assert.EqualValues(t, 1, back.Msg.Release.Release.Of)
	assert.Equal(t, []string{string(f.digests[1])}, back.Msg.Plan.Off)
	again := startOf(5, string(f.digests[1]))
	again.Msg.Arm, again.Msg.Weight, again.Msg.RecallFloor = "second", new(uint32(0)), 0.5
	_, err = c.Start(ctx, again)
	require.NoError(t, err)
	stopped, err := c.Stop(ctx, connect.NewRequest(&tandemv1.StopRequest{Change: to(6), Arm: "second"}))
	require.NoError(t, err)
	assert.Equal(t, "second", stopped.Msg.Release.Release.Stopped)
	f.await(t, 7)

	entries := history(t, c, 2)
	require.Len(t, entries, 7)
	i := 0
	for want, err := range f.releases.History(ctx) {
		require.NoError(t, err)
		got, err := release.Decode(entries[i].Entry)
		require.NoError(t, err)
		assert.Equal(t, want, got, "the entry is that of the store")
		assert.Equal(t, want.Hash.String(), entries[i].Release.Hash)
		i++
	}
	assert.InDelta(t, 0.5, entries[1].Release.Arms[1].RecallFloor, 0)
}

// TestSnapshotsThroughAServer reads a snapshot, and each run of its gates.
func TestSnapshotsThroughAServer(t *testing.T) {
	f := newFleet(t, 2, publishing())
	c, ctx := f.p.releaseClient(), t.Context()
	for _, ref := range []string{"", string(f.digests[0]), string(f.digests[0])[:9]} {
		got, err := c.GetSnapshot(ctx, connect.NewRequest(&tandemv1.GetSnapshotRequest{Snapshot: ref}))
		require.NoError(t, err)
		assert.Equal(t, string(f.digests[0]), got.Msg.Snapshot)
		assert.Equal(t, f.digests[0], manifest.Sum(got.Msg.Manifest))
		assert.Equal(t, []string{"control"}, got.Msg.Arms)
		assert.Contains(t, got.Msg.Gates.ComparedWith, string(f.digests[1]))
	}
	var runs []*tandemv1.GateRun
	for token, pages := "", 0; pages == 0 || token != ""; pages++ {
		page, err := c.ListGateRuns(ctx, connect.NewRequest(&tandemv1.ListGateRunsRequest{PageSize: 1, PageToken: token}))
		require.NoError(t, err)
		require.Len(t, page.Msg.Runs, 1)
		runs, token = append(runs, page.Msg.Runs...), page.Msg.NextPageToken
	}
	require.Len(t, runs, 2)
	for i, previous := range []manifest.Digest{f.digests[1], f.digests[0]} {
		assert.Equal(t, string(previous), runs[i].Previous, "the newest first")
		var report gates.Recorded
		require.NoError(t, json.Unmarshal(runs[i].Report, &report))
		assert.Equal(t, f.digests[0], report.Snapshot)
	}
}

// TestGatesThroughAServer starts what the gates refuse, and then for a reason.
func TestGatesThroughAServer(t *testing.T) {
	f := newFleet(t, 2, publishing())
	c, ctx, d := f.p.releaseClient(), t.Context(), f.digests[1]
	report := &manifest.GateReport{Previous: f.digests[0], Checks: []manifest.GateCheck{{Gate: gates.Recall, Text: "recall is low"}}}
	require.NoError(t, gates.Record(ctx, f.store.Objects(), &gates.Recorded{Snapshot: d, Report: report}))
	_, err := c.Start(ctx, startOf(1, string(d)))
	meta := requireRefused(t, err, connect.CodeFailedPrecondition, "GATES_FAILED")
	assert.Equal(t, map[string]string{"gate": "recall", "snapshot": string(d), "previous": string(f.digests[0])}, meta)
	_, direct := f.releases.Start(ctx, release.StartOptions{Snapshot: d, Change: release.Change{Author: "test"}})
	assert.ErrorContains(t, err, direct.Error(), "the same judgement")

	forced := startOf(1, string(d))
	forced.Msg.Override = "a demonstration"
	got, err := c.Start(ctx, forced)
	require.NoError(t, err)
	assert.Equal(t, []string{"recall"}, got.Msg.Release.Release.Arms[1].GatesFailed)
}

// TestReleaseChangesConflict has two servers and a process change the same generations at once.
func TestReleaseChangesConflict(t *testing.T) {
	f := newFleet(t, 1, publishing())
	other := publishing()
	other.Store = f.store
	clients := []tandemv1connect.ReleaseServiceClient{f.p.releaseClient(), start(t, other).releaseClient()}
	for generation := uint64(1); generation <= 20; generation++ {
		errs := make([]error, 6)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				if i < 4 {
					_, errs[i] = clients[i%2].Split(t.Context(), unpin(generation))
					return
				}
				_, errs[i] = f.releases.Split(t.Context(), release.SplitOptions{Unpin: []string{"nobody"}, Change: release.Change{Author: "test", Generation: generation}})
			})
		}
		all.Wait()
		made := 0
		for i, err := range errs {
			switch {
			case err == nil:
				made++
			case i < 4:
				meta := requireRefused(t, err, connect.CodeAborted, "RELEASE_CONFLICT")
				require.Equal(t, fmt.Sprint(generation+1), meta["generation"])
			default:
				require.ErrorIs(t, err, release.ErrConflict)
			}
		}
		require.Equal(t, 1, made, "of those that change generation %d", generation)
	}
	_, err := clients[0].Start(t.Context(), startOf(0, string(f.digests[0])))
	assert.Equal(t, "21", requireRefused(t, err, connect.CodeAborted, "RELEASE_CONFLICT")["generation"], "something is released")
}

// faultyFleet is a server whose store, a bucket in memory, can be made to fail.
func faultyFleet(t *testing.T, o Options) (*objectstest.Faults, *release.Releases, *process, manifest.Digest) {
	faults := objectstest.NewFaults()
	open := func(client string) *snapshots.Store {
		store, err := snapshots.NewStore(faults.Bucket(client), snapshots.Options{Cache: t.TempDir(), Timeout: time.Minute})
		require.NoError(t, err)
		return store
	}
	mine := open("test")
	digest := smallTowers(index.Dot).publishTo(t, mine)
	recordGates(t, mine, digest)
	releases := release.New(mine)
	_, err := releases.Start(t.Context(), release.StartOptions{Snapshot: digest, Change: release.Change{Author: "test", Override: "a test"}})
	require.NoError(t, err)
	c := publishing()
	c.Store, c.Options = open("server"), o
	return faults, releases, start(t, c), digest
}

// TestReleaseThroughAServerWhoseStoreFails looks what a caller is told when the store fails, or
// falls silent, and whether that is so.
func TestReleaseThroughAServerWhoseStoreFails(t *testing.T) {
	faults, releases, p, digest := faultyFleet(t, Options{})
	c, ctx := p.releaseClient(), t.Context()
	generation := func() uint64 {
		t.Helper()
		now, err := releases.Current(ctx)
		require.NoError(t, err)
		return now.Generation
	}
	for name, rule := range map[string]objectstest.Rule{
		"the answer is lost":  {Op: objectstest.Create, Fault: objectstest.LoseHanging},
		"nothing is answered": {Op: objectstest.Create, Fault: objectstest.Hang},
	} {
		before := generation()
		rule.Client, rule.Key = "server", "releases/"
		faults.Inject(rule)
		var err error
		wait(t, func() bool { // on a busy machine its time may be up before it gets to the store
			_, err = c.Split(ctx, briefly(unpin(before)))
			return connect.CodeOf(err) != connect.CodeDeadlineExceeded
		})
		meta := requireRefused(t, err, connect.CodeUnavailable, "RELEASE_UNCONFIRMED")
		require.Equal(t, fmt.Sprint(before+1), meta["generation"], name)
		faults.Heal()
		newest := history(t, c, 1)[0].Release
		if rule.Fault == objectstest.LoseHanging {
			require.Equal(t, meta["id"], newest.Id, "it was made, and that can be seen")
		} else {
			require.Equal(t, before, newest.Generation, "it was not, and that can be seen")
		}
	}
	before := generation()
	faults.Inject(objectstest.Rule{Client: "server", Op: objectstest.List, Key: "releases/", Fault: objectstest.Hang})
	faults.Inject(objectstest.Rule{Client: "server", Op: objectstest.Read, Key: "releases/", Fault: objectstest.Hang})
	_, err := c.Split(ctx, briefly(unpin(before)))
	requireRefused(t, err, connect.CodeDeadlineExceeded, "DEADLINE_EXCEEDED")
	require.ErrorContains(t, err, "nothing was written")
	_, err = c.ListReleases(ctx, briefly(connect.NewRequest(&tandemv1.ListReleasesRequest{})))
	requireRefused(t, err, connect.CodeDeadlineExceeded, "DEADLINE_EXCEEDED")
	faults.Heal()
	faults.Inject(objectstest.Rule{Client: "server", Key: "snapshots/", Err: objectstest.ErrDenied})
	_, err = c.ListSnapshots(ctx, connect.NewRequest(&tandemv1.ListSnapshotsRequest{}))
	requireRefused(t, err, connect.CodeUnavailable, "STORE_UNAVAILABLE")
	faults.Heal()
	require.Equal(t, before, generation())

	shards := faults.Keys("shards/")
	data, _ := faults.Data(shards[0])
	faults.Put(shards[0], data[:len(data)-1], time.Now())
	damaged := startOf(before, string(digest))
	damaged.Msg.Arm, damaged.Msg.Override = "again", "a test"
	_, err = c.Start(ctx, damaged)
	requireRefused(t, err, connect.CodeDataLoss, "SNAPSHOT_DAMAGED")
}

// TestManyReleases reads more than 500 releases in pages, with one among them that cannot be
// read, and a gap.
func TestManyReleases(t *testing.T) {
	faults, releases, p, _ := faultyFleet(t, Options{})
	for generation := uint64(1); generation <= 520; generation++ {
		_, err := releases.Split(t.Context(), release.SplitOptions{Unpin: []string{"nobody"}, Change: release.Change{Author: "test", Generation: generation}})
		require.NoError(t, err)
	}
	key := func(n int) string { return fmt.Sprintf("releases/%012d.json", n) }
	data, ok := faults.Data(key(300))
	require.True(t, ok)
	faults.Put(key(300), append([]byte("no"), data...), time.Now())
	faults.Remove(key(200))
	want := []string{}
	for r, err := range releases.History(t.Context()) {
		if err != nil {
			want = append(want, err.Error())
			continue
		}
		want = append(want, fmt.Sprint(r.Generation))
	}
	require.Greater(t, len(want), 500)
	for _, each := range []uint32{7, 100} {
		got := []string{}
		for _, e := range history(t, p.releaseClient(), each) {
			switch {
			case e.Release != nil:
				got = append(got, fmt.Sprint(e.Release.Generation))
			case e.Fault.Broken:
				got = append(got, "log of releases: "+e.Fault.Text)
			default:
				got = append(got, fmt.Sprintf("read release %d: %s", e.Fault.Generation, e.Fault.Text))
			}
		}
		require.Equal(t, want, got, "in pages of %d", each)
	}
	page, err := p.releaseClient().ListReleases(t.Context(), connect.NewRequest(&tandemv1.ListReleasesRequest{PageSize: 100}))
	require.NoError(t, err)
	faults.Put(key(422), data, time.Now()) // the entry that the page ends with
	_, err = p.releaseClient().ListReleases(t.Context(), connect.NewRequest(&tandemv1.ListReleasesRequest{PageToken: page.Msg.NextPageToken}))
	requireRefused(t, err, connect.CodeFailedPrecondition, "PAGE_TOKEN_GONE")
}

// TestReleaseRequestsThatAreWrong sends what no change can be.
func TestReleaseRequestsThatAreWrong(t *testing.T) {
	f := newFleet(t, 1, publishing())
	dir := filepath.Join(f.store.Objects().Dir(), "snapshots")
	d := string(f.digests[0])
	twin := d[:62] + strings.Repeat(map[bool]string{true: "1", false: "0"}[d[63] == '0'], 2)
	require.NoError(t, os.WriteFile(filepath.Join(dir, twin+".json"), nil, 0o600))
	const service = "/tandem.v1.ReleaseService/"
	long := strings.Repeat("x", 1001)
	for _, c := range []struct{ method, body, reason, text string }{
		{"Start", `{"snapshot": "ab"}`, "RULE_BROKEN", "change"},
		{"Start", `{"change": {}, "snapshot": "ab"}`, "RULE_BROKEN", "generation"},
		{"Start", `{"change": {"generation": 1, "reason": "` + long + `"}, "snapshot": "ab"}`, "RULE_BROKEN", "reason has 1001 bytes; accepted: up to 1000"},
		{"Start", `{"change": {"generation": 1, "reason": "two\nlines"}, "snapshot": "ab"}`, "RULE_BROKEN", "reason has control characters"},
		{"Start", `{"change": {"generation": 1, "author": "a\u001bb"}, "snapshot": "ab"}`, "RULE_BROKEN", "author has control characters"},
		{"Start", `{"change": {"generation": 1}, "snapshot": "../ab"}`, "RULE_BROKEN", "snapshot is no digest"},
		{"Start", `{"change": {"generation": 1}, "snapshot": "ab", "override": "  "}`, "RULE_BROKEN", "override is no reason"},
		{"Start", `{"change": {"generation": 1}, "snapshot": "ab", "weight": 1001}`, "RULE_BROKEN", "weight is 1001"},
		{"Start", `{"change": {"generation": 1}, "snapshot": "ab", "recallFloor": 0.99}`, "RULE_BROKEN", "recall_floor is 0.99"},
		{"Start", `{"change": {"generation": 1}, "snapshot": "ab", "recallFloor": "NaN"}`, "RULE_BROKEN", "recall_floor is"},
		{"Start", `{"change": {"generation": 1}, "snapshot": "ab", "arm": "An arm"}`, "RULE_BROKEN", "arm is no name of an arm"},
		{"Split", `{"change": {"generation": 1}}`, "RULE_BROKEN", "set at least one of"},
		{"Split", `{"change": {"generation": 1}, "weights": {"control": 1001}}`, "RULE_BROKEN", "1001"},
		{"Split", `{"change": {"generation": 1}, "pins": [{"arm": "control"}]}`, "RULE_BROKEN", "key has 0 bytes"},
		{"Split", `{"change": {"generation": 1}, "weights": {"nobody": 1}}`, "CHANGE_REFUSED", "there is no arm nobody"},
		{"Split", `{"change": {"generation": 1}, "pins": [` + strings.Repeat("{},", 1<<19) + `{}]}`, "RULE_BROKEN", "pins has 524289 keys; accepted: up to 1000"},
		{"Split", `{"change": {"generation": 1}, "unpin": [` + strings.Repeat(`"",`, 1000) + `""]}`, "RULE_BROKEN", "unpin has 1001 keys; accepted: up to 1000"},
		{"Rollback", `{"change": {"generation": 1}, "to": 1, "awayFrom": "ab"}`, "RULE_BROKEN", "both are set"},
		{"Rollback", `{"change": {"generation": 1}, "to": 9}`, "CHANGE_REFUSED", "there is no generation 9"},
		{"Rollback", `{"change": {"generation": 1}, "awayFrom": "0000"}`, "CHANGE_REFUSED", "generation 1 is the first"},
		{"Stop", `{"change": {"generation": 1}}`, "RULE_BROKEN", "arm has 0 bytes"},
		{"Promote", `{"change": {"generation": 1}, "arm": "nobody"}`, "CHANGE_REFUSED", "there is no arm nobody"},
		{"Start", `{"change": {"generation": 1}, "snapshot": "` + strings.Repeat("0", 64) + `"}`, "SNAPSHOT_UNKNOWN", "no such snapshot"},
		{"Start", `{"change": {"generation": 1}, "snapshot": "` + d[:62] + `"}`, "SNAPSHOT_AMBIGUOUS", "means any of 2 snapshots; give more digits"},
		{"GetSnapshot", `{"snapshot": "` + twin + `"}`, "SNAPSHOT_DAMAGED", "its digest is"},
		{"ListReleases", `{"pageSize": 101}`, "RULE_BROKEN", "page_size is 101"},
		{"ListReleases", `{"pageToken": "r!"}`, "PAGE_TOKEN_INVALID", "page_token is"},
		{"ListSnapshots", `{"pageToken": "r12"}`, "PAGE_TOKEN_INVALID", "page_token is"},
		{"DiffSnapshots", `{"candidate": "` + d[:12] + `"}`, "DIFF_UNAVAILABLE", "compares no snapshots"},
	} {
		r, err := http.NewRequest(http.MethodPost, f.p.url+service+c.method, strings.NewReader(c.body))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		got := f.p.do(t, r)
		require.Contains(t, string(got.body), `"`+c.reason+`"`, "%s %s", c.method, c.body)
		require.Contains(t, string(got.body), c.text, "%s %s", c.method, c.body)
		require.Less(t, len(got.body), 8<<10)
	}
	now, err := f.releases.Current(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, now.Generation)
	require.InDelta(t, 0.98, 1-audit.Margin, 1e-12, "the contract's rule of recall_floor says it")
}

// TestReleaseChangesAreOff asks servers that were not told to change anything, or that a web
// page has given a name.
func TestReleaseChangesAreOff(t *testing.T) {
	quiet := publishing()
	quiet.ReleaseWrites = false
	f := newFleet(t, 1, quiet)
	_, err := f.p.releaseClient().Split(t.Context(), unpin(1))
	requireRefused(t, err, connect.CodePermissionDenied, "WRITES_OFF")
	require.Len(t, history(t, f.p.releaseClient(), 5), 1, "reading is not off")

	g := newFleet(t, 1, publishing())
	r, err := http.NewRequest(http.MethodPost, g.p.url+tandemv1connect.ReleaseServiceSplitProcedure, strings.NewReader(`{"change": {"generation": 1}, "unpin": ["a"]}`))
	require.NoError(t, err)
	r.Host = "rebound.example:8080"
	r.Header.Set("Content-Type", "application/json")
	requireReason(t, g.p.do(t, r), http.StatusForbidden, "WRITES_OFF")
	require.Len(t, history(t, g.p.releaseClient(), 5), 1)
}

// TestReleaseChangesOfARestoredStore has a store go back to an older copy: a generation is not
// what it was, and a server that knows it changes nothing unless a person accepts that.
func TestReleaseChangesOfARestoredStore(t *testing.T) {
	f := newFleet(t, 2, publishing())
	c := f.p.releaseClient()
	_, err := c.Start(t.Context(), startOf(1, string(f.digests[1])))
	require.NoError(t, err)
	f.await(t, 2)
	require.NoError(t, os.Remove(filepath.Join(f.store.Objects().Dir(), "releases", "000000000002.json")))
	wait(t, func() bool { return f.status(t).LogState == tandemv1.LogState_LOG_STATE_BEHIND })
	_, err = c.Split(t.Context(), unpin(1))
	requireRefused(t, err, connect.CodeFailedPrecondition, "RELEASE_LOG_BROKEN")
	accepting := unpin(1)
	accepting.Msg.Change.Restored = true
	_, err = c.Split(t.Context(), accepting)
	require.NoError(t, err)
	wait(t, func() bool { return f.status(t).LogState == tandemv1.LogState_LOG_STATE_FOLLOWED })
	_, err = c.Split(t.Context(), unpin(2))
	require.NoError(t, err)
}

// TestDiffsThroughAServer compares a snapshot that is mapped with one that is not, one at a
// time.
func TestDiffsThroughAServer(t *testing.T) {
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	c := publishing()
	c.Compare = func(ctx context.Context, candidate, previous *snapshots.Snapshot) (any, error) {
		entered <- struct{}{}
		select {
		case <-leave:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return []manifest.Digest{candidate.Digest(), previous.Digest()}, nil
	}
	f := newFleet(t, 2, c)
	ask := connect.NewRequest(&tandemv1.DiffSnapshotsRequest{Candidate: string(f.digests[1])})
	done := make(chan error, 1)
	var got *connect.Response[tandemv1.DiffSnapshotsResponse]
	go func() {
		var err error
		got, err = f.p.releaseClient().DiffSnapshots(t.Context(), ask)
		done <- err
	}()
	<-entered
	_, err := f.p.releaseClient().DiffSnapshots(t.Context(), connect.NewRequest(ask.Msg))
	requireRefused(t, err, connect.CodeResourceExhausted, "OVERLOADED")
	close(leave)
	require.NoError(t, <-done)
	var pair []manifest.Digest
	require.NoError(t, json.Unmarshal(got.Msg.Report, &pair))
	assert.Equal(t, []manifest.Digest{f.digests[1], f.digests[0]}, pair)

	_, err = f.p.releaseClient().DiffSnapshots(t.Context(), connect.NewRequest(&tandemv1.DiffSnapshotsRequest{Candidate: string(f.digests[0])}))
	requireRefused(t, err, connect.CodeInvalidArgument, "RULE_BROKEN")
	small := c
	small.Store, small.MemoryLimit = f.store, bytesOf(must(f.store.Manifest(t.Context(), f.digests[0])))
	_, err = start(t, small).releaseClient().DiffSnapshots(t.Context(), connect.NewRequest(ask.Msg))
	requireRefused(t, err, connect.CodeFailedPrecondition, "DIFF_UNAVAILABLE")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
