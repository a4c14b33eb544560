package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// ServersOptions say which servers [StartServers] starts. All but Flags and Routers are required.
type ServersOptions struct {
	// Program is the command of servers, and Location a folder with a store in which something
	// is released.
	Program, Location string
	// Nodes hold shards, each of which Replicas hold. Routers, if there are any, are asked.
	Nodes, Replicas, Routers int
	// Shards are of both towers.
	Shards int
	// Flags are further ones, of all servers.
	Flags []string
}

// Servers are a router or several and nodes, to which nothing is done. They are for one goroutine.
type Servers struct {
	o              ServersOptions
	dir            string
	nodes, routers []*process
	watch          []*remote.Node
	held           [][]Held
}

// Server is a process of [Servers].
type Server struct {
	Name    string
	Address string // HOST:PORT
	PID     int
	Holds   []Held // of a node
}

// Held is a shard that a node holds.
type Held struct {
	Snapshot string
	Tower    shard.Kind
	Number   int
}

// StartServers starts servers and waits until each shard is held by as many nodes as are to, and
// routers are ready. What it returns must be closed, even after an error.
func StartServers(ctx context.Context, o ServersOptions) (s *Servers, err error) {
	s = &Servers{o: o}
	if s.dir, err = os.MkdirTemp("", "tandem-servers-"); err != nil {
		return s, err
	}
	if o.Location, err = filepath.Abs(o.Location); err != nil {
		return s, err
	}
	members := filepath.Join(s.dir, "members.yaml")
	serve := func(name, role string, more ...string) *process {
		return &process{name: name, command: func() []string {
			args := []string{
				o.Program, "serve", "--store", o.Location, "--role", role, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json",
				"--drain-delay", "100ms", "--state", filepath.Join(s.dir, name), "--nodes", "file:" + members, "--replicas", fmt.Sprint(o.Replicas),
			}
			return append(append(args, more...), o.Flags...)
		}}
	}
	// A node is listed once it is known where it listens, and loads then.
	if err := os.WriteFile(members, []byte("[]\n"), 0o600); err != nil {
		return s, err
	}
	g, starting := errgroup.WithContext(ctx)
	for i := range o.Nodes {
		name := fmt.Sprintf("node-%d", i)
		p := serve(name, "shard", "--node-name", name)
		s.nodes = append(s.nodes, p)
		g.Go(func() error { return p.start(starting) })
	}
	if err := g.Wait(); err != nil {
		return s, err
	}
	var text strings.Builder
	for _, p := range s.nodes {
		fmt.Fprintf(&text, "- name: %s\n  address: %s\n", p.name, p.at())
		s.watch = append(s.watch, remote.NewNode(remote.NodeOptions{Address: p.at()}))
	}
	if err := os.WriteFile(members+".next", []byte(text.String()), 0o600); err != nil {
		return s, err
	}
	if err := os.Rename(members+".next", members); err != nil {
		return s, err
	}
	if err := s.awaitHeld(ctx); err != nil {
		return s, err
	}
	for i := range o.Routers {
		p := serve(fmt.Sprintf("router-%d", i), "router")
		s.routers = append(s.routers, p)
		if err := p.start(ctx); err != nil {
			return s, err
		}
	}
	for _, p := range slices.Concat(s.nodes, s.routers) {
		if err := p.awaitReady(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

// awaitHeld waits until all shards are held.
func (s *Servers) awaitHeld(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		s.held = make([][]Held, len(s.nodes))
		count := 0
		var last error
		for i, p := range s.nodes {
			if !p.isRunning() {
				return p.ended()
			}
			status, err := (&node{watch: s.watch[i]}).status(limited)
			last = errors.Join(last, err)
			for _, snapshot := range status.GetSnapshots() {
				for _, h := range snapshot.GetShards() {
					if h.GetState() != shardv1.HeldState_HELD_STATE_READY {
						continue
					}
					tower := shard.Apps
					if strings.HasSuffix(h.GetTower().String(), "USERS") {
						tower = shard.Users
					}
					s.held[i] = append(s.held[i], Held{snapshot.GetSnapshot(), tower, int(h.GetNumber())})
					count++
				}
			}
		}
		if count >= s.o.Shards*s.o.Replicas {
			return nil
		}
		if err := rest(limited, 10*lookEvery); err != nil {
			return fmt.Errorf("%d of %d shards are held: %w", count, s.o.Shards*s.o.Replicas, errors.Join(err, last))
		}
	}
}

func servers(list []*process, held [][]Held) []Server {
	var out []Server
	for i, p := range list {
		one := Server{Name: p.name, Address: p.at(), PID: p.cmd.Process.Pid}
		if held != nil {
			one.Holds = held[i]
		}
		out = append(out, one)
	}
	return out
}

// Nodes returns the nodes.
func (s *Servers) Nodes() []Server { return servers(s.nodes, s.held) }

// Routers returns the routers.
func (s *Servers) Routers() []Server { return servers(s.routers, nil) }

// Close ends all, routers first, and removes what they kept. Its error is of those that did not
// end well.
func (s *Servers) Close() error {
	err := stopAll(s.routers...)
	err = errors.Join(err, stopAll(s.nodes...))
	for _, n := range s.watch {
		n.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
