package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// node is a process that holds shards, behind a proxy.
type node struct {
	process
	proxy  *Proxy
	member bool // it is in the list of members
	watch  *remote.Node
}

// routing is a router.
type routing struct {
	process
	out   atomic.Bool // nobody is to ask it
	full  atomic.Bool // its disk is
	asked atomic.Pointer[clients]
}

// clients are how one start of a server is asked.
type clients struct {
	retrieval tandemv1connect.RetrievalServiceClient
	live      tandemv1connect.LiveServiceClient
	newest    atomic.Pointer[shard.Position] // that it has answered from; nil if it has not
	killed    atomic.Bool
	older     bool // it runs the older program
}

// Site is a store, and the processes that serve it.
type Site struct {
	o        *Options
	dir      string
	store    *snapshots.Store
	releases *release.Releases
	single   map[string]uint64 // a generation of each snapshot by itself
	now      string            // the snapshot that is released
	parts    int               // shards of its app tower
	folder   string            // of the store, if it is one, to which link leads
	link     string
	behind   *Proxy   // before the store, if it is none
	location string   // of the store for all processes
	alone    *routing // has all shards itself
	nodes    []*node
	routers  []*routing
	program  string // that nodes and routers are started from
	http     *http.Transport
	noDisks  error    // why servers have no disks of their own; nil if they have
	disks    []string // that are mounted
}

// newSite releases the snapshots, and starts what there is. It must be closed, even after an
// error.
func newSite(ctx context.Context, o *Options, oracle *Oracle) (s *Site, err error) {
	s = &Site{o: o, single: map[string]uint64{}, location: o.Location, program: o.Program}
	if !o.wants(diskFault) {
		s.noDisks = errors.New("nobody wants them")
	}
	s.http = &http.Transport{MaxIdleConnsPerHost: 16, Protocols: new(http.Protocols)}
	s.http.Protocols.SetUnencryptedHTTP2(true)
	if s.dir, err = os.MkdirTemp("", "tandem-cluster-"); err != nil {
		return s, err
	}
	if s.store, err = snapshots.OpenStore(ctx, o.Location, snapshots.Options{Cache: filepath.Join(s.dir, "cache")}); err != nil {
		return s, err
	}
	if folder, ok, err := objects.Folder(o.Location); err != nil {
		return s, err
	} else if ok {
		if s.folder, err = filepath.Abs(folder); err != nil {
			return s, err
		}
		s.link = filepath.Join(s.dir, "store")
		s.location = s.link
		if err := os.Symlink(s.folder, s.link); err != nil {
			return s, err
		}
	} else if err := s.stand(); err != nil {
		return s, err
	}
	o.Progress("learn")
	for _, snapshot := range o.Snapshots {
		if o.unjudged {
			break
		}
		if err := s.learn(ctx, oracle, snapshot); err != nil {
			return s, err
		}
	}
	if err := s.release(ctx, oracle); err != nil {
		return s, err
	}
	o.Progress("start")
	return s, s.startAll(ctx)
}

// home is where a server keeps what is its own.
func (s *Site) home(name string) string { return filepath.Join(s.dir, name) }

// house gives a server a disk of its own, where there are such.
func (s *Site) house(name string) error {
	if s.noDisks != nil {
		return nil //nolint:nilerr // faults that want disks say why they are not run
	}
	if err := mountDisk(s.home(name)); err != nil {
		return err
	}
	s.disks = append(s.disks, s.home(name))
	return nil
}

// flags are those of all servers.
func (s *Site) flags(name string) []string {
	args := []string{
		"serve", "--store", s.location, "--listen", "127.0.0.1:0", "--log-format", "json", "--drain-delay", "200ms",
		"--admin", "127.0.0.1:0", "--state", filepath.Join(s.home(name), "state"), "--live-fence", s.o.Fence.String(), "--keep", s.o.Keep.String(),
	}
	if s.folder == "" {
		args = append(args, "--cache", s.cache(name))
	}
	return args
}

// cache is where a server keeps shards of a store that is no folder.
func (s *Site) cache(name string) string { return filepath.Join(s.home(name), "cache") }

// ask makes the clients of a server.
func (s *Site) ask(r *routing) {
	client := &http.Client{Transport: s.http}
	r.asked.Store(&clients{
		retrieval: tandemv1connect.NewRetrievalServiceClient(client, "http://"+r.at()),
		live:      tandemv1connect.NewLiveServiceClient(client, "http://"+r.at()),
		older:     s.o.Old != "" && s.program == s.o.Old,
	})
}

