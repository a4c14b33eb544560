package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/members"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/shard"
)

// clusterFlags say what a server is in a cluster.
type clusterFlags struct {
	Role     string         `default:"all" enum:"all,shard,router" placeholder:"ROLE" help:"What the server is: all answers queries with shards of its own; router answers them with shards that nodes hold; shard is such a node, and answers routers only (default ${default})."`
	Nodes    string         `placeholder:"SOURCE" help:"Who the nodes are: file:PATH, dns:///HOST:PORT, dns+srv:///NAME, k8s:///NAMESPACE/SERVICE[:PORTNAME], or HOST:PORT,HOST:PORT."`
	Replicas *int           `placeholder:"N" help:"How many nodes are to hold each shard; all servers of a cluster are told the same (default 2)."`
	NodeName string         `placeholder:"NAME" help:"Name of this node among --nodes (default that which has the address of this machine and the port of --listen, as soon as one has, or the name of the host)."`
	Grace    *time.Duration `name:"nodes-grace" placeholder:"TIME" help:"How long what a node holds stays its own once --nodes does not list it any more, as when it restarts, while each shard has another node: the others load it only then (default 30s; 0s is at once)."`
	Zone     string         `placeholder:"NAME" help:"Zone of this node, for others to see; replicas are apart by what --nodes says."`

	NodesToken string `type:"path" placeholder:"FILE" help:"File with the token, of the scope internal, that nodes ask for."`
	NodesCA    string `name:"nodes-tls-ca" type:"path" placeholder:"FILE" help:"Certificates in PEM of the authorities that sign those of nodes: they are spoken to in TLS."`
	NodesCert  string `name:"nodes-tls-cert" type:"path" placeholder:"FILE" help:"Certificate in PEM to show to nodes that ask for one."`
	NodesKey   string `name:"nodes-tls-key" type:"path" placeholder:"FILE" help:"Private key of --nodes-tls-cert in PEM."`
	NodesName  string `name:"nodes-tls-name" placeholder:"HOST" help:"Name, or IP address, that the certificates of all nodes are to be for (default the host of the address of each among --nodes)."`
}

// defaultReplicas is how many nodes hold each shard by default: one may be away.
const defaultReplicas = 2

// replicas returns how many nodes are to hold each shard.
func (f *clusterFlags) replicas() int {
	if f.Replicas == nil {
		return defaultReplicas
	}
	return *f.Replicas
}

// defaultGrace is how long nodes that are not listed any more are waited for: about what a node takes to
// drain and a pod to start anew.
const defaultGrace = 30 * time.Second

// maxGrace is how long they may be waited for: until then a shard has a replica less.
const maxGrace = time.Hour

// grace returns how long nodes that are not listed any more are waited for.
func (f *clusterFlags) grace() time.Duration {
	if f.Grace == nil {
		return defaultGrace
	}
	return *f.Grace
}

// maxReplicas is how many replicas of a shard there may be.
const maxReplicas = placement.MaxFactor

