package engines

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Predicate says which rows of a set may be returned. A nil one lets all be.
type Predicate struct {
	Name string
	// Filter is an eligibility filter, or says how the rows were chosen.
	Filter string
	// Evaluate is how long the filter takes over the attributes; 0 where there is
	// nothing to evaluate.
	Evaluate time.Duration

	rows     index.Bitset // by number
	eligible int
}

// has reports whether a row may be returned.
func (p *Predicate) has(row uint32) bool { return p == nil || p.rows.Has(row) }

// of returns how many of a set's rows may be returned.
func (p *Predicate) of(s *Set) int {
	if p == nil {
		return s.base.Rows()
	}
	return p.eligible
}

// Filter is an eligibility filter to measure under.
type Filter struct {
	Name   string `json:"name"`
	Filter string `json:"filter"` // CEL
	// Eligible, if not nil, is how many rows of the whole base are known to pass.
	Eligible *int `json:"eligible"`
}

// ReadFilters reads a JSON array of filters.
func ReadFilters(path string) ([]Filter, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var filters []Filter
	if err := json.Unmarshal(data, &filters); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	names := map[string]bool{}
	for i, f := range filters {
		switch {
		case f.Name == "" || f.Filter == "":
			return nil, fmt.Errorf("%s: filter %d has name %q and filter %q, want both", path, i+1, f.Name, f.Filter)
		case names[f.Name]:
			return nil, fmt.Errorf("%s: filter %d: name %q is taken", path, i+1, f.Name)
		}
		names[f.Name] = true
	}
	if len(filters) == 0 {
		return nil, fmt.Errorf("%s has no filters", path)
	}
	return filters, nil
}

// Predicates evaluates eligibility filters over the attributes of the base, which
// must have been read, as a shard does. The error of a filter that does not compile
// is an [*eligibility.Error], that of a binding an [*eligibility.BindError].
func (s *Set) Predicates(ctx context.Context, filters []Filter, bindings map[string]any) (_ []*Predicate, err error) {
	dir, err := os.MkdirTemp("", "tandem-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file, err := s.writeAttributes(filepath.Join(dir, "attributes"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	table, err := attribute.OpenTable(file, s.base.Rows())
	if err != nil {
		return nil, err
	}
	compiler, err := eligibility.NewCompiler(table.Schema())
	if err != nil {
		return nil, err
	}
	var predicates []*Predicate
	for _, f := range filters {
		compiled, err := compiler.Compile(f.Filter)
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.Name, err)
		}
		bound, err := compiled.Bind(ctx, bindings)
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.Name, err)
		}
		p := &Predicate{Name: f.Name, Filter: f.Filter, rows: index.NewBitset(s.base.Rows())}
		if p.eligible, p.Evaluate, err = evaluate(ctx, bound, table, p.rows); err != nil {
			return nil, fmt.Errorf("filter %s: %w", f.Name, err)
		}
		if s.whole && f.Eligible != nil && *f.Eligible != p.eligible {
			return nil, fmt.Errorf("filter %s leaves %d rows, and should leave %d", f.Name, p.eligible, *f.Eligible)
		}
		predicates = append(predicates, p)
	}
	return predicates, nil
}

// writeAttributes writes the table of attributes in the order of the rows.
func (s *Set) writeAttributes(path string) (*sections.File, error) {
	order := make([]uint32, s.base.Rows())
	for i := range order {
		order[i] = uint32(i)
	}
	w, err := sections.Create(path)
	if err != nil {
		return nil, err
	}
	if err := s.attributes.Write(w, order); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	return sections.Open(path)
}

// evaluations is how often a filter is evaluated to time it.
const evaluations = 21

// evaluate returns how many rows pass a filter, which it writes to rows, and the
// median of the times that it takes.
func evaluate(ctx context.Context, bound eligibility.Bound, table *attribute.Table, rows index.Bitset) (eligible int, took time.Duration, err error) {
	var times [evaluations]time.Duration
	for i := range times {
		start := time.Now()
		if eligible, err = bound.Eval(ctx, table, rows); err != nil {
			return 0, 0, err
		}
		times[i] = time.Since(start)
	}
	slices.Sort(times[:])
	return eligible, times[evaluations/2], nil
}

