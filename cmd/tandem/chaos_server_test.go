package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// newChaos makes the store and its first releases.
func newChaos(t *testing.T) *chaos {
	c := &chaos{ahead: objectstest.S3Location(t), log: map[uint64]*release.Release{}, seen: map[sight]time.Time{}, wrong: map[string]int{}, answers: servingAnswers{}}
	c.staleness.Store(int64(1<<63 - 1))
	u, err := url.Parse(c.ahead)
	require.NoError(t, err)
	query := u.Query()
	c.proxy = newBrokenProxy(t, query.Get("endpoint"), min(5*time.Second, *chaosTime/60), *trialSeed)
	query.Set("endpoint", c.proxy.server.URL)
	u.RawQuery = query.Encode()
	c.behind = u.String()
	c.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	t.Cleanup(c.http.CloseIdleConnections)

	s := &releasing{location: c.ahead, cache: t.TempDir()}
	towers := t.TempDir()
	s.run(t, "generate", "--out", towers, "--apps", "300", "--users", fmt.Sprint(users), "--dim", "8")
	for _, version := range []string{"1", "2", "3"} {
		s.run(t, "build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
			"--model", "feed", "--model-version", version, "--metric", "dot", "--shards", version, "--seed", version, "--store", s.location, "--cache", s.cache)
	}
	store, err := snapshots.OpenStore(t.Context(), c.ahead, snapshots.Options{Cache: s.cache})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	c.releases = release.New(store)
	var sizes []int64
	for i, p := range list {
		m, err := store.Manifest(t.Context(), p.Digest)
		require.NoError(t, err)
		sizes = append(sizes, snapshotSize(m))
		c.snapshots = append(c.snapshots, string(p.Digest))
		r, err := c.releases.Start(t.Context(), release.StartOptions{Snapshot: p.Digest, Change: release.Change{Override: "a test"}})
		require.NoError(t, err)
		c.note(r)
		if i > 0 {
			r, err = c.releases.Promote(t.Context(), release.Change{}, release.Candidate)
			require.NoError(t, err)
			c.note(r)
		}
		c.only = append(c.only, r.Generation)
	}
	slices.Sort(sizes)
	c.cacheSize = sizes[1] + sizes[2]
	for _, snapshot := range c.snapshots {
		c.learn(t, snapshot, s.cache)
	}
	return c
}

func snapshotSize(m *manifest.Manifest) (size int64) {
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, sm := range m.Tower(kind).Shards {
			size += sm.Size
		}
	}
	return size
}

// learn notes what a server beside the proxy answers from a snapshot.
func (c *chaos) learn(t *testing.T, snapshot, cache string) {
	p := c.start(t, "--store", c.ahead, "--cache", cache, "--snapshot", snapshot)
	defer p.stop(c)
	c.answers[snapshot] = map[string]string{}
	for i := range users {
		a, err := c.retrieve(p.url, userID(i))
		require.NoError(t, err)
		c.answers[snapshot][userID(i)] = candidates(a)
	}
}

// chaosServer is a server process.
type chaosServer struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
	url    string
	done   chan struct{}
}

// start starts a server and waits until it answers.
func (c *chaos) start(t *testing.T, args ...string) *chaosServer {
	p := &chaosServer{stderr: &lockedBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command("tandem", append([]string{"serve", "--listen", "127.0.0.1:0", "--log-format", "json"}, args...)...)
	p.cmd.Stderr = p.stderr
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its state says how it ended
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // it has ended, unless the test failed
	require.Eventually(t, func() bool {
		m := whereServing.FindStringSubmatch(p.stderr.String())
		if m == nil {
			return false
		}
		p.url = "http://" + m[1]
		_, err := c.retrieve(p.url, userID(0))
		return err == nil
	}, catchUp, 20*time.Millisecond, "%s", p.stderr)
	return p
}

// serve starts the server that the chaos is about. It keeps too little for all snapshots,
// so that it has to download what releases need.
func (c *chaos) serve(t *testing.T) *chaosServer {
	p := c.start(t, "--store", c.behind, "--cache", t.TempDir(), "--cache-size", fmt.Sprint(c.cacheSize), "--keep", "1s", "--record-share", "0.02",
		"--live-stale", "answer") // the store is away for longer than the fence
	c.server = p.url
	return p
}

// stop ends a server, which must end well.
func (p *chaosServer) stop(c *chaos) {
	select {
	case <-p.done:
		c.failf("the server ended by itself: %s", p.cmd.ProcessState)
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(catchUp):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	if !p.cmd.ProcessState.Success() {
		c.failf("the server ended with %s", p.cmd.ProcessState)
	}
}

// publish releases one snapshot, that and the next, and the next, until ctx ends.
func (c *chaos) publish(ctx context.Context) {
	random := rand.New(rand.NewPCG(*trialSeed, 2))
	pause := min(5*time.Second, *chaosTime/10)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/4 + time.Duration(random.Float64()*float64(pause))):
		}
		var err error
		var r *release.Release
		now := i / 3 % len(c.only)
		switch i % 3 {
		case 0:
			r, err = c.releases.Rollback(ctx, release.RollbackOptions{To: c.only[now]})
		case 1:
			next := c.snapshots[(now+1)%len(c.snapshots)]
			r, err = c.releases.Start(ctx, release.StartOptions{Snapshot: manifest.Digest(next), Weight: 300, Change: release.Change{Override: "a test"}})
		case 2:
			r, err = c.releases.Split(ctx, release.SplitOptions{Weights: map[string]int{release.Candidate: 1 + random.IntN(900)}})
		}
		switch {
		case ctx.Err() != nil:
			return // it may be released all the same: check reads the log
		case err != nil:
			c.failf("release beside the proxy: %v", err)
			return
		}
		c.note(r)
	}
}
