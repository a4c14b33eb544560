package attack_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/bench/attack"
	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// served builds synthetic towers, serves them, and returns the server's address and what
// is known of it.
func served(t *testing.T) (string, *attack.Target) {
	dir := t.TempDir()
	require.NoError(t, synthetic.Write(t.Context(), dir, synthetic.Options{Apps: 600, Users: 200, Dim: 8, Seed: 3}, nil))
	store, err := snapshots.CreateStore(t.Context(), filepath.Join(dir, "store"), snapshots.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, store.Close()) })
	report, err := builder.Build(t.Context(), store, builder.Options{
		Model: "test", ModelVersion: "1", Params: index.DefaultParams(index.Dot), Threads: 2,
		Apps:  builder.TowerOptions{Input: tower.Options{Paths: []string{filepath.Join(dir, synthetic.AppsFile)}, IDColumn: synthetic.AppIDColumn}, Shards: 2},
		Users: builder.TowerOptions{Input: tower.Options{Paths: []string{filepath.Join(dir, synthetic.UsersFile)}, IDColumn: synthetic.UserIDColumn}, Shards: 1},
	})
	require.NoError(t, err)
	target, err := attack.ReadTarget(t.Context(), store, report.Digest)
	require.NoError(t, err)

	running, stop := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	var address net.Addr
	go func() {
		done <- server.Run(running, server.Config{
			Store: store, Snapshot: string(report.Digest), Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), DrainTimeout: time.Minute,
			Listening: func(a net.Addr) { address = a }, Ready: func(server.Snapshot) { close(ready) },
		})
	}()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-done)
	})
	select {
	case <-ready:
	case err := <-done:
		require.NoError(t, err)
	}
	return address.String(), target
}

// Every kind of attack takes its turns and leaves nothing behind, and the server goes on.
func TestSendEveryKind(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("attack", func(t *testing.T) { // whose cleanup ends before the goroutines are counted
		address, target := served(t)
		assert.NotEmpty(t, target.Words)
		var mu sync.Mutex
		turns := map[string]int64{}
		var all sync.WaitGroup
		for _, name := range attack.KindNames() {
			all.Go(func() {
				sent, err := attack.Send(t.Context(), attack.SendOptions{
					Address: address, Target: target, Seed: 7, Attackers: 1, Time: 2 * time.Second, Kinds: []string{name},
				})
				if !assert.NoError(t, err) || !assert.Len(t, sent.Kinds, 1, name) {
					return
				}
				k := sent.Kinds[0]
				assert.Equal(t, name, k.Name)
				assert.Zero(t, k.Outcomes["not sent"], name)
				mu.Lock()
				defer mu.Unlock()
				turns[name] = k.Turns
			})
		}
		all.Wait()
		for _, name := range attack.KindNames() {
			assert.Positive(t, turns[name], name)
		}
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	})
}

// The same seed sends the same, whatever comes back.
func TestSendIsReproducible(t *testing.T) {
	target := &attack.Target{Users: []string{"u1", "u2"}, Apps: []string{"a1", "a2", "a3"}, Dim: 4}
	first := func(seed uint64) []byte {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		got := make(chan []byte, 1)
		ctx, stop := context.WithCancel(t.Context())
		var accepting sync.WaitGroup
		accepting.Go(func() {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			data := make([]byte, 30_000)
			n := 0
			for n < len(data) {
				m, err := conn.Read(data[n:])
				if n += m; err != nil {
					break
				}
			}
			got <- data[:n]
			stop()
		})
		_, err = attack.Send(ctx, attack.SendOptions{
			Address: listener.Addr().String(), Target: target, Seed: seed, Attackers: 1, Time: time.Minute, Kinds: []string{"pipeline"},
		})
		require.NoError(t, err)
		require.NoError(t, listener.Close())
		accepting.Wait()
		return <-got
	}
	one := first(1)
	assert.Len(t, one, 30_000)
	assert.Equal(t, one, first(1))
	differ := false
	for seed := range uint64(10) { // of two users, one is drawn
		differ = differ || string(first(seed)) != string(one)
	}
	assert.True(t, differ, "all seeds send the same")
}

func TestSendOptionsValidate(t *testing.T) {
	good := attack.SendOptions{Address: "127.0.0.1:80", Target: &attack.Target{}}
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*attack.SendOptions){
		`address is "", want IP:PORT`:                                 func(o *attack.SendOptions) { o.Address = "" },
		`address is "localhost:80", want IP:PORT`:                     func(o *attack.SendOptions) { o.Address = "localhost:80" },
		"address is 192.0.2.1:80, want one of this machine's":         func(o *attack.SendOptions) { o.Address = "192.0.2.1:80" },
		"target is missing":                                           func(o *attack.SendOptions) { o.Target = nil },
		"attackers is 1001, want 1 to 1000":                           func(o *attack.SendOptions) { o.Attackers = 1001 },
		"time is -1ns, want more than 0":                              func(o *attack.SendOptions) { o.Time = -1 },
		`there is no kind of attack "kind"; there are at-most, batch`: func(o *attack.SendOptions) { o.Kinds = []string{"batch", "kind"} },
	} {
		o := good
		change(&o)
		require.ErrorContains(t, o.Validate(), want)
		_, err := attack.Send(t.Context(), o)
		require.ErrorContains(t, err, want)
	}
}

func TestOptionsValidate(t *testing.T) {
	good := attack.Options{Serve: []string{"serve"}, Attack: func(string) []string { return nil }, Users: []string{"u"}, Time: time.Second}
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*attack.Options){
		"serve is missing":                  func(o *attack.Options) { o.Serve = nil },
		"attack is missing":                 func(o *attack.Options) { o.Attack = nil },
		"there are no users to ask with":    func(o *attack.Options) { o.Users = nil },
		"time is 0s, want more than 0":      func(o *attack.Options) { o.Time = 0 },
		"quiet is -1ns, want more than 0":   func(o *attack.Options) { o.Quiet = -1 },
		"rest is -1ns, want more than 0":    func(o *attack.Options) { o.Rest = -1 },
		"rate is -1, want 1 to 10000":       func(o *attack.Options) { o.Rate = -1 },
		"max memory is -1, want at least 1": func(o *attack.Options) { o.MaxMemory = -1 },
	} {
		o := good
		change(&o)
		require.EqualError(t, o.Validate(), want)
	}
}

// A server that ends before it is ready is an error that tells what it last said.
func TestRunServerThatEnds(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.NumCPU() < 2 {
		t.Skip("attacks are measured on Linux, with two processors")
	}
	_, err := attack.Run(t.Context(), attack.Options{
		Serve:  []string{"sh", "-c", "echo the store is gone >&2; exit 3"},
		Attack: func(string) []string { return nil }, Users: []string{"u"}, Time: time.Second,
	})
	require.ErrorContains(t, err, "the server ended by itself (exit status 3): the store is gone")
}
