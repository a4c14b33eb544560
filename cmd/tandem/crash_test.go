package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var kills = flag.Int("kills", 4, "how often a process is killed in TestKilledServers, and in TestKilledPublishers")

// onStores runs test on a store in a folder and on one on S3. Generation 1 releases one
// snapshot, and generation 3 another.
func onStores(t *testing.T, test func(t *testing.T, s *releasing)) {
	for name, location := range map[string]func(*testing.T) string{
		"folder": func(t *testing.T) string { return filepath.Join(t.TempDir(), "store") },
		"s3":     objectstest.S3Location,
	} {
		t.Run(name, func(t *testing.T) {
			s := &releasing{location: location(t), cache: t.TempDir()}
			towers := t.TempDir()
			s.run(t, "generate", "--out", towers, "--apps", "300", "--users", "80", "--dim", "8")
			for _, version := range []string{"1", "2"} {
				s.run(t, "build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
					"--model", "feed", "--model-version", version, "--metric", "dot", "--shards", version, "--store", s.location, "--cache", s.cache)
			}
			store, err := snapshots.OpenStore(t.Context(), s.location, snapshots.Options{Cache: s.cache})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, store.Close()) })
			s.releases = release.New(store)
			list, err := store.Snapshots(t.Context())
			require.NoError(t, err)
			require.Len(t, list, 2)
			for _, p := range list {
				_, err := s.releases.Start(t.Context(), release.StartOptions{Snapshot: p.Digest, Change: release.Change{Override: "a test"}})
				require.NoError(t, err)
			}
			_, err = s.releases.Promote(t.Context(), release.Change{}, release.Candidate)
			require.NoError(t, err)
			test(t, s)
		})
	}
}

// releasing is a store with releases, and the processes that use it.
type releasing struct {
	location, cache string
	releases        *release.Releases
}

func (s *releasing) run(t *testing.T, args ...string) {
	t.Helper()
	var stderr bytes.Buffer
	require.Zero(t, run(t.Context(), args, io.Discard, &stderr), "%s: %s", args, &stderr)
}

// rollback is the command that releases generation 1 or 3 again.
func (s *releasing) rollback(to uint64, more ...string) *exec.Cmd {
	args := append([]string{"release", "rollback", "--store", s.location, "--cache", s.cache, "--to", fmt.Sprint(to), "--json"}, more...)
	return exec.Command("tandem", args...)
}

// check makes sure that the store opens, that nothing in it is half, and that no release
// is missing.
func (s *releasing) check(t *testing.T) {
	t.Helper()
	store, err := snapshots.OpenStore(t.Context(), s.location, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	for _, p := range list {
		require.NoError(t, snapshots.Verify(t.Context(), store, p.Digest, func(string) {}))
	}
	var last uint64
	for r, err := range release.New(store).History(t.Context()) {
		require.NoError(t, err)
		require.True(t, last == 0 || r.Generation == last-1)
		last = r.Generation
	}
	require.EqualValues(t, 1, last)
}

// servingProcess is a server.
type servingProcess struct {
	cmd     *exec.Cmd
	address string
	events  chan servingEvent // what it logs, until it ends
}

type servingEvent struct {
	Msg        string
	Address    string
	Generation uint64
}

// serve starts a server that keeps nothing that does not answer, so that each release
// has it load a snapshot.
func (s *releasing) serve(t *testing.T, more ...string) *servingProcess {
	p := &servingProcess{events: make(chan servingEvent, 10_000)}
	p.cmd = exec.Command("tandem", "serve", "--store", s.location, "--cache", s.cache, "--listen", "127.0.0.1:0", "--keep", "1ns", "--log-format", "json")
	p.cmd.Args = append(p.cmd.Args, more...)
	stderr, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		defer close(p.events)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var e servingEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				p.events <- e
			}
		}
	}()
	return p
}

// await waits until the server logs that it serves a generation, or a later one.
func (p *servingProcess) await(t *testing.T, generation uint64) {
	t.Helper()
	for e := range p.events {
		if e.Msg == "listening" {
			p.address = e.Address
		}
		if e.Msg == "serving" && e.Generation >= generation {
			return
		}
	}
	t.Fatalf("the server ended before it served generation %d", generation)
}

// kill kills the server and waits until it is gone.
func (p *servingProcess) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	for range p.events {
	}
	_ = p.cmd.Wait() // it was killed
}