// learn asks a server of one snapshot.
func (s *Site) learn(ctx context.Context, oracle *Oracle, snapshot string) error {
	r := &routing{process: process{name: "oracle", command: func() []string {
		return append([]string{s.o.Program}, append(s.flags("oracle"), "--snapshot", snapshot)...)
	}}}
	defer r.kill()
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	s.ask(r)
	if err := oracle.learn(ctx, snapshot, r.asked.Load().retrieval); err != nil {
		return err
	}
	return r.stop()
}

// release releases each snapshot by itself, unless that was done before.
func (s *Site) release(ctx context.Context, oracle *Oracle) error {
	s.releases = release.New(s.store)
	change := release.Change{Override: "a measurement"}
	for _, snapshot := range s.o.Snapshots {
		r, err := s.releases.Start(ctx, release.StartOptions{Snapshot: manifest.Digest(snapshot), Change: change})
		if err == nil {
			oracle.released(r.Generation, string(r.Arms[0].Snapshot))
		}
		if err == nil && len(r.Arms) > 1 {
			if r, err = s.releases.Promote(ctx, change, release.Candidate); err == nil {
				oracle.released(r.Generation, snapshot)
			}
		}
		if err != nil {
			return fmt.Errorf("release snapshot %.12s: %w", snapshot, err)
		}
		s.single[snapshot], s.now = r.Generation, snapshot
	}
	m, err := s.store.Manifest(ctx, manifest.Digest(s.now))
	if err == nil {
		s.parts = len(m.Apps.Shards)
	}
	return err
}

// switchTo releases a snapshot again. The generation that follows is known beforehand, since a
// router may answer with it at once.
func (s *Site) switchTo(ctx context.Context, snapshot string, known func(generation uint64, snapshot string)) error {
	return s.switchWith(ctx, snapshot, known, release.Change{})
}

func (s *Site) switchWith(ctx context.Context, snapshot string, known func(generation uint64, snapshot string), change release.Change) error {
	now, err := s.releases.Current(ctx)
	if err != nil {
		return err
	}
	known(now.Generation+1, snapshot)
	if _, err = s.releases.Rollback(ctx, release.RollbackOptions{Change: change, To: s.single[snapshot]}); err != nil {
		return err
	}
	s.now = snapshot
	return nil
}

