package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// fleet is a store with two snapshots, and a server that follows its releases.
type fleet struct {
	store    *snapshots.Store
	releases *release.Releases
	digests  []manifest.Digest
	towers   []*towers
	p        *process
	admin    tandemv1connect.AdminServiceClient
}

// newFleet publishes snapshots of different vectors, versions v1, v2, ..., releases the
// first, and serves it.
func newFleet(t *testing.T, snapshots int, c Config) *fleet {
	f := &fleet{}
	for i := range snapshots {
		data := newTowers(rand.New(rand.NewPCG(uint64(i), 2)), index.Dot, 4, 60, 10, 2)
		data.version = fmt.Sprintf("v%d", i+1)
		if i == 0 {
			f.store = data.publish(t)
			d, err := f.store.Resolve(t.Context(), "")
			require.NoError(t, err)
			f.digests = append(f.digests, d)
		} else {
			f.digests = append(f.digests, data.publishTo(t, f.store))
		}
		f.towers = append(f.towers, data)
	}
	recordGates(t, f.store, f.digests...)
	f.releases = release.New(f.store)
	f.start(t, f.digests[0], 0)
	c.Store = f.store
	f.p = start(t, c)
	f.admin = tandemv1connect.NewAdminServiceClient(f.p.http2, f.p.url)
	f.await(t, 1)
	return f
}

// recordGates notes of snapshots that their gates compared them with one another, and passed.
func recordGates(t *testing.T, store *snapshots.Store, digests ...manifest.Digest) {
	t.Helper()
	for _, d := range digests {
		for _, previous := range digests {
			report := &manifest.GateReport{Previous: previous, Checks: []manifest.GateCheck{{Gate: gates.Structure, Passed: true}}}
			require.NoError(t, gates.Record(t.Context(), store.Objects(), &gates.Recorded{Snapshot: d, Report: report}))
		}
	}
}

func (f *fleet) start(t *testing.T, d manifest.Digest, weight int) {
	t.Helper()
	_, err := f.releases.Start(t.Context(), release.StartOptions{Snapshot: d, Weight: weight, Change: release.Change{Author: "test"}})
	require.NoError(t, err)
}

func (f *fleet) status(t *testing.T) *tandemv1.GetStatusResponse {
	t.Helper()
	s, err := f.admin.GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
	require.NoError(t, err)
	return s.Msg
}

// until waits until the server's status is as wanted.
func (f *fleet) until(t *testing.T, want func(*tandemv1.GetStatusResponse) bool) *tandemv1.GetStatusResponse {
	t.Helper()
	var s *tandemv1.GetStatusResponse
	wait(t, func() bool { s = f.status(t); return want(s) })
	return s
}

func (f *fleet) await(t *testing.T, generation uint64) *tandemv1.GetStatusResponse {
	t.Helper()
	return f.until(t, func(s *tandemv1.GetStatusResponse) bool { return s.Generation == generation })
}

func (f *fleet) ask(t *testing.T, r *tandemv1.RetrieveRequest) *tandemv1.RetrieveResponse {
	t.Helper()
	answer, err := f.p.client().Retrieve(t.Context(), connect.NewRequest(r))
	require.NoError(t, err)
	return answer.Msg
}