// The selectivities of synthetic predicates.
var (
	randomShares = [...]float64{0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4, 1e-5}
	regionShares = [...]float64{0.2, 0.05, 0.01, 1e-3}
)

// Synthetic makes predicates for a set without attributes. Each draws from random
// numbers of its own, which the seed and its place in this list decide:
//
//   - random S: round(S x rows) rows drawn without replacement, for S of 0.5, 0.2,
//     0.1, 0.05, 0.02, 0.01, 0.001, 0.0001 and 0.00001. They know nothing of any
//     query.
//   - near S: the round(S x rows) rows that score best against one query q0, drawn
//     from the sample, for S of 0.2, 0.05, 0.01 and 0.001. They lie in one region,
//     where few of the queries that are asked lie too. Under inner product they are
//     also rows of a high norm, which most queries score well.
//   - far S: the rows that score worst against such a query, for the same S: rows
//     that hardly any query is about.
//   - and S: the rows that are eligible under both a random and a near predicate of
//     selectivity sqrt(S), for the same S: about S of the rows, in one region and
//     sparse there.
//
// Rows of equal score are taken in their order.
func (s *Set) Synthetic(seed uint64) ([]*Predicate, error) {
	if s.sample.Rows() == 0 {
		return nil, errors.New("the set has one query: a synthetic predicate needs one more, which is not asked")
	}
	var predicates []*Predicate
	add := func(name string, share float64, choose func(rng *rand.Rand) index.Bitset) {
		rng := rand.New(rand.NewPCG(seed, uint64(len(predicates))+1))
		rows := choose(rng)
		predicates = append(predicates, &Predicate{
			Name: fmt.Sprintf("%s %g", name, share), Filter: synthetic[name], rows: rows, eligible: rows.Count(),
		})
	}
	for _, share := range randomShares {
		add("random", share, func(rng *rand.Rand) index.Bitset { return s.random(rng, share) })
	}
	for _, share := range regionShares {
		add("near", share, func(rng *rand.Rand) index.Bitset { return s.region(rng, share, true) })
	}
	for _, share := range regionShares {
		add("far", share, func(rng *rand.Rand) index.Bitset { return s.region(rng, share, false) })
	}
	for _, share := range regionShares {
		add("and", share, func(rng *rand.Rand) index.Bitset {
			rows := s.random(rng, math.Sqrt(share))
			rows.And(s.region(rng, math.Sqrt(share), true))
			return rows
		})
	}
	return predicates, nil
}

// synthetic says how the rows of each kind of synthetic predicate are chosen.
var synthetic = map[string]string{
	"random": "rows drawn at random",
	"near":   "the rows that score best against a query of the sample",
	"far":    "the rows that score worst against a query of the sample",
	"and":    "rows drawn at random among those that score best against a query of the sample",
}

// random draws a share of the rows.
func (s *Set) random(rng *rand.Rand, share float64) index.Bitset {
	rows := index.NewBitset(s.base.Rows())
	for _, row := range rng.Perm(s.base.Rows())[:s.count(share)] {
		rows.Set(uint32(row))
	}
	return rows
}

// region takes the share of the rows that score best, or worst, against a query of
// the sample.
func (s *Set) region(rng *rand.Rand, share float64, best bool) index.Bitset {
	distances := make([]float32, s.base.Rows())
	s.distanceRange(s.sample.padded(rng.IntN(s.sample.Rows())), 0, distances)
	if !best {
		negate(distances)
	}
	order := make([]uint32, len(distances))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(distances[a], distances[b]), cmp.Compare(a, b))
	})
	rows := index.NewBitset(s.base.Rows())
	for _, row := range order[:s.count(share)] {
		rows.Set(row)
	}
	return rows
}

// count returns how many rows a share of them is.
func (s *Set) count(share float64) int { return int(math.Round(share * float64(s.base.Rows()))) }
