package main

import (
	"fmt"

	"github.com/tandem-ann/tandem/bench/feedback"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchOffPolicyCommand is `tandem bench offpolicy`.
type benchOffPolicyCommand struct {
	Runs  int     `default:"1000" placeholder:"N" help:"Logs that are drawn and evaluated (default ${default})."`
	Users int     `default:"1000" placeholder:"N" help:"Users of each, with two requests (default ${default})."`
	Share float64 `default:"0.2" placeholder:"X" help:"Share of requests whose last places are drawn (default ${default})."`
	Seed  uint64  `default:"1" placeholder:"N" help:"Seed of what is drawn (default ${default})."`
	JSON  bool    `help:"Print JSON."`
}

func (benchOffPolicyCommand) Help() string {
	return `Simulates what a release that explores logs, evaluates policies that were not served by it, as tandem feedback report does, and prints how often the intervals of the estimates have the true value, which is to be 19 times in 20: of a policy that draws nothing, of one that always draws, and of other answers.

Example:

    tandem bench offpolicy`
}

func (c *benchOffPolicyCommand) Run(e *environment) error {
	o := feedback.OffPolicyOptions{Seed: c.Seed, Runs: c.Runs, Users: c.Users, Share: c.Share}
	if err := o.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	p := newProgress(e.stderr)
	defer p.Done()
	p.Stage("simulate logs", int64(o.Runs))
	o.Progress = func(done int) { p.Step(int64(done)) }
	report, err := feedback.RunOffPolicy(e.ctx, o)
	if err != nil {
		return err
	}
	p.Done()
	if c.JSON {
		return wording.WriteJSON(e.stdout, report)
	}
	return report.WriteTable(e.stdout)
}
