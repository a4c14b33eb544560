package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/bench/attack"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchAttackCommand is `tandem bench attack`.
type benchAttackCommand struct {
	requiredStoreFlags
	Snapshot    string        `arg:"" optional:"" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`
	Seed        uint64        `default:"1" placeholder:"N" help:"Seed of what is sent (default ${default})."`
	Time        time.Duration `default:"1h" placeholder:"TIME" help:"How long to attack (default ${default})."`
	Connections int           `default:"64" placeholder:"N" help:"Attackers at a time, each with connections of its own (default ${default})."`
	Kinds       []string      `placeholder:"KIND" help:"Kinds of attack to send (default all); a name that is none has them listed."`
	Quiet       time.Duration `default:"1m" placeholder:"TIME" help:"How long to ask light queries before and after (default ${default})."`
	Rest        time.Duration `default:"1m" placeholder:"TIME" help:"How long to ask nothing before the attack, and after it (default ${default})."`
	Rate        int           `default:"50" placeholder:"N" help:"Light queries a second (default ${default})."`
	MaxMemory   byteFlag      `placeholder:"SIZE" help:"Memory that the server may take, mapped files aside (default 1 GiB)."`
	Server      string        `placeholder:"HOST:PORT" help:"Attack the server that listens there, on loopback, and measure nothing."`
	JSON        bool          `help:"Print JSON."`
}

func (benchAttackCommand) Help() string {
	return `Serves a snapshot on one processor, and asks it light queries from another before, while and after attackers send it the worst legal and illegal requests that are known to us. Exits with 1 if the server's memory, its latency or its answers broke a bound, and says which. With the same --seed the same is sent; --kinds finds out which of it did it. On Linux, with two processors to itself.

Example:

    tandem bench attack --store store --time 2m`
}

func (c *benchAttackCommand) Run(e *environment) (err error) {
	switch {
	case c.Time <= 0 || c.Quiet <= 0 || c.Rest <= 0:
		return usagef("--time, --quiet and --rest are %s, %s and %s, want more than 0", c.Time, c.Quiet, c.Rest)
	case c.Connections < 1 || c.Connections > attack.MaxAttackers:
		return usagef("--connections is %d, want 1 to %d", c.Connections, attack.MaxAttackers)
	case c.Rate < 1 || c.Rate > attack.MaxRate:
		return usagef("--rate is %d, want 1 to %d", c.Rate, attack.MaxRate)
	}
	if err := attack.CheckKinds(c.Kinds); err != nil {
		return usageError{err}
	}
	address := ""
	if c.Server != "" {
		if address, err = plainAddress(c.Server); err != nil {
			return err
		}
	}
	store, digest, err := openStore(e, c.Store, c.Snapshot, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	target, err := attack.ReadTarget(e.ctx, store, digest)
	if err != nil {
		return err
	}
	if address != "" {
		return c.send(e, address, target)
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to run it as server and attackers: %w", err)
	}
	flags := []string{"--store", c.Store}
	if c.Cache != "" {
		flags = append(flags, "--cache", c.Cache)
	}
	attackers := append([]string{
		program, "bench", "attack", string(digest), "--json", "--seed", strconv.FormatUint(c.Seed, 10),
		"--time", c.Time.String(), "--connections", strconv.Itoa(c.Connections),
	}, flags...)
	if len(c.Kinds) > 0 {
		attackers = append(attackers, "--kinds", strings.Join(c.Kinds, ","))
	}
	report, err := attack.Run(e.ctx, attack.Options{
		Serve:  append([]string{program, "serve", "--snapshot", string(digest), "--listen", "127.0.0.1:0", "--log-format", "json", "--drain-delay", "0s"}, flags...),
		Attack: func(address string) []string { return append(slices.Clip(attackers), "--server", address) },
		Users:  target.Users, Time: c.Time, Quiet: c.Quiet, Rest: c.Rest, Rate: c.Rate, MaxMemory: int64(c.MaxMemory),
		Progress: func(phase string) { fmt.Fprintf(e.stderr, "%s %s\n", time.Now().Format(time.TimeOnly), phase) },
	})
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

// send attacks a server that runs.
func (c *benchAttackCommand) send(e *environment, address string, target *attack.Target) error {
	o := attack.SendOptions{Address: address, Target: target, Seed: c.Seed, Attackers: c.Connections, Time: c.Time, Kinds: c.Kinds}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	sent, err := attack.Send(e.ctx, o)
	if err != nil {
		return err
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, sent)
	}
	return sent.WriteTable(e.stdout)
}