// startAll starts all processes, and waits until all is held.
func (s *Site) startAll(ctx context.Context) error {
	s.alone = &routing{process: process{name: "all-in-one", pinned: s.o.Pinned, command: func() []string {
		return append([]string{s.o.Program}, append(s.flags("all-in-one"), "--live-writes")...)
	}}}
	if err := s.alone.start(ctx); err != nil {
		return err
	}
	if s.noDisks == nil {
		s.noDisks = s.house("all-in-one") // whether it can be
	}
	for range s.o.Nodes {
		if _, err := s.addNode(); err != nil {
			return err
		}
	}
	if err := s.writeMembers(); err != nil {
		return err
	}
	for i := range s.o.Routers {
		name := fmt.Sprintf("router-%d", i)
		if err := s.house(name); err != nil {
			return err
		}
		s.routers = append(s.routers, &routing{process: process{name: name, pinned: s.o.Pinned, command: func() []string {
			return append([]string{s.program}, append(s.routerFlags(name), "--live-writes")...)
		}}})
	}
	g, starting := errgroup.WithContext(ctx)
	for _, n := range s.nodes {
		g.Go(func() error { return s.startNode(starting, n) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, r := range s.routers {
		if err := s.startRouter(ctx, r); err != nil {
			return err
		}
	}
	if err := s.alone.awaitReady(ctx); err != nil {
		return err
	}
	s.ask(s.alone)
	return s.settle(ctx)
}

// routerFlags are those of a router.
func (s *Site) routerFlags(name string) []string {
	return append(s.flags(name), "--role", "router", "--nodes", "file:"+s.members(), "--replicas", fmt.Sprint(s.o.Replicas))
}

// members is the file with the list of members.
func (s *Site) members() string { return filepath.Join(s.dir, "members.yaml") }

// writeMembers writes the list of members, which nobody sees half of.
func (s *Site) writeMembers() error {
	var text strings.Builder
	for _, n := range s.nodes {
		if n.member {
			fmt.Fprintf(&text, "- name: %s\n  address: %s\n", n.name, n.proxy.Address())
		}
	}
	next := s.members() + ".next"
	if err := os.WriteFile(next, []byte(text.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.members())
}

// addNode adds a node, which is to be started, to the members.
func (s *Site) addNode() (*node, error) {
	proxy, err := NewProxy()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("node-%d", len(s.nodes))
	if err := s.house(name); err != nil {
		return nil, errors.Join(err, proxy.Close())
	}
	n := &node{proxy: proxy, member: true, watch: remote.NewNode(remote.NodeOptions{Address: proxy.Address()})}
	n.process = process{name: name, pinned: s.o.Pinned, command: func() []string {
		return append([]string{s.program}, append(s.flags(name), "--role", "shard", "--node-name", name,
			"--nodes", "file:"+s.members(), "--replicas", fmt.Sprint(s.o.Replicas))...)
	}}
	s.nodes = append(s.nodes, n)
	return n, nil
}

// startNode starts a node, and waits until it listens.
func (s *Site) startNode(ctx context.Context, n *node) error {
	if err := n.start(ctx); err != nil {
		return err
	}
	n.proxy.To(n.at())
	return nil
}

// startRouter starts a router, and waits until it is ready.
func (s *Site) startRouter(ctx context.Context, r *routing) error {
	if err := r.start(ctx); err != nil {
		return err
	}
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	s.ask(r)
	r.out.Store(false)
	return nil
}

// killAsked kills a router, with what it was asked. Nobody asks it until it is started again.
func (r *routing) killAsked() {
	r.out.Store(true)
	r.asked.Load().killed.Store(true)
	r.kill()
}

// running are the nodes that are members and run.
func (s *Site) running() []*node {
	var list []*node
	for _, n := range s.nodes {
		if n.member && n.isRunning() {
			list = append(list, n)
		}
	}
	return list
}

// settle waits until as many nodes hold each shard of what is released as are to, and all
// processes are ready.
func (s *Site) settle(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	m, err := s.store.Manifest(limited, manifest.Digest(s.now))
	if err != nil {
		return err
	}
	shards := len(m.Apps.Shards) + len(m.Users.Shards)
	for {
		held, err := s.held(limited)
		short := shards - len(held)
		for _, n := range held {
			if n < min(s.o.Replicas, len(s.running())) {
				short++
			}
		}
		if err == nil && short == 0 {
			break
		}
		if restErr := rest(limited, 10*lookEvery); restErr != nil {
			return fmt.Errorf("%d of %d shards of snapshot %.12s have too few nodes: %w", short, shards, s.now, errors.Join(restErr, err))
		}
	}
	var all []*process
	for _, n := range s.running() {
		all = append(all, &n.process) // it holds what routers use, too
	}
	for _, r := range s.routers {
		all = append(all, &r.process)
	}
	for _, p := range all {
		if err := p.awaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// held counts the nodes that say that they hold each shard of what is released.
func (s *Site) held(ctx context.Context) (map[string]int, error) {
	held := map[string]int{}
	for _, n := range s.running() {
		status, err := n.status(ctx)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", n.name, err)
		}
		for _, snapshot := range status.GetSnapshots() {
			for _, h := range snapshot.GetShards() {
				if snapshot.GetSnapshot() == s.now && h.GetState() == shardv1.HeldState_HELD_STATE_READY {
					held[fmt.Sprintf("%s %d", h.GetTower(), h.GetNumber())]++
				}
			}
		}
	}
	return held, nil
}

// status asks a node once.
func (n *node) status(ctx context.Context) (status *shardv1.NodeStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err = n.watch.Watch(ctx, "tandem bench cluster", nil, func(s *shardv1.NodeStatus) {
		status = s
		cancel()
	})
	if status != nil {
		return status, nil
	}
	return nil, err
}

// stand has a proxy stand before a store that is no folder.
func (s *Site) stand() (err error) {
	s.behind, s.location, err = proxyBefore(s.o.Location)
	return err
}

// close ends all processes, and removes what they kept. Its error is of those that did not end
// well.
func (s *Site) close() error {
	list := []*process{}
	if s.alone != nil {
		list = append(list, &s.alone.process)
	}
	for _, r := range s.routers {
		list = append(list, &r.process)
	}
	for _, n := range s.nodes {
		list = append(list, &n.process)
	}
	// Routers first: nodes that stop would be asked no more.
	slices.SortStableFunc(list, func(a, b *process) int { return strings.Compare(b.name, a.name) })
	err := stopAll(list...)
	for _, n := range s.nodes {
		n.watch.Close()
		err = errors.Join(err, n.proxy.Close())
	}
	if s.behind != nil {
		err = errors.Join(err, s.behind.Close())
	}
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
	for _, dir := range s.disks {
		err = errors.Join(err, unmountDisk(dir))
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
