package tail

import (
	"errors"
	"fmt"
)

// Bounds of what is simulated.
const (
	MaxHosts   = 20_000
	MaxCores   = 4096
	MaxShards  = 4096
	MaxQueries = 10_000_000
	// MaxCalls bounds queries times shards: some minutes of one processor.
	MaxCalls = 200_000_000
)

// Cluster says where processes are.
type Cluster struct {
	// Cores are the processors of each host.
	Cores []int
	// Routers and Nodes are processes, each by its host. There is at least one of each.
	Routers, Nodes []int
	// Shards are the nodes that hold each shard of the tower that is searched.
	Shards [][]int
	// Users are the nodes that hold each shard of the other tower, which a query asks for the
	// vector of its user. If there are none, queries bring vectors.
	Users [][]int
	// Client is the host of those who ask, -1 if they take no processor of these.
	Client int
	// Network is how long a message takes from one host to another, in seconds.
	Network float64
	// Wake is how long a processor takes to begin that had nothing to do.
	Wake Times
}

// Work is what each step takes of a processor, in seconds.
type Work struct {
	// Client is of whoever sends a query and reads its answer.
	Client float64
	// Query is of the router, for each query, and Call for each call of a node. Half of each is
	// before nodes are asked, and half after.
	Query, Call float64
	// Search is of a node, for each shard that it is asked to search, with all that the call
	// takes; Lookup is the same of the vector of a user.
	Search, Lookup Times
	// Beside is the share of a processor that each process takes whatever it is asked, in pieces
	// of Piece seconds.
	Beside, Piece float64
}

// Load is what is asked.
type Load struct {
	// Rate is how many queries a second come, at random.
	Rate float64
	// Queries are simulated, of which the first tenth counts in no quantile.
	Queries int
	// Same is the share of searches that are as slow among those of their shard as the query is
	// among all: 0 if shards take times of their own.
	Same float64
	// Again is the share of queries in which one shard is asked a second time.
	Again float64
	// Hedge has a call that takes longer than most be made of another replica, too.
	Hedge bool
	Seed  uint64
}

// Validate returns an error that names what cannot be.
func (c *Cluster) Validate() error {
	switch {
	case len(c.Cores) < 1 || len(c.Cores) > MaxHosts:
		return fmt.Errorf("there are %d hosts, want 1 to %d", len(c.Cores), MaxHosts)
	case len(c.Routers) == 0 || len(c.Nodes) == 0:
		return fmt.Errorf("there are %d routers and %d nodes, want at least one of each", len(c.Routers), len(c.Nodes))
	case len(c.Shards) < 1 || len(c.Shards) > MaxShards || len(c.Users) > MaxShards:
		return fmt.Errorf("there are %d shards of apps and %d of users, want 1 to %d and 0 to %d", len(c.Shards), len(c.Users), MaxShards, MaxShards)
	case c.Client < -1 || c.Client >= len(c.Cores):
		return fmt.Errorf("the client is on host %d, want -1 to %d", c.Client, len(c.Cores)-1)
	case !(c.Network >= 0):
		return fmt.Errorf("a message takes %v s, want at least 0", c.Network)
	}
	for i, cores := range c.Cores {
		if cores < 1 || cores > MaxCores {
			return fmt.Errorf("host %d has %d processors, want 1 to %d", i, cores, MaxCores)
		}
	}
	for _, list := range [][]int{c.Routers, c.Nodes} {
		for i, host := range list {
			if host < 0 || host >= len(c.Cores) {
				return fmt.Errorf("process %d is on host %d, want 0 to %d", i, host, len(c.Cores)-1)
			}
		}
	}
	for _, tower := range [][][]int{c.Shards, c.Users} {
		for i, nodes := range tower {
			if len(nodes) == 0 {
				return fmt.Errorf("shard %d is on no node", i)
			}
			for _, n := range nodes {
				if n < 0 || n >= len(c.Nodes) {
					return fmt.Errorf("shard %d is on node %d, want 0 to %d", i, n, len(c.Nodes)-1)
				}
			}
		}
	}
	if err := c.Wake.Validate(); err != nil {
		return fmt.Errorf("wake: %w", err)
	}
	return nil
}

// Validate returns an error that names what cannot be.
func (w *Work) Validate() error {
	for _, v := range []float64{w.Client, w.Query, w.Call, w.Beside, w.Piece} {
		if !(v >= 0 && v < 1e6) {
			return fmt.Errorf("a step takes %v s, want at least 0", v)
		}
	}
	if w.Beside >= 1 || w.Beside > 0 && w.Piece == 0 {
		return fmt.Errorf("processes take %v of a processor in pieces of %v s, want less than 1, and pieces", w.Beside, w.Piece)
	}
	if err := w.Search.Validate(); err != nil {
		return fmt.Errorf("search: %w", err)
	}
	if err := w.Lookup.Validate(); err != nil {
		return fmt.Errorf("lookup: %w", err)
	}
	if len(w.Search) == 0 {
		return errors.New("there are no times of searches")
	}
	return nil
}

// Validate returns an error that names what cannot be of so many shards.
func (l *Load) Validate(shards int) error {
	switch {
	case !(l.Rate > 0 && l.Rate < 1e9):
		return fmt.Errorf("rate is %v a second, want more than 0", l.Rate)
	case l.Queries < 10 || l.Queries > MaxQueries || l.Queries*shards > MaxCalls:
		return fmt.Errorf("%d queries of %d shards, want 10 to %d queries, and at most %d calls", l.Queries, shards, MaxQueries, MaxCalls)
	case !(l.Same >= 0 && l.Same <= 1) || !(l.Again >= 0 && l.Again <= 1):
		return fmt.Errorf("shares are %v and %v, want 0 to 1", l.Same, l.Again)
	}
	return nil
}
