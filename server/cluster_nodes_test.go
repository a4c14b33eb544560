package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// cluster is the nodes of a test, and who lists them.
type cluster struct {
	replicas int
	live     Live                        // of the nodes
	audit    Audit                       // likewise, of those that are started from now on
	prefix   string                      // of the names of nodes
	before   func(address string) string // returns at which address routers ask a node; nil for its own

	mu      sync.Mutex
	members []router.Member
	changed chan struct{} // closed when they have
	nodes   map[string]*clusterNode
	started int
}

// clusterNode is a node that runs.
type clusterNode struct {
	name, address string
	stop          context.CancelFunc
	done          chan error
}

func newCluster(replicas int, l Live) *cluster {
	return &cluster{replicas: replicas, live: l, changed: make(chan struct{}), nodes: map[string]*clusterNode{}}
}

// watch tells of the members until ctx ends.
func (c *cluster) watch(ctx context.Context, told func([]router.Member)) {
	for {
		c.mu.Lock()
		list, changed := slices.Clone(c.members), c.changed
		c.mu.Unlock()
		told(list)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// config says how a router asks the nodes.
func (c *cluster) config(name string) *Cluster {
	return &Cluster{
		Router: router.Options{Name: name, Replicas: c.replicas, Node: func(address string) *remote.Node {
			return remote.NewNode(remote.NodeOptions{Address: address})
		}},
		Watch: func(ctx context.Context, told func([]router.Member), _ func(error)) { c.watch(ctx, told) },
	}
}

// spread has each of so many nodes hold one shard of the apps, of which there are as many, by
// the names that it gives them.
func (c *cluster) spread(t require.TestingT, m *manifest.Manifest, nodes int) {
	var shards []placement.Shard
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for number, s := range m.Tower(kind).Shards {
			shards = append(shards, placement.Shard{Key: fmt.Sprintf("%s/%d", kind, number), Bytes: s.Size})
		}
	}
	for n := range 1000 {
		c.prefix = fmt.Sprintf("set%d-", n)
		var members []placement.Member
		for i := range nodes {
			members = append(members, placement.Member{Name: fmt.Sprint(c.prefix, "node", i+1)})
		}
		plan, err := placement.Place(members, shards, c.replicas)
		require.NoError(t, err)
		holders := map[string]bool{}
		for _, p := range plan.Shards() {
			if strings.HasPrefix(p.Key, string(shard.Apps)) {
				holders[p.Members[0]] = true
			}
		}
		if len(holders) == nodes {
			return
		}
	}
	require.FailNow(t, "no names spread the shards")
}

// holds reports whether a member holds a shard.
func (c *cluster) holds(ctx context.Context, member string, of remote.ShardID, at shard.Position) bool {
	c.mu.Lock()
	n := c.nodes[member]
	c.mu.Unlock()
	if n == nil {
		return false
	}
	asked := remote.NewNode(remote.NodeOptions{Address: n.address})
	defer asked.Close()
	_, _, err := asked.GetShard(ctx, of, shard.Moment{Snapshot: string(of.Snapshot), Position: at, Time: time.Now()})
	return err == nil
}

// start starts a node with a store, which it closes, among the others. It returns once the node
// is a member and says that it holds all that it is to.
func (c *cluster) start(t require.TestingT, store *snapshots.Store) *clusterNode {
	n := c.join(t, store)
	c.await(t, n)
	return n
}

// join starts a node, and does not wait for it.
func (c *cluster) join(t require.TestingT, store *snapshots.Store) *clusterNode {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &clusterNode{address: l.Addr().String(), done: make(chan error, 1)}
	c.mu.Lock()
	c.started++
	n.name = fmt.Sprint(c.prefix, "node", c.started)
	c.nodes[n.name] = n
	c.mu.Unlock()
	var ctx context.Context
	ctx, n.stop = context.WithCancel(context.Background())
	config := Config{
		Store: store, Listener: l, Keep: time.Hour, Logger: slog.New(slog.DiscardHandler), Live: c.live, Audit: c.audit,
		DrainDelay: 200 * time.Millisecond,
	}
	h := Holding{
		Name: n.name, Replicas: min(c.replicas, placement.MaxFactor), Holds: c.holds, Hearing: 10 * time.Millisecond,
		Watch: func(ctx context.Context, told func(string, []placement.Member), _ func(error)) {
			c.watch(ctx, func(list []router.Member) {
				var members []placement.Member
				for _, m := range list {
					members = append(members, placement.Member{Name: m.Name})
				}
				told(n.name, members)
			})
		},
	}
	go func() { n.done <- errors.Join(RunNode(ctx, config, h), store.Close()) }()
	address := n.address
	if c.before != nil {
		address = c.before(address)
	}
	c.list(append(c.listed(), router.Member{Name: n.name, Address: address}))
	return n
}

// await waits until a node is ready.
func (c *cluster) await(t require.TestingT, n *clusterNode) {
	ctx, cancel := context.WithTimeout(context.Background(), patientDeadline)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.address+readyPath, nil)
		require.NoError(t, err)
		if got, err := client.Do(r); err == nil {
			require.NoError(t, got.Body.Close())
			if got.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ctx.Done():
			require.NoError(t, ctx.Err(), "%s is not ready", n.name)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// list says who the members are.
func (c *cluster) list(list []router.Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = list
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cluster) listed() []router.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// leave takes a node off the list of members, and end ends it.
func (c *cluster) leave(n *clusterNode) {
	c.list(slices.DeleteFunc(c.listed(), func(m router.Member) bool { return m.Name == n.name }))
}

func (c *cluster) end(n *clusterNode) error {
	c.mu.Lock()
	delete(c.nodes, n.name)
	c.mu.Unlock()
	n.stop()
	return <-n.done
}

// oldest returns the node that was started first of those that run.
func (c *cluster) oldest() *clusterNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.started {
		if n := c.nodes[fmt.Sprint(c.prefix, "node", i+1)]; n != nil {
			return n
		}
	}
	return nil
}

// close ends all nodes.
func (c *cluster) close() error {
	var errs []error
	for n := c.oldest(); n != nil; n = c.oldest() {
		errs = append(errs, c.end(n))
	}
	return errors.Join(errs...)
}
