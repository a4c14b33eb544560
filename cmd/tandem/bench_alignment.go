package main

import (
	"github.com/tandem-ann/tandem/bench/alignment"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchAlignmentCommand is `tandem bench alignment`.
type benchAlignmentCommand struct {
	Models   int      `default:"200" placeholder:"N" help:"How many models to make (default ${default})."`
	Dims     []int    `default:"8,16,24,32,48,64,64,96,128" placeholder:"N" help:"Their dimensions, in turn (default ${default})."`
	Seed     uint64   `default:"1" placeholder:"N" help:"Seed of everything that is made (default ${default})."`
	Training []string `placeholder:"KIND" help:"Kinds of training to draw from, of als, svd, bpr, logit, softmax and network; all by default."`
	JSON     bool     `help:"Print JSON."`
}

func (benchAlignmentCommand) Help() string {
	return `Measures how often the gate axes is wrong. Makes models of many kinds, by several trainings on interactions that are made, too, and lets the gate judge pairs of towers that belong together (as they were trained, turned, permuted, of few rows, normalised, collapsed) and pairs that do not (one turned or permuted, or of another training).

Example:

    tandem bench alignment --models 1000`
}

func (c *benchAlignmentCommand) Run(e *environment) error {
	p := newProgress(e.stderr)
	defer p.Done()
	o := alignment.Options{Models: c.Models, Seed: c.Seed, Dims: c.Dims, Trainings: c.Training, Progress: func(done int) { p.Step(int64(done)) }}
	if err := o.Validate(); err != nil {
		return usagef("--models, --dims, --training: %v", err)
	}
	p.Stage("make and judge models", int64(c.Models))
	report, err := alignment.Run(e.ctx, o)
	if err != nil {
		return err
	}
	p.Done()
	if c.JSON {
		return wording.WriteJSON(e.stdout, report)
	}
	return report.WriteTable(e.stdout)
}
