package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// killed runs a command and kills it at a random moment of the time that a whole run takes.
func killed(t *testing.T, random *rand.Rand, whole time.Duration, args ...string) {
	t.Helper()
	cmd := exec.Command("tandem", args...)
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(time.Duration(random.Float64()*1.1*float64(whole)), func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait() // killed, or done before
	timer.Stop()
}

// ruin damages every file of a store at random: it is deleted, truncated, extended, or a
// byte of it is another one. It writes over the files, as a disk that fails does.
func ruin(t *testing.T, random *rand.Rand, dir string) {
	t.Helper()
	for _, sub := range []string{"shards", "snapshots"} {
		files, err := filepath.Glob(filepath.Join(dir, sub, "[0-9a-f]*"))
		require.NoError(t, err)
		for _, path := range files {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			at := random.IntN(len(data))
			switch random.IntN(5) {
			case 0:
				require.NoError(t, os.Remove(path))
				continue
			case 1:
				data = data[:at]
			case 2:
				data = append(data, data[:at+1]...)
			case 3:
				data[at] ^= 1 << random.IntN(8)
			case 4: // whole
			}
			require.NoError(t, os.WriteFile(path, data, 0o644))
		}
	}
}

// A copy, a build or a repair that is killed while it mends a ruined store leaves nothing
// worse than it was, and the next one makes it whole. The source stays as it is.
func TestKilledRepairs(t *testing.T) {
	t.Parallel() // it waits
	dir, towers := t.TempDir(), t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	s := &releasing{}
	s.run(t, "generate", "--out", towers, "--apps", "300", "--users", "80", "--dim", "8")
	building := func(store string) []string {
		return []string{"build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
			"--model", "feed", "--model-version", "1", "--metric", "dot", "--shards", "2", "--store", store}
	}
	s.run(t, building(from)...)
	store, err := snapshots.OpenStore(t.Context(), from, snapshots.Options{})
	require.NoError(t, err)
	defer store.Close()
	digest, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)
	s.run(t, "snapshot", "copy", "--store", from, "--to", to, string(digest))
	whole := files(t, from)
	random := rand.New(rand.NewPCG(5, 6))
	for _, args := range [][]string{
		{"snapshot", "copy", "--store", from, "--to", to, string(digest)},
		{"snapshot", "verify", "--store", to, "--repair", from, string(digest)},
		building(to),
	} {
		t.Run(args[0]+" "+args[1], func(t *testing.T) {
			start := time.Now()
			require.NoError(t, exec.Command("tandem", args...).Run())
			took := time.Since(start)
			for range *kills {
				ruin(t, random, to)
				before := files(t, to)
				killed(t, random, took, args...)
				for name, data := range files(t, to) {
					require.Contains(t, []string{before[name], whole[name]}, data, "%s is neither what it was nor whole", name)
				}
				output, err := exec.Command("tandem", args...).CombinedOutput()
				require.NoError(t, err, string(output))
				require.Equal(t, whole, files(t, to))
				require.Equal(t, whole, files(t, from))
			}
		})
	}
}

// files returns the shards and manifests of a store.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, sub := range []string{"shards", "snapshots"} {
		list, err := filepath.Glob(filepath.Join(dir, sub, "[0-9a-f]*"))
		require.NoError(t, err)
		for _, path := range list {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			all[filepath.Base(path)] = string(data)
		}
	}
	return all
}

// Processes that share a cache keep it within its bound at every moment, those that are
// killed included, and who is not killed gets what he wants.
func TestKilledUsersOfACache(t *testing.T) {
	t.Parallel() // it waits
	location, cache := objectstest.S3Location(t), t.TempDir()
	towers := t.TempDir()
	s := &releasing{}
	s.run(t, "generate", "--out", towers, "--apps", "3000", "--users", "800", "--dim", "32")
	var digests []string
	var largest int64
	for _, seed := range []string{"1", "2", "3", "4"} {
		var out bytes.Buffer
		require.Zero(t, run(t.Context(), []string{"build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
			"--model", "feed", "--model-version", seed, "--metric", "dot", "--shards", "2", "--seed", seed, "--store", location, "--cache", t.TempDir()}, &out, os.Stderr))
		lines := bytes.Fields(out.Bytes())
		digests = append(digests, string(lines[len(lines)-1]))
	}
	store, err := snapshots.OpenStore(t.Context(), location, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	for _, d := range digests {
		m, err := store.Manifest(t.Context(), manifest.Digest(d))
		require.NoError(t, err)
		var size int64
		for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
			for _, sm := range m.Tower(kind).Shards {
				size += sm.Size
			}
		}
		largest = max(largest, size)
	}
	bound := 2*largest + largest/2
	using := func(i int) *exec.Cmd {
		return exec.Command("tandem", "snapshot", "diff", "--store", location, "--cache", cache, "--cache-size", fmt.Sprint(bound), digests[i%4], digests[(i+1)%4])
	}
	stop := make(chan struct{})
	var watching, users sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if !assert.LessOrEqual(t, cacheBytes(t, cache), bound) {
				return
			}
		}
	})
	start := time.Now()
	require.NoError(t, using(0).Run())
	took := time.Since(start)
	for user := range 3 {
		users.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(user)))
			for i := range *kills {
				cmd := using(user + i)
				assert.NoError(t, cmd.Start())
				timer := time.AfterFunc(time.Duration(random.Float64()*2*float64(took)), func() { _ = cmd.Process.Kill() })
				_ = cmd.Wait() // killed, or done before
				timer.Stop()
				if output, err := using(user + i + 1).CombinedOutput(); !assert.NoError(t, err, string(output)) {
					return
				}
			}
		})
	}
	users.Wait()
	close(stop)
	watching.Wait()
}

// cacheBytes returns what a cache holds while nothing is removed from it: what goes
// between two looks would count beside what has come for it.
func cacheBytes(t *testing.T, cache string) (total int64) {
	if lock, err := os.Open(filepath.Join(cache, "lock")); err == nil {
		defer lock.Close() // and unlock
		assert.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	}
	for _, sub := range []string{"shards", "partial"} {
		entries, err := os.ReadDir(filepath.Join(cache, sub))
		if !errors.Is(err, fs.ErrNotExist) { // it is not there yet
			assert.NoError(t, err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				total += info.Size()
			}
		}
	}
	return total
}
