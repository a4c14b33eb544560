// Package alignment measures how often the gate axes is wrong: it makes models of many
// kinds, and compares towers that belong together and towers that do not. `tandem bench
// alignment` calls [Run].
//
// # Goals
//
// A gate that refuses good towers is turned off, so of 1,000 pairs that belong together
// at most one may be refused, whatever trained them; and what passes must belong together.
//
// # Design
//
// A model is made by a training that is drawn with its settings, on interactions that are
// drawn from tastes and traits which no training sees: alternating least squares, singular
// value decompositions, pairwise and logistic losses and softmax on vectors of ids, and
// networks on noisy features, of which some have learnt little. Of each come towers as
// they may reach a build, and pairs that must not: one of them turned, its columns in
// another order, or of another training. All is drawn from a seed, and the same on every
// machine of one architecture.
//
// Each pair is judged as in a first build, and beside the model as it was trained, as in
// the build that follows it.
package alignment

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/tandem-ann/tandem/builder/axes"
	"github.com/tandem-ann/tandem/builder/probe"
)

// Limits of the options.
const (
	MaxModels = 100_000
	MinDim    = 2
	MaxDim    = 1024
)

// Options say what is made.
type Options struct {
	Models int
	Seed   uint64
	// Dims are the dimensions of the models, in turn.
	Dims []int
	// Trainings are the kinds of training that are drawn from, of [Trainings]; none is all.
	Trainings []string
	// Progress is told how many models are done; it may be nil, and is called by one
	// goroutine at a time.
	Progress func(done int)
}

// Validate returns an error that names the option at fault.
func (o *Options) Validate() error {
	if o.Models < 1 || o.Models > MaxModels {
		return fmt.Errorf("models is %d, want 1 to %d", o.Models, MaxModels)
	}
	if len(o.Dims) == 0 {
		return fmt.Errorf("no dimension is given, want any from %d to %d", MinDim, MaxDim)
	}
	for _, d := range o.Dims {
		if d < MinDim || d > MaxDim {
			return fmt.Errorf("a dimension is %d, want %d to %d", d, MinDim, MaxDim)
		}
	}
	for _, kind := range o.Trainings {
		if !slices.Contains(trainings, kind) {
			return fmt.Errorf("training %.80q is unknown: want any of %s", kind, strings.Join(Trainings(), ", "))
		}
	}
	return nil
}

// Run makes models and judges their towers, on as many goroutines as there are processors.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("bench alignment: %w", err)
	}
	report := &Report{Models: o.Models, Seed: o.Seed, Dims: slices.Clone(o.Dims)}
	list := make([][]outcome, o.Models)
	var mu sync.Mutex
	done := 0
	err := probe.Each(ctx, o.Models, func(i int) (err error) {
		list[i], err = o.judge(ctx, i, o.Dims[i%len(o.Dims)])
		mu.Lock()
		defer mu.Unlock()
		if done++; o.Progress != nil {
			o.Progress(done)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bench alignment: %w", err)
	}
	for _, outcomes := range list {
		report.add(outcomes)
	}
	report.sort()
	return report, nil
}

// outcome is what one pair was found to be.
type outcome struct {
	what, training string
	dim            int
	together       bool
	following      bool // beside the model as it was trained
	state          axes.State
}

// judge makes one model, and judges its pairs.
func (o *Options) judge(ctx context.Context, number, dim int) ([]outcome, error) {
	r := rand.New(rand.NewPCG(o.Seed, uint64(number)))
	m := newModel(dim, o.Trainings, r)
	var reference *axes.Result
	var list []outcome
	sides := map[*[]float64]*axes.Side{} // by their first row: many pairs share a tower
	side := func(rows [][]float64) (*axes.Side, error) {
		key := &rows[0]
		if sides[key] == nil {
			s, err := axes.Measure(ctx, floats(rows))
			if err != nil {
				return nil, err
			}
			sides[key] = s
		}
		return sides[key], nil
	}
	for _, p := range m.pairs(r) {
		apps, err := side(p.apps)
		if err != nil {
			return nil, err
		}
		users, err := side(p.users)
		if err != nil {
			return nil, err
		}
		found := axes.Compare(apps, users)
		is := outcome{what: p.what, training: m.training, dim: len(p.apps[0]), together: p.together}
		is.state, _ = found.Alone()
		list = append(list, is)
		if reference == nil {
			reference = found
			continue
		}
		is.following = true
		if beside, _ := found.Beside(reference); beside == axes.Apart {
			is.state = axes.Apart
		}
		list = append(list, is)
	}
	return list, nil
}
