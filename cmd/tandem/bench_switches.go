package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/tandem-ann/tandem/bench"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchSwitchesCommand is `tandem bench switches`.
type benchSwitchesCommand struct {
	requiredStoreFlags
	First    string        `arg:"" placeholder:"DIGEST" help:"A snapshot's digest or the beginning of it."`
	Second   string        `arg:"" placeholder:"DIGEST" help:"Another snapshot of the same model."`
	Switches int           `default:"200" placeholder:"N" help:"How often to switch (default ${default})."`
	Clients  int           `default:"16" placeholder:"N" help:"Clients that ask all the while (default ${default})."`
	K        int           `default:"100" placeholder:"N" help:"How many candidates they ask for (default ${default})."`
	Steady   time.Duration `default:"10s" placeholder:"TIME" help:"How long to measure before the first switch (default ${default})."`
	Pause    time.Duration `default:"200ms" placeholder:"TIME" help:"How long to serve between two switches (default ${default})."`
	Keep     time.Duration `default:"10m" placeholder:"TIME" help:"How long the server keeps a snapshot mapped once it no longer answers (default ${default}); 1ns has every switch open it anew."`
	JSON     bool          `help:"Print JSON."`
}

func (benchSwitchesCommand) Help() string {
	return `Serves copies of two snapshots on loopback, and switches between them while clients ask. Compares every answer with what its snapshot answers by itself. Exits with 1 if a request failed or an answer mixed generations.

Example:

    tandem bench switches --store store 4be1 77c0`
}

func (c *benchSwitchesCommand) Run(e *environment) (err error) {
	if c.Switches < 2 || c.Clients < 1 || c.K < 1 || c.Keep <= 0 {
		return usagef("--switches, --clients, --k and --keep are %d, %d, %d and %s, want at least 2, 1, 1 and more than 0", c.Switches, c.Clients, c.K, c.Keep)
	}
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	var digests [2]manifest.Digest
	for i, ref := range []string{c.First, c.Second} {
		if digests[i], err = store.Resolve(e.ctx, ref); err != nil {
			return err
		}
	}
	report, err := bench.Switch(e.ctx, store, digests, bench.SwitchOptions{
		Switches: c.Switches, Clients: c.Clients, K: c.K, Steady: c.Steady, Pause: c.Pause, Keep: c.Keep,
	})
	if err != nil {
		return err
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, report)
	} else {
		err = report.WriteTable(e.stdout)
	}
	if bad := report.Failed + report.Mixed; err == nil && bad > 0 {
		err = errors.New(fmt.Sprint(bad, " requests failed or had an answer of another generation"))
	}
	return err
}
