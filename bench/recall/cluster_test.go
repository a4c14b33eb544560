package recall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// site is two nodes that have all shards each, and a router, which all audit.
type site struct {
	t       *testing.T
	faults  *objectstest.Faults
	members []router.Member
	caches  []string // of the nodes
}

func newSite(t *testing.T) *site {
	s := &site{t: t, faults: objectstest.NewFaults()}
	m, err := store.Manifest(t.Context(), digest)
	require.NoError(t, err)
	admin := s.store("admin", t.TempDir())
	defer func() { require.NoError(t, admin.Close()) }()
	_, err = admin.Import(t.Context(), store, m)
	require.NoError(t, err)
	change := release.Change{Author: "test", Reason: "test"}
	_, err = release.New(admin).Start(t.Context(), release.StartOptions{Snapshot: digest, Change: change})
	require.NoError(t, err)
	var listeners []net.Listener
	for i := range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listeners = append(listeners, l)
		s.members = append(s.members, router.Member{Name: fmt.Sprint("node", i), Address: l.Addr().String()})
		s.caches = append(s.caches, t.TempDir())
	}
	for i, l := range listeners {
		own := s.store(s.members[i].Name, s.caches[i])
		s.run(l, own, func(ctx context.Context, c server.Config) error {
			return server.RunNode(ctx, c, server.Holding{Name: s.members[i].Name, Replicas: 2, Hearing: time.Millisecond, Watch: s.watchAs(s.members[i].Name)})
		})
	}
	return s
}

func (s *site) store(client, cache string) *snapshots.Store {
	own, err := snapshots.NewStore(s.faults.Bucket(client), snapshots.Options{Cache: cache})
	require.NoError(s.t, err)
	return own
}

// watchAs tells the node of a name who the nodes are.
func (s *site) watchAs(name string) func(ctx context.Context, told func(string, []placement.Member), failed func(error)) {
	return func(ctx context.Context, told func(string, []placement.Member), _ func(error)) {
		var list []placement.Member
		for _, m := range s.members {
			list = append(list, placement.Member{Name: m.Name})
		}
		told(name, list)
		<-ctx.Done()
	}
}

// run runs a server with a store, which it closes, until the test ends.
func (s *site) run(l net.Listener, own *snapshots.Store, serve func(context.Context, server.Config) error) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- errors.Join(serve(ctx, server.Config{
			Store: own, Listener: l, Logger: slog.New(slog.DiscardHandler), Audit: server.Audit{CPU: 0.5},
			Live: server.Live{Fence: time.Minute}, Options: server.Options{MaxDeadline: time.Minute},
		}), own.Close())
	}()
	s.t.Cleanup(func() {
		stop()
		assert.NoError(s.t, <-done)
	})
}

// route runs a router, and returns where it listens once it is ready.
func (s *site) route() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(s.t, err)
	ready := make(chan struct{})
	s.run(l, s.store("router", s.t.TempDir()), func(ctx context.Context, c server.Config) error {
		c.Ready = func(server.Snapshot) { close(ready) }
		c.Cluster = &server.Cluster{
			Router: router.Options{Name: "router", Replicas: 2, Node: func(address string) *remote.Node {
				return remote.NewNode(remote.NodeOptions{Address: address, Silence: time.Minute})
			}},
			Watch: func(ctx context.Context, told func([]router.Member), _ func(error)) { told(s.members); <-ctx.Done() },
		}
		return server.Run(ctx, c)
	})
	<-ready
	return "http://" + l.Addr().String()
}

// cutInPlace takes a share of the links from the shards that a node has mapped.
func (s *site) cutInPlace(node int, share float64) {
	cut := 0
	require.NoError(s.t, filepath.WalkDir(s.caches[node], func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := sections.Open(path)
		if err != nil {
			return nil //nolint:nilerr // it is no shard
		}
		defer func() { require.NoError(s.t, f.Close()) }()
		meta, err := f.Section(metaSection)
		require.NoError(s.t, err)
		for _, e := range f.Entries() {
			if e.Name != linksSection {
				continue
			}
			links, err := f.Section(e.Name)
			require.NoError(s.t, err)
			links = cutLinks(links, int(binary.LittleEndian.Uint32(meta[widthAt:])), share, rand.New(rand.NewPCG(1, 2)))
			require.NoError(s.t, os.Chmod(path, 0o600))
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(s.t, err)
			_, err = file.WriteAt(links, int64(e.Offset))
			require.NoError(s.t, errors.Join(err, file.Close()))
			cut++
		}
		return nil
	}))
	require.Positive(s.t, cut, "shards of the cache")
}

// Links are cut in the memory of one of two replicas, after it was verified. The router finds
// out, and which of them it is.
func TestRouterFindsTheReplica(t *testing.T) {
	s := newSite(t)
	url := s.route()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	retrieval, admin := tandemv1connect.NewRetrievalServiceClient(client, url), tandemv1connect.NewAdminServiceClient(client, url)
	recall := func() *tandemv1.ArmRecall {
		got, err := admin.GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
		require.NoError(t, err)
		return got.Msg.Arms[0].Recall
	}
	r := rand.New(rand.NewPCG(5, 6))
	asking := func(what string, until func(*tandemv1.ArmRecall) bool) {
		for end := time.Now().Add(4 * time.Minute); ; {
			for range 20 {
				_, err := retrieval.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{
					UserId: synthetic.UserID(r.Int64N(2000)), K: 10,
				}))
				require.NoError(t, err)
			}
			got := recall()
			require.Empty(t, got.Failure)
			if until(got) {
				return
			}
			require.True(t, time.Now().Before(end), "%s: %v", what, got)
		}
	}
	asking("nodes are audited", func(got *tandemv1.ArmRecall) bool {
		return len(got.Nodes) == 2 && got.Nodes[0].EnoughData && got.Nodes[1].EnoughData
	})
	for _, n := range recall().Nodes {
		require.Nil(t, n.Alarm, "%v", n)
	}
	s.cutInPlace(1, 0.7)
	asking("an alarm", func(got *tandemv1.ArmRecall) bool {
		for _, n := range got.Nodes {
			if n.Name == s.members[0].Address {
				require.Nil(t, n.Alarm, "%v", n)
			} else if n.Alarm != nil {
				t.Logf("%v\nall: %v", n, got.All)
				return true
			}
		}
		return false
	})
}