func TestServerFollowsReleases(t *testing.T) {
	f := newFleet(t, 2, Config{})
	user := &tandemv1.RetrieveRequest{UserId: "u1", K: 5}
	a := f.ask(t, user)
	assert.Equal(t, []any{uint64(1), "control", string(f.digests[0]), "v1"}, []any{a.Generation, a.Arm, a.Snapshot, a.ModelVersion})
	s := f.status(t)
	assert.Equal(t, tandemv1.Phase_PHASE_SERVING, s.Phase)
	assert.EqualValues(t, 60, s.Arms[0].Apps)
	assert.Positive(t, s.MappedBytes)

	f.start(t, f.digests[1], 300)
	s = f.await(t, 2)
	assert.Len(t, s.Arms, 2)
	now, err := f.releases.Current(t.Context())
	require.NoError(t, err)
	router := release.NewRouter(now)
	arms := map[string]int{}
	for i := range 200 {
		r := &tandemv1.RetrieveRequest{Vector: []float32{1, 2, 3, 4}, K: 1, RequestKey: fmt.Sprint("key", i)}
		a := f.ask(t, r)
		want := now.Arms[router.Route(r.RequestKey)]
		assert.Equal(t, []string{want.Name, string(want.Snapshot)}, []string{a.Arm, a.Snapshot})
		arms[a.Arm]++
		r.ModelVersion = "v2"
		assert.Equal(t, "v2", f.ask(t, r).ModelVersion, "pinned to a version")
	}
	assert.Greater(t, arms["control"], arms["candidate"])
	assert.Greater(t, arms["candidate"], 30)
	_, err = f.p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1, ModelVersion: "v9"}))
	requireError(t, err, connect.CodeFailedPrecondition, `model_version "v9" is not served; served: "v1", "v2"`)
	e, err := f.p.client().GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{"a1"}, ModelVersion: "v2"}))
	require.NoError(t, err)
	assert.Equal(t, []any{uint64(2), "candidate"}, []any{e.Msg.Generation, e.Msg.Arm})

	_, err = f.releases.Split(t.Context(), release.SplitOptions{Weights: map[string]int{"candidate": 0}, Pins: map[string][]string{"candidate": {"u1"}}})
	require.NoError(t, err)
	f.await(t, 3)
	assert.Equal(t, "candidate", f.ask(t, user).Arm, "pinned")
	assert.Equal(t, "control", f.ask(t, &tandemv1.RetrieveRequest{UserId: "u2", K: 1}).Arm)

	_, err = f.releases.Promote(t.Context(), release.Change{}, "")
	require.NoError(t, err)
	s = f.await(t, 4)
	assert.Equal(t, []string{string(f.digests[0])}, s.KeptSnapshots)
	a = f.ask(t, user)
	assert.Equal(t, []any{uint64(4), "control", "v2"}, []any{a.Generation, a.Arm, a.ModelVersion})
	_, err = f.releases.Rollback(t.Context(), release.RollbackOptions{To: 1})
	require.NoError(t, err)
	f.await(t, 5)
	assert.Equal(t, "v1", f.ask(t, user).ModelVersion)
}

func TestServerKeepsWhatItHas(t *testing.T) {
	f := newFleet(t, 2, Config{})
	m, err := f.store.Manifest(t.Context(), f.digests[1])
	require.NoError(t, err)
	path := f.store.ShardPath(m.Apps.Shards[0].Digest)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	broken := bytes.Clone(whole)
	broken[len(broken)/2] ^= 1
	require.NoError(t, os.WriteFile(path, broken, 0o600))
	f.start(t, f.digests[1], 500)
	s := f.until(t, func(s *tandemv1.GetStatusResponse) bool { return s.Phase == tandemv1.Phase_PHASE_FAILED })
	assert.EqualValues(t, 1, s.Generation)
	assert.EqualValues(t, 2, s.TargetGeneration)
	assert.Contains(t, s.Error, "checksum")
	assert.Equal(t, http.StatusOK, f.p.get(t, "/readyz").status)
	assert.EqualValues(t, 1, f.ask(t, &tandemv1.RetrieveRequest{UserId: "u1", K: 1}).Generation)

	require.NoError(t, os.WriteFile(path, whole, 0o600))
	s = f.await(t, 2) // it tries again
	assert.Empty(t, s.Error)
}

