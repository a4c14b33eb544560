package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/bench/attack"
	"github.com/tandem-ann/tandem/bench/overload"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchOverloadCommand is `tandem bench overload`.
type benchOverloadCommand struct {
	requiredStoreFlags
	Snapshot     string        `arg:"" optional:"" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`
	K            int           `default:"100" placeholder:"N" help:"How many candidates a query asks for (default ${default})."`
	RecallTarget float64       `placeholder:"X" help:"Recall that queries ask for, up to 1 (default that of the server)."`
	Factor       float64       `default:"2" placeholder:"X" help:"How many times its capacity the server is asked (default ${default})."`
	Time         time.Duration `default:"20s" placeholder:"TIME" help:"How long each phase takes (default ${default})."`
	Deadline     time.Duration `default:"1s" placeholder:"TIME" help:"How long callers wait; a later answer is none (default ${default})."`
	Seed         uint64        `default:"1" placeholder:"N" help:"Seed of the times at which queries are sent (default ${default})."`
	Serve        []string      `sep:"none" placeholder:"FLAG" help:"Flag of tandem serve, such as --serve=--max-work-in-flight=100ms. May be repeated."`
	JSON         bool          `help:"Print JSON."`
}

func (benchOverloadCommand) Help() string {
	return `Serves a snapshot on one processor and asks it from another: as much as it can answer, then --factor times as much, at times that are drawn beforehand; then one caller by itself, and beside another that asks ten times its quota. Exits with 1 if less is answered than 90% of the capacity, if refusals take more than 5 ms, or if the one caller's 99th percentile is more than 1.5 times as high beside the other. On Linux, with two processors to itself.

Example:

    tandem bench overload --store store`
}

func (c *benchOverloadCommand) Run(e *environment) (err error) {
	store, digest, err := openStore(e, c.Store, c.Snapshot, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	target, err := attack.ReadTarget(e.ctx, store, digest)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to run it as server: %w", err)
	}
	o := overload.Options{
		Serve: func(tokens string) []string {
			serve := []string{
				program, "serve", "--snapshot", string(digest), "--listen", "127.0.0.1:0", "--log-format", "json", "--drain-delay", "0s",
				"--store", c.Store, "--tokens", tokens,
			}
			if c.Cache != "" {
				serve = append(serve, "--cache", c.Cache)
			}
			return append(serve, c.Serve...)
		},
		Users: target.Users, K: c.K, RecallTarget: c.RecallTarget, Factor: c.Factor, Time: c.Time, Deadline: c.Deadline, Seed: c.Seed,
		Progress: func(phase string) { fmt.Fprintf(e.stderr, "%s %s\n", time.Now().Format(time.TimeOnly), phase) },
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	report, err := overload.Run(e.ctx, o)
	if err != nil {
		return err
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, report)
	} else {
		err = report.WriteTable(e.stdout)
	}
	if err == nil && len(report.Broken) > 0 {
		err = fmt.Errorf("%d bounds were broken: %s", len(report.Broken), strings.Join(report.Broken, "; "))
	}
	return err
}