// check returns an error unless the flags go together, and with those of a server.
func (f *clusterFlags) check(c *serveCommand) error {
	if f.Role != "shard" && (f.NodeName != "" || f.Zone != "" || f.Grace != nil) {
		return usagef("--node-name, --zone and --nodes-grace go with --role shard")
	}
	if f.Role == "all" {
		for _, given := range []struct {
			flag string
			is   bool
		}{
			{"--nodes", f.Nodes != ""}, {"--replicas", f.Replicas != nil}, {"--nodes-token", f.NodesToken != ""}, {"--nodes-tls-ca", f.NodesCA != ""},
			{"--nodes-tls-cert", f.NodesCert != ""}, {"--nodes-tls-key", f.NodesKey != ""}, {"--nodes-tls-name", f.NodesName != ""},
		} {
			if given.is {
				return usagef("%s goes with --role router or --role shard", given.flag)
			}
		}
		return nil
	}
	switch {
	case f.Nodes == "":
		return usagef("--role %s goes with --nodes; accepted: %s", f.Role, members.Forms)
	case f.replicas() < 1 || f.replicas() > maxReplicas:
		return usagef("--replicas is %d, want 1 to %d", f.replicas(), maxReplicas)
	case c.Snapshot != "":
		return usagef("--snapshot does not go with --role %s: nodes hold what is released", f.Role)
	case f.Role == "shard" && (c.LiveWrites || c.ReleaseWrites || c.Outcomes || c.RecordShare > 0 || c.RecordOnce):
		return usagef("--live-writes, --release-writes, --outcomes, --record-share and --record-once do not go with --role shard: routers do that")
	case f.grace() < 0 || f.grace() > maxGrace:
		return usagef("--nodes-grace is %s, want 0s to %s", f.grace(), maxGrace)
	case f.NodesName != "" && f.NodesCA == "" && f.NodesCert == "":
		return usagef("--nodes-tls-name goes with --nodes-tls-ca or --nodes-tls-cert: nodes are not spoken to in TLS")
	case f.NodesName != "" && !isHost(f.NodesName):
		return usagef("--nodes-tls-name is %.100q, want a name such as nodes.example, or an IP address, without a port", f.NodesName)
	}
	_, err := f.source()
	return err
}

// source returns who lists the nodes.
func (f *clusterFlags) source() (members.Source, error) {
	s, err := members.Parse(f.Nodes, members.Cluster{Host: os.Getenv("KUBERNETES_SERVICE_HOST"), Port: os.Getenv("KUBERNETES_SERVICE_PORT")})
	if err != nil {
		return nil, usagef("--nodes: %w", err)
	}
	return s, nil
}

// asking returns how nodes are asked.
func (f *clusterFlags) asking() (func(address string) *remote.Node, error) {
	config, err := tlsConfig("--nodes-tls-", f.NodesCA, f.NodesCert, f.NodesKey)
	if err != nil {
		return nil, err
	}
	token, err := readToken("--nodes-token", f.NodesToken)
	if err != nil {
		return nil, err
	}
	return func(address string) *remote.Node {
		o := remote.NodeOptions{Address: address}
		if config != nil {
			o.TLS = f.named(config, address)
		}
		if token != "" {
			o.Token = func() string { return token }
		}
		return remote.NewNode(o)
	}, nil
}

// named has the certificate of a node be one for the host of its address, or for the name that
// those of all nodes have. Addresses of pods come and go, and no authority signs for them.
func (f *clusterFlags) named(c *tls.Config, address string) *tls.Config {
	c = c.Clone()
	if f.NodesName != "" {
		c.ServerName = f.NodesName
	} else if host, _, err := net.SplitHostPort(address); err == nil {
		c.ServerName = host
	}
	return c
}

// maxHost is how long the name of a host may be.
const maxHost = 253

// isHost reports whether a text may be the name of a host, or is an IP address.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	return len(text) <= maxHost && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// route has a server be a router.
func (f *clusterFlags) route(c *server.Config, storeID string) error {
	source, err := f.source()
	if err != nil {
		return err
	}
	ask, err := f.asking()
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		name = "router"
	}
	c.Cluster = &server.Cluster{
		Router: router.Options{Name: fmt.Sprintf("%s/%d", name, os.Getpid()), Node: ask, Replicas: f.replicas(), StoreID: storeID},
		Watch: func(ctx context.Context, told func([]router.Member), failed func(error)) {
			source.Watch(ctx, func(m members.Members) {
				failed(m.Err)
				if m.Heard.IsZero() {
					return
				}
				list := make([]router.Member, len(m.List))
				for i, one := range m.List {
					list[i] = router.Member{Name: one.Name, Address: one.Address, Zone: one.Zone, Leaving: one.Terminating}
				}
				told(list)
			})
		},
	}
	return nil
}

