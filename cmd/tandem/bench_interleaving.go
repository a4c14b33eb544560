package main

import (
	"fmt"

	"github.com/tandem-ann/tandem/bench/feedback"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchInterleavingCommand is `tandem bench interleaving`.
type benchInterleavingCommand struct {
	Effect       []float64 `default:"0.05,0.1,0.2" placeholder:"X" help:"By how much the better arm scores what users want higher, in standard deviations of a score (default ${default})."`
	Common       float64   `default:"0.9" placeholder:"X" help:"Share of the variance of scores, of what users do not want, that both arms have in common: near 1, their answers are alike (default ${default})."`
	Requests     int       `default:"50000" placeholder:"N" help:"Different requests that experiments draw of (default ${default})."`
	Null         int       `default:"1000" placeholder:"N" help:"Experiments with equal arms (default ${default})."`
	NullRequests int       `default:"2000" placeholder:"N" help:"Requests of each of them (default ${default})."`
	Seed         uint64    `default:"1" placeholder:"N" help:"Seed of what is drawn (default ${default})."`
	JSON         bool      `help:"Print JSON."`
}

func (benchInterleavingCommand) Help() string {
	return `Simulates experiments on two arms of which one is better, with users who look at an answer from its top on and with users who look at all of it, and prints how many requests it takes to find the better one with a power of 80% at a level of 5%: by comparing the hit rates of the arms, and by interleaving their answers. Then makes experiments with equal arms, and counts how many find one better, which is to be one in 20.

Example:

    tandem bench interleaving`
}

func (c *benchInterleavingCommand) Run(e *environment) error {
	o := feedback.Options{Seed: c.Seed, Effects: c.Effect, Common: c.Common, Requests: c.Requests, Null: c.Null, NullRequests: c.NullRequests}
	if err := o.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	p := newProgress(e.stderr)
	defer p.Done()
	p.Stage("simulate experiments", int64(o.Steps()))
	o.Progress = func(done int) { p.Step(int64(done)) }
	report, err := feedback.Run(e.ctx, o)
	if err != nil {
		return err
	}
	p.Done()
	if c.JSON {
		return wording.WriteJSON(e.stdout, report)
	}
	return report.WriteTable(e.stdout)
}
