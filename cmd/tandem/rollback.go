package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/tandem-ann/tandem/shard/release"
)

type releaseRollbackCommand struct {
	changeFlags
	To       *uint64 `xor:"target" placeholder:"N" help:"Generation to bring back, whatever it was. With it a rollback also follows a release that cannot be read."`
	AwayFrom *string `xor:"target" placeholder:"DIGEST" help:"Go back to the last generation without this snapshot, which serves, by its digest or the beginning of it."`
}

func (releaseRollbackCommand) Help() string {
	return `Goes back to the last generation in which another snapshot had all traffic: another than the one that has all of it, or, while it is split, than the one that came last. So one rollback takes a bad candidate off, whatever its share, and another does not bring it back. Says what will serve before it writes; gates keep nobody from going back, but what is not fit is told. Servers that still have the snapshots mapped switch at once.

Example:

    tandem release rollback --store store --reason "clicks fell"`
}

func (c *releaseRollbackCommand) Run(e *environment) error {
	to, err := generation("--to", c.To)
	if err != nil {
		return err
	}
	o := release.RollbackOptions{To: to, Before: e.tellPlan}
	if c.AwayFrom != nil {
		if o.AwayFrom = *c.AwayFrom; o.AwayFrom == "" {
			return usagef("--away-from is empty; accepted: the beginning of a digest, or all of it")
		}
	}
	return c.run(e, func(r releaser, change release.Change) (*release.Release, error) {
		o.Change = change
		return r.rollback(e.ctx, o)
	})
}

type releaseStopCommand struct {
	changeFlags
	Arm string `arg:"" help:"Arm to end."`
}

func (releaseStopCommand) Help() string {
	return `The control takes the arm's traffic, whatever its gates say now; what is not fit is told. The arm's snapshot does not come back by a rollback, unless that names a generation.

Example:

    tandem release stop --store store candidate --reason "clicks fell"`
}

func (c *releaseStopCommand) Run(e *environment) error {
	return c.run(e, func(r releaser, change release.Change) (*release.Release, error) {
		return r.stop(e.ctx, release.StopOptions{Change: change, Arm: c.Arm, Before: e.tellPlan})
	})
}

// tellPlan says what a change is about to do.
func (e *environment) tellPlan(p release.Plan) { writePlan(e.stderr, p) }

func writePlan(w io.Writer, p release.Plan) {
	r := p.Next
	if r.Of != 0 {
		fmt.Fprintf(w, "going back to generation %d\n", r.Of)
	}
	for _, text := range p.Passed {
		fmt.Fprintf(w, "  passed over %s\n", release.Escape(text))
	}
	for _, a := range r.Arms {
		fmt.Fprintf(w, "  will serve %d per mille: %s, snapshot %s\n", a.Weight, release.Escape(a.ModelVersion), a.Snapshot.Short())
	}
	for _, d := range p.Off {
		fmt.Fprintf(w, "  will not serve any more: snapshot %s\n", d.Short())
	}
	for _, text := range p.Unfit {
		fmt.Fprintf(w, "  not fit: %s\n", strings.ReplaceAll(text, "\n", "\n  "))
	}
	if len(p.Unfit) > 0 {
		fmt.Fprintf(w, "  tandem release rollback --away-from SNAPSHOT goes back to the last generation without it\n")
	}
}