// An entry of the log that is no release is shown, and a later one makes good for it.
func TestServerShowsUnreadableRelease(t *testing.T) {
	f := newFleet(t, 1, Config{})
	entry := func(generation int) string { return fmt.Sprintf("releases/%012d.json", generation) }
	first, err := f.store.Objects().Read(t.Context(), entry(1))
	require.NoError(t, err)
	for i, bad := range []string{"{", strings.Replace(string(first), `"version": 1`, `"version": 9`, 1), string(first)} {
		require.NoError(t, f.store.Objects().Create(t.Context(), entry(i+2), []byte(bad)))
		s := f.until(t, func(s *tandemv1.GetStatusResponse) bool { return s.TargetGeneration == uint64(i+2) })
		assert.Equal(t, tandemv1.Phase_PHASE_FAILED, s.Phase)
		assert.EqualValues(t, 1, s.Generation)
		assert.Contains(t, s.Error, fmt.Sprintf("read release %d: %s", i+2, []string{
			"release: unexpected end of JSON input", "release: version is 9, this build reads versions 1 to 3", "its generation is 1",
		}[i]))
		assert.Equal(t, http.StatusOK, f.p.get(t, "/readyz").status)
		assert.EqualValues(t, 1, f.ask(t, &tandemv1.RetrieveRequest{UserId: "u1", K: 1}).Generation)
	}

	f.p.stop()
	require.NoError(t, <-f.p.done)
	f.p = start(t, Config{Store: f.store})
	f.admin = tandemv1connect.NewAdminServiceClient(f.p.http2, f.p.url)
	s := f.until(t, func(s *tandemv1.GetStatusResponse) bool { return s.Generation == 1 && s.TargetGeneration == 4 })
	assert.Equal(t, tandemv1.Phase_PHASE_FAILED, s.Phase, "it starts with the newest that it can read")
	assert.Contains(t, s.Error, "read release 4: its generation is 1")

	good := strings.Replace(string(first), `"generation": 1`, `"generation": 5`, 1)
	require.NoError(t, f.store.Objects().Create(t.Context(), entry(5), []byte(good)))
	s = f.await(t, 5)
	assert.Equal(t, tandemv1.Phase_PHASE_SERVING, s.Phase)
	assert.Empty(t, s.Error)
}

func TestServerAdmitsWhatFits(t *testing.T) {
	f := newFleet(t, 3, Config{})
	size := int64(f.status(t).MappedBytes)
	f.p.stop()
	require.NoError(t, <-f.p.done)

	f.p = start(t, Config{Store: f.store, MemoryLimit: 2*size + size/2})
	f.admin = tandemv1connect.NewAdminServiceClient(f.p.http2, f.p.url)
	f.await(t, 1)
	promote := func(d manifest.Digest) {
		f.start(t, d, 10)
		_, err := f.releases.Promote(t.Context(), release.Change{}, "")
		require.NoError(t, err)
	}
	promote(f.digests[1])
	f.await(t, 3)
	promote(f.digests[2])
	s := f.await(t, 5)
	assert.LessOrEqual(t, int64(s.MappedBytes), 2*size+size/2, "what no longer answers makes room")

	f.start(t, f.digests[0], 10)
	f.await(t, 6)
	_, err := f.releases.Start(t.Context(), release.StartOptions{Snapshot: f.digests[1], Arm: "third"})
	require.NoError(t, err)
	s = f.until(t, func(s *tandemv1.GetStatusResponse) bool { return s.Phase == tandemv1.Phase_PHASE_FAILED })
	assert.EqualValues(t, 6, s.Generation)
	assert.Contains(t, s.Error, "not admitted: it takes ")
	assert.LessOrEqual(t, int64(s.MappedBytes), 2*size+size/2)
}