// A server that is killed at any point leaves a store that opens, and serves the newest
// release when it is started again, while releases go on.
func TestKilledServers(t *testing.T) {
	t.Parallel() // it waits
	onStores(t, func(t *testing.T, s *releasing) {
		start := time.Now()
		p := s.serve(t)
		p.await(t, 3)
		whole := time.Since(start)
		p.kill()
		random := rand.New(rand.NewPCG(1, 2))
		for range *kills {
			changing, stop := context.WithCancel(t.Context())
			var changes sync.WaitGroup
			changes.Go(func() {
				for i := uint64(0); changing.Err() == nil; i++ {
					if _, err := s.releases.Rollback(changing, release.RollbackOptions{To: 1 + 2*(i%2)}); changing.Err() == nil && !assert.NoError(t, err) {
						return
					}
				}
			})
			p := s.serve(t)
			// While it starts, or while it follows.
			timer := time.AfterFunc(time.Duration(2*random.Float64()*float64(whole)), func() { _ = p.cmd.Process.Kill() })
			for range p.events {
			}
			timer.Stop()
			p.kill()
			stop()
			changes.Wait()
			s.check(t)

			now, err := s.releases.Current(t.Context())
			require.NoError(t, err)
			p = s.serve(t)
			p.await(t, now.Generation)
			client := tandemv1connect.NewRetrievalServiceClient(http.DefaultClient, "http://"+p.address)
			a, err := client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "user-0000001", K: 3}))
			require.NoError(t, err)
			assert.Equal(t, []any{now.Generation, string(now.Arms[0].Snapshot)}, []any{a.Msg.Generation, a.Msg.Snapshot})
			http.DefaultClient.CloseIdleConnections()
			p.kill()
		}
	})
}

// A publisher that is killed at any point leaves a log without a gap. What it said it
// released is there, and the next one releases on top of it.
func TestKilledPublishers(t *testing.T) {
	t.Parallel() // it waits
	onStores(t, func(t *testing.T, s *releasing) {
		start := time.Now()
		require.NoError(t, s.rollback(1).Run())
		whole := time.Since(start)
		random := rand.New(rand.NewPCG(3, 4))
		for i := range *kills {
			before, err := s.releases.Current(t.Context())
			require.NoError(t, err)
			var said bytes.Buffer
			cmd := s.rollback(uint64(1+2*(i%2)), "--reason", fmt.Sprint("killed ", i))
			cmd.Stdout = &said
			require.NoError(t, cmd.Start())
			timer := time.AfterFunc(time.Duration(random.Float64()*1.1*float64(whole)), func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait() // killed, or done before
			timer.Stop()
			s.check(t)
			now, err := s.releases.Current(t.Context())
			require.NoError(t, err)
			var acknowledged struct{ Hash appendlog.Hash }
			if json.Unmarshal(said.Bytes(), &acknowledged) == nil {
				assert.Equal(t, acknowledged.Hash, now.Hash)
			}
			if now.Generation > before.Generation {
				assert.Equal(t, fmt.Sprint("killed ", i), now.Reason)
			}
			require.NoError(t, s.rollback(1).Run())
			after, err := s.releases.Current(t.Context())
			require.NoError(t, err)
			assert.Equal(t, now.Generation+1, after.Generation)
		}
	})
}

// Of two processes that release on top of one generation one wins, and the other is told
// who did.
func TestPublishersRace(t *testing.T) {
	t.Parallel() // it waits
	onStores(t, func(t *testing.T, s *releasing) {
		for generation := uint64(3); generation < 6; generation++ {
			authors := []string{"ann", "bob"}
			cmds, told := make([]*exec.Cmd, 2), make([]bytes.Buffer, 2)
			for i, author := range authors {
				cmds[i] = s.rollback(1, "--generation", fmt.Sprint(generation), "--author", author, "--reason", "first")
				cmds[i].Stderr = &told[i]
				require.NoError(t, cmds[i].Start())
			}
			winner := -1
			for i := range cmds {
				if cmds[i].Wait() == nil {
					require.Equal(t, -1, winner, "both won")
					winner = i
				}
			}
			require.NotEqual(t, -1, winner, "%s%s", &told[0], &told[1])
			loser := 1 - winner
			assert.Equal(t, exitFailure, cmds[loser].ProcessState.ExitCode())
			assert.Regexp(t, fmt.Sprintf(`(?m)^tandem release rollback: rollback: generation %d is a rollback by %s at .* \("first"\): conflict: another writer was first`,
				generation+1, authors[winner]), told[loser].String())
			now, err := s.releases.Current(t.Context())
			require.NoError(t, err)
			assert.Equal(t, []any{generation + 1, authors[winner]}, []any{now.Generation, now.Author})
		}
		s.check(t)
	})
}
