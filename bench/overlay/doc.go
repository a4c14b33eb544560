// Package overlay measures what queries cost while changes lie over a snapshot: apps that were
// taken down, and fresh ones that a scan finds beside the graph.
//
// [Run] lays changes over a snapshot, and asks it with and without them in turns, on one
// thread. It writes a live log of its own, and nothing to the store of the snapshot. It is
// called by `tandem bench overlay`.
package overlay

import (
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/shard"
)

// TargetRatio is how many times as much a query may take with the changes as without, at the
// median: more is told by [Report].Missed. So is recall below the target, and a fresh app that
// is missing.
const TargetRatio = 1.3

// Options say what to measure. The zero value of a field is its default, but for those of
// which 0 is said to be a value.
type Options struct {
	// Takedowns and Fresh are how many apps are taken down, and how many upserted. Both may be
	// 0. Fresh apps are like apps that there are, but for some noise, and written in batches
	// of Batch events; the default is 500.
	Takedowns, Fresh int
	Batch            int
	// K lists how many candidates to ask for. The default is 10 and 100.
	K []int
	// Targets lists recall targets. The default is 0.9, 0.95 and 0.99.
	Targets []float64
	// Queries is how many users ask at each setting in each round. The default is 1000.
	Queries int
	// Rounds is how often each side takes its turn at each setting. The default is 5.
	Rounds int
	// Seed decides which apps are drawn, and the order of the turns.
	Seed uint64
	// Progress, if not nil, is called when a phase begins.
	Progress func(phase string)
}

// Bounds of options.
const (
	MaxChanges = 10_000_000
	MaxBatch   = 10_000
	MaxK       = 10_000
	MaxQueries = 1_000_000
	MaxRounds  = 1000
)

func (o Options) withDefaults() Options {
	if o.Batch == 0 {
		o.Batch = 500
	}
	if len(o.K) == 0 {
		o.K = []int{10, 100}
	}
	if len(o.Targets) == 0 {
		o.Targets = []float64{0.9, 0.95, 0.99}
	}
	if o.Queries == 0 {
		o.Queries = 1000
	}
	if o.Rounds == 0 {
		o.Rounds = 5
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	o.K, o.Targets = slices.Compact(slices.Sorted(slices.Values(o.K))), slices.Compact(slices.Sorted(slices.Values(o.Targets)))
	return o
}

// Validate returns an error that names the option out of bounds.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch {
	case o.Takedowns < 0 || o.Takedowns > MaxChanges:
		return fmt.Errorf("takedowns is %d, want 0 to %d", o.Takedowns, MaxChanges)
	case o.Fresh < 0 || o.Fresh > MaxChanges:
		return fmt.Errorf("fresh is %d, want 0 to %d", o.Fresh, MaxChanges)
	case o.Batch < 1 || o.Batch > MaxBatch:
		return fmt.Errorf("batch is %d, want 1 to %d", o.Batch, MaxBatch)
	case o.Queries < 1 || o.Queries > MaxQueries:
		return fmt.Errorf("queries is %d, want 1 to %d", o.Queries, MaxQueries)
	case o.Rounds < 1 || o.Rounds > MaxRounds:
		return fmt.Errorf("rounds is %d, want 1 to %d", o.Rounds, MaxRounds)
	}
	for _, k := range o.K {
		if k < 1 || k > MaxK {
			return fmt.Errorf("k is %d, want 1 to %d", k, MaxK)
		}
	}
	for _, t := range o.Targets {
		if !(t > 0 && t < 1) {
			return fmt.Errorf("recall target is %v, want above 0 and below 1", t)
		}
	}
	return nil
}

// sides are what is measured beside each other, by name: the snapshot as it is, with nothing
// over it, with takedowns, and with fresh apps too.
var sides = [...]string{"without", "empty", "takedowns", "all"}

// towers are those of the sides.
type towers [len(sides)]*shard.Tower