// hold says what a node is among the others, for which it hears who there are, if it can.
func (f *clusterFlags) hold(ctx context.Context, listen, storeID string) (server.Holding, error) {
	source, err := f.source()
	if err != nil {
		return server.Holding{}, err
	}
	ask, err := f.asking()
	if err != nil {
		return server.Holding{}, err
	}
	peers := &peers{ask: ask, nodes: map[string]*remote.Node{}}
	own := &ownName{is: func(string) bool { return false }, name: f.NodeName}
	if f.NodeName == "" {
		own.is = ownAddresses(listen)
		if own.name, err = os.Hostname(); err != nil {
			return server.Holding{}, fmt.Errorf("--node-name is not given, and the host has no name: %w", err)
		}
		own.hear(ctx, source)
	}
	h := server.Holding{Name: own.name, Zone: f.Zone, Replicas: f.replicas(), Grace: f.grace(), Holds: peers.holds, StoreID: storeID}
	h.Watch = func(ctx context.Context, told func(string, []placement.Member), failed func(error)) {
		source.Watch(ctx, func(m members.Members) {
			failed(m.Err)
			if m.Heard.IsZero() {
				return
			}
			var list []placement.Member
			for _, one := range m.List {
				if !one.Terminating {
					list = append(list, placement.Member{Name: one.Name, Zone: one.Zone, Weight: one.Weight})
				}
			}
			peers.know(m.List)
			told(own.among(m.List), list)
		})
	}
	return h, nil
}

// nameWait is how long a node that starts waits to hear under which name it is among the others.
const nameWait = 2 * time.Second

// ownName is the name of this node among the members: that of the member with an address of this
// machine and the port that is listened on. Before there is one, it is that of the host. A node
// that was a member keeps the name that it had there.
type ownName struct {
	is   func(address string) bool
	name string
}

// hear waits until the source has said something, so that a node need not begin by another name
// than it is known by. It waits for a moment only: members may be listed once their nodes listen.
func (o *ownName) hear(ctx context.Context, source members.Source) {
	ctx, cancel := context.WithTimeout(ctx, nameWait)
	defer cancel()
	source.Watch(ctx, func(m members.Members) {
		o.among(m.List)
		cancel()
	})
}

// among returns the name of this node among members.
func (o *ownName) among(list []members.Member) string {
	var named []string
	for _, one := range list {
		if o.is(one.Address) {
			named = append(named, one.Name)
		}
	}
	if len(named) > 0 && !slices.Contains(named, o.name) {
		o.name = named[0]
	}
	return o.name
}

// peers are the other nodes, by their names.
type peers struct {
	ask func(address string) *remote.Node

	mu        sync.Mutex
	addresses map[string]string
	nodes     map[string]*remote.Node // by address
}

// know takes in who there is.
func (p *peers) know(list []members.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addresses = map[string]string{}
	for _, m := range list {
		p.addresses[m.Name] = m.Address
	}
	for address, n := range p.nodes {
		if !slices.ContainsFunc(list, func(m members.Member) bool { return m.Address == address }) {
			n.Close()
			delete(p.nodes, address)
		}
	}
}

// holds reports whether a member holds a shard at a position, by asking it.
func (p *peers) holds(ctx context.Context, member string, of remote.ShardID, at shard.Position) bool {
	p.mu.Lock()
	address, ok := p.addresses[member]
	n := p.nodes[address]
	if ok && n == nil {
		n = p.ask(address)
		p.nodes[address] = n
	}
	p.mu.Unlock()
	if !ok {
		return false
	}
	_, _, err := n.GetShard(ctx, of, shard.Moment{Snapshot: string(of.Snapshot), Position: at, Time: time.Now()})
	return err == nil
}

// ownAddresses returns what tells whether an address is one of this process, which listens on
// another that may stand for all of the machine.
func ownAddresses(listen string) func(address string) bool {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return func(string) bool { return false }
	}
	own := map[netip.Addr]bool{}
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				own[prefix.Addr().Unmap()] = true
			}
		}
	}
	name, _ := os.Hostname()
	return func(address string) bool {
		host, p, err := net.SplitHostPort(address)
		if err != nil || p != port {
			return false
		}
		if ip, err := netip.ParseAddr(host); err == nil {
			return own[ip.Unmap()]
		}
		return host == name || host == "localhost"
	}
}
