package engines

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/tandem-ann/tandem/index"
)

// ErrNoDriver is the class of the error of an engine whose driver is not built.
var ErrNoDriver = errors.New("no driver")

// Setting is a way to ask: an effort, a recall target, or neither, the exact scan.
// Only our index takes the last two.
type Setting struct {
	K      int     `json:"k"`
	Ef     int     `json:"ef,omitempty"`
	Target float64 `json:"target,omitempty"`
}

func (s Setting) String() string {
	switch {
	case s.Ef > 0:
		return fmt.Sprintf("ef %d", s.Ef)
	case s.Target > 0:
		return fmt.Sprintf("target %v", s.Target)
	}
	return "exact"
}

// engine is an index that one goroutine asks.
type engine interface {
	// cost returns what the build took.
	cost() Cost
	// restrict makes the searches that follow return only rows that p lets be
	// returned. An engine that cannot returns an error.
	restrict(p *Predicate) error
	// search asks n queries from number first on. With count it finds out the
	// distance computations, and the times do not matter.
	search(ctx context.Context, s Setting, first, n int, count bool, a *answers) error
	Close() error
}

// Cost is what an index costs before it is asked.
type Cost struct {
	BuildSeconds     float64 `json:"build_seconds"`               // wall time
	CalibrateSeconds float64 `json:"calibrate_seconds,omitempty"` // of our index, beside the build
	// Bytes are those of our index's file, which is mapped, and what building
	// added to the resident memory of another engine; 0 is unknown.
	Bytes int64 `json:"bytes,omitempty"`
}

// answers are those to n queries.
type answers struct {
	rows      []int32 // n times k, -1 where there is none
	nanos     []int64 // of each query
	distances []int64 // of each query, -1 where unknown
	how       string  // what our index did, when distances are counted
}

func (a *answers) reset(n, k int) {
	a.rows, a.nanos, a.distances = resize(a.rows, n*k), resize(a.nanos, n), resize(a.distances, n)
	for i := range a.rows {
		a.rows[i] = -1
	}
	for i := range a.distances {
		a.distances[i] = -1
	}
	a.how = ""
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// start builds an engine. dir is a folder for its files.
func start(ctx context.Context, spec Spec, s *Set, o Options, dir string) (engine, error) {
	switch {
	case spec.Augmented && s.Metric != index.Dot:
		return nil, fmt.Errorf("augmented vectors are for inner product, the metric is %s", s.Metric)
	case spec.Name == Tandem:
		return startTandem(ctx, spec, s, o, dir)
	case spec.Name == Coder:
		return startCoder(ctx, spec, s)
	}
	d, err := startDriver(ctx, spec, s, o, dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNoDriver, err)
	}
	return d, err
}
