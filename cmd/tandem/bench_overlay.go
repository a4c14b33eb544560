package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/bench/overlay"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchOverlayCommand is `tandem bench overlay`.
type benchOverlayCommand struct {
	requiredStoreFlags
	Snapshot     string    `arg:"" optional:"" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`
	Takedowns    int       `default:"100000" placeholder:"N" help:"How many apps to take down (default ${default})."`
	Fresh        int       `default:"20000" placeholder:"N" help:"How many apps to upsert (default ${default})."`
	Batch        int       `default:"500" placeholder:"N" help:"How many of them to write at a time (default ${default})."`
	K            []int     `default:"10,100" placeholder:"N" help:"How many candidates to ask for (default ${default})."`
	RecallTarget []float64 `default:"0.9,0.95,0.99" placeholder:"X" help:"Recall targets (default ${default})."`
	Queries      int       `default:"1000" placeholder:"N" help:"Users to ask for at each setting (default ${default})."`
	Rounds       int       `default:"5" placeholder:"N" help:"How often each side takes its turn (default ${default})."`
	Seed         uint64    `default:"0" placeholder:"N" help:"Seed of what is drawn (default ${default})."`
	JSON         bool      `help:"Print JSON."`
}

func (benchOverlayCommand) Help() string {
	return `Takes apps of a snapshot down and upserts others like them, in a live log of its own, and measures what a query takes with nothing over the snapshot, with the takedowns, and with all of it: the time of one thread, each side in turns of its own. Compares answers with an exact scan of what is left. Writes nothing to the store. Exits with 1 if a query takes more than 1.3 times as long as without, if recall is below its target, or if a fresh app is missing, and says which.

Example:

    tandem bench overlay --store store --takedowns 1000 --fresh 500`
}

func (c *benchOverlayCommand) Run(e *environment) (err error) {
	o := overlay.Options{
		Takedowns: c.Takedowns, Fresh: c.Fresh, Batch: c.Batch, K: c.K, Targets: c.RecallTarget,
		Queries: c.Queries, Rounds: c.Rounds, Seed: c.Seed,
		Progress: func(phase string) { fmt.Fprintf(e.stderr, "%s %s\n", time.Now().Format(time.TimeOnly), phase) },
	}
	if err := c.check(); err != nil {
		return err
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	store, digest, err := openStore(e, c.Store, c.Snapshot, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	s, err := snapshots.Open(e.ctx, store, digest)
	if err != nil {
		return err
	}
	defer closing(&err, s)
	report, err := overlay.Run(e.ctx, s, o)
	if err != nil {
		return err
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, report)
	} else {
		err = report.WriteTable(e.stdout)
	}
	if err == nil && len(report.Missed) > 0 {
		err = fmt.Errorf("%s missed: %s", wording.Plural(len(report.Missed), "target"), strings.Join(report.Missed, "; "))
	}
	return err
}

// check returns an error for a flag of 0 where that is a default of [overlay.Options].
func (c *benchOverlayCommand) check() error {
	switch {
	case c.Batch < 1 || c.Batch > overlay.MaxBatch:
		return usagef("--batch is %d, want 1 to %d", c.Batch, overlay.MaxBatch)
	case c.Queries < 1 || c.Queries > overlay.MaxQueries:
		return usagef("--queries is %d, want 1 to %d", c.Queries, overlay.MaxQueries)
	case c.Rounds < 1 || c.Rounds > overlay.MaxRounds:
		return usagef("--rounds is %d, want 1 to %d", c.Rounds, overlay.MaxRounds)
	}
	return nil
}