// A shard that several snapshots have is in memory once, and a release that is refused
// takes nothing away that was kept for a rollback.
func TestServerCountsSharedShardsOnce(t *testing.T) {
	f := newFleet(t, 2, Config{})
	size := int64(f.status(t).MappedBytes)
	same := *f.towers[0]
	same.version = "v1b"
	d := same.publishTo(t, f.store)
	recordGates(t, f.store, append(f.digests, d)...)
	f.p.stop()
	require.NoError(t, <-f.p.done)

	f.p = start(t, Config{Store: f.store, MemoryLimit: size + size/2})
	f.admin = tandemv1connect.NewAdminServiceClient(f.p.http2, f.p.url)
	f.start(t, d, 10)
	s := f.await(t, 2)
	assert.Len(t, s.Arms, 2)
	assert.EqualValues(t, size, s.MappedBytes)
	_, err := f.releases.Promote(t.Context(), release.Change{}, "")
	require.NoError(t, err)
	s = f.await(t, 3)
	require.Equal(t, []string{string(f.digests[0])}, s.KeptSnapshots)

	f.start(t, f.digests[1], 10)
	s = f.until(t, func(s *tandemv1.GetStatusResponse) bool { return s.Phase == tandemv1.Phase_PHASE_FAILED })
	assert.Contains(t, s.Error, "not admitted: it takes ")
	assert.Equal(t, []string{string(f.digests[0])}, s.KeptSnapshots)
}

// Under load from several clients a server switches between snapshots: no request
// fails, no answer mixes generations, and nothing grows.
func TestSwitchesUnderLoad(t *testing.T) {
	const clients, switches = 16, 20
	f := newFleet(t, 2, Config{})
	f.start(t, f.digests[1], 0)
	_, err := f.releases.Promote(t.Context(), release.Change{}, "")
	require.NoError(t, err)
	f.await(t, 3)

	// What each snapshot answers, by its digest.
	truth := map[string]map[string][]*tandemv1.Candidate{}
	for i, d := range f.digests {
		truth[string(d)] = map[string][]*tandemv1.Candidate{}
		s := NewService(slog.New(slog.DiscardHandler))
		snapshot, err := snapshots.Open(t.Context(), f.store, d)
		require.NoError(t, err)
		s.Serve(snapshot)
		for u := range 10 {
			id := fmt.Sprint("u", u)
			a, err := s.retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: id, K: 10, RecallTarget: new(1.0)})
			require.NoError(t, err)
			require.Equal(t, f.towers[i].version, a.ModelVersion)
			truth[string(d)][id] = a.Candidates
		}
		s.Close()
	}
	ctx, stop := context.WithCancel(t.Context())
	var asked atomic.Int64
	var load sync.WaitGroup
	for c := range clients {
		load.Go(func() {
			client := f.p.client()
			for i := c; ctx.Err() == nil; i++ {
				id := fmt.Sprint("u", i%10)
				a, err := client.Retrieve(context.Background(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: id, K: 10, RecallTarget: new(1.0)}))
				if !assert.NoError(t, err) {
					return
				}
				asked.Add(1)
				want := truth[a.Msg.Snapshot][id]
				same := slices.EqualFunc(want, a.Msg.Candidates, func(x, y *tandemv1.Candidate) bool { return x.Id == y.Id && x.Score == y.Score })
				// Odd generations serve the second snapshot, even ones the first.
				if !assert.True(t, same) || !assert.Equal(t, string(f.digests[a.Msg.Generation%2]), a.Msg.Snapshot) {
					return
				}
			}
		})
	}
	files := openFiles(t)
	for i := range switches {
		_, err := f.releases.Rollback(t.Context(), release.RollbackOptions{To: uint64(1 + 2*(i%2))})
		require.NoError(t, err)
		f.await(t, uint64(4+i))
	}
	stop()
	load.Wait()
	assert.Greater(t, asked.Load(), int64(clients))
	assert.LessOrEqual(t, openFiles(t), files+4)
	assert.LessOrEqual(t, mappedShards(t, f.store), 2*4, "two snapshots of four shards")
	t.Logf("%d requests over %d switches", asked.Load(), switches)
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}

// mappedShards counts the shard files of a store that this process maps.
func mappedShards(t *testing.T, store *snapshots.Store) int {
	data, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	files := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); strings.Contains(line, store.Location()) {
			files[fields[len(fields)-1]] = true
		}
	}
	return len(files)
}
