package bench

import (
	"fmt"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// DefaultTarget is the recall target of a request that names none.
const DefaultTarget = index.DefaultTarget

// Options say what to measure. The zero value of a field is its default.
type Options struct {
	// Target is the tower to search: apps, which users ask for, or users, which
	// apps ask for. The default is apps.
	Target shard.Kind
	// K lists how many candidates to ask for. The default is 10 and 100.
	K []int
	// Queries is how many queries to ask at each setting. The default is 1000.
	Queries int
	// Ef lists the efforts to sweep. The default is a list for each k, from k to
	// 32 times k. Efforts below a k count as that k and are left out.
	Ef []int
	// Targets lists the recall targets. The default is 0.90, 0.95, 0.99 and 0.999.
	Targets []float64
	// Filter restricts the answers; empty for none. Bindings are the values of its
	// user.NAME, as [eligibility.Filter.Bind] takes them.
	Filter   string
	Bindings map[string]any
	// Segment restricts the answers to a segment; empty for none.
	Segment string
	// Walk makes the settings of the sweep walk the graph even where the exact
	// scan is cheaper, and so would be chosen.
	Walk bool
	// Rounds is how often each setting takes its turn. The default is 3.
	Rounds int
	// Seed decides the order of the turns.
	Seed uint64
	// Progress, if not nil, is called now and then with the queries asked.
	Progress func(done, total int64)
}

// Bounds of the options.
const (
	MaxQueries = 1_000_000
	MaxRounds  = 1000
)

// sweep holds the default efforts, as multiples of k.
var sweep = [...]float64{1, 1.5, 2, 3, 5, 8, 12, 20, 32}

// withDefaults returns the options with defaults filled in and lists ascending.
func (o Options) withDefaults() Options {
	if o.Target == "" {
		o.Target = shard.Apps
	}
	if len(o.K) == 0 {
		o.K = []int{10, 100}
	}
	if o.Queries == 0 {
		o.Queries = 1000
	}
	if len(o.Targets) == 0 {
		for _, t := range index.Targets {
			o.Targets = append(o.Targets, math.Round(float64(t)*1e6)/1e6) // 0.9, not the float32 next to it
		}
	}
	if o.Rounds == 0 {
		o.Rounds = 3
	}
	o.K, o.Ef, o.Targets = ascending(o.K), ascending(o.Ef), ascending(o.Targets)
	return o
}

func ascending[T int | float64](list []T) []T {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// Validate returns an error that names the option out of bounds.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch {
	case o.Target != shard.Apps && o.Target != shard.Users:
		return fmt.Errorf("target is %q, want apps or users", o.Target)
	case o.Queries < 1 || o.Queries > MaxQueries:
		return fmt.Errorf("queries is %d, want 1 to %d", o.Queries, MaxQueries)
	case o.Rounds < 1 || o.Rounds > MaxRounds:
		return fmt.Errorf("rounds is %d, want 1 to %d", o.Rounds, MaxRounds)
	case o.Filter == "" && len(o.Bindings) > 0:
		return fmt.Errorf("%d bindings without a filter", len(o.Bindings))
	}
	for _, k := range o.K {
		if k < 1 || k > index.MaxRows {
			return fmt.Errorf("k is %d, want at least 1", k)
		}
	}
	for _, ef := range o.Ef {
		if ef < 1 || ef > index.MaxRows {
			return fmt.Errorf("ef is %d, want at least 1", ef)
		}
	}
	for _, t := range o.Targets {
		if !(t > 0 && t <= 1) {
			return fmt.Errorf("recall target is %v, want above 0 and at most 1", t)
		}
	}
	return nil
}

// efforts returns the sweep for k.
func (o Options) efforts(k int) []int {
	if len(o.Ef) == 0 {
		list := make([]int, len(sweep))
		for i, f := range sweep {
			list[i] = int(math.Round(f * float64(k)))
		}
		return ascending(list)
	}
	return slices.DeleteFunc(slices.Clone(o.Ef), func(ef int) bool { return ef < k })
}
