package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/bench/capacity/machine"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchCapacityCommand is `tandem bench capacity`.
type benchCapacityCommand struct {
	Measure  benchCapacityMeasureCommand  `cmd:"" help:"Measure this machine, for tandem capacity --measured."`
	Validate benchCapacityValidateCommand `cmd:"" help:"Start clusters, and compare what is measured of them with what is simulated."`
	Large    benchCapacityLargeCommand    `cmd:"" help:"Build a large snapshot in steps, serve it, and compare both with what was said of them."`
}

// capacityBenchFlags say how processes are measured.
type capacityBenchFlags struct {
	Dim    int           `default:"64" placeholder:"N" help:"Dimension of the towers (default ${default})."`
	K      int           `default:"100" placeholder:"N" help:"How many candidates queries ask for (default ${default})."`
	Recall float64       `default:"0.99" placeholder:"X" help:"Recall that they aim at (default ${default})."`
	Time   time.Duration `default:"3s" placeholder:"TIME" help:"How long each turn of a measurement takes (default ${default})."`
	Rounds int           `default:"5" placeholder:"N" help:"Turns of each, of which the medians count (default ${default})."`
	Seed   uint64        `default:"1" placeholder:"N" help:"Seed of the towers, and of what is asked and when (default ${default})."`
}

// options makes a folder, which the caller removes.
func (f *capacityBenchFlags) options(e *environment) (o machine.Options, err error) {
	o = machine.Options{
		Dim: f.Dim, K: f.K, Target: f.Recall, Time: f.Time, Rounds: f.Rounds, Seed: f.Seed, Make: makeStore,
		Progress: func(what string) { fmt.Fprintf(e.stderr, "%s %s\n", time.Now().Format(time.TimeOnly), what) },
	}
	if o.Program, err = os.Executable(); err != nil {
		return o, fmt.Errorf("find this program, to run it as servers: %w", err)
	}
	return o, nil
}

// makeStore builds generated towers into a new store, and releases the snapshot.
func makeStore(ctx context.Context, store string, t machine.Towers) (digest string, err error) {
	towers := store + ".towers"
	defer func() { err = errors.Join(err, os.RemoveAll(towers)) }()
	for _, args := range [][]string{
		{
			"generate", "--out", towers, "--apps", strconv.Itoa(t.Apps), "--users", strconv.Itoa(t.Users),
			"--dim", strconv.Itoa(t.Dim), "--interactions-per-user", "0", "--seed", strconv.FormatUint(t.Seed, 10),
		},
		{
			"build", "--apps", filepath.Join(towers, synthetic.AppsFile), "--users", filepath.Join(towers, synthetic.UsersFile), "--store", store,
			"--model", "bench", "--model-version", "1", "--metric", "dot", "--shards", strconv.Itoa(t.Shards),
		},
		{"release", "start", "--store", store, "--override", "a measurement"},
	} {
		if args[0] == "release" {
			args = append(args, digest)
		}
		var said, log bytes.Buffer
		if code := run(ctx, args, &said, &log); code != 0 && code != exitUnfit {
			return "", fmt.Errorf("%s: exit code %d: %s", args[0], code, strings.TrimSpace(log.String()))
		}
		if words := strings.Fields(said.String()); args[0] == "build" && len(words) > 0 {
			digest = words[len(words)-1]
		}
	}
	return digest, nil
}

// inTemporaryFolder gives a measurement a folder within another, or within the system's for temporary
// files, which is removed after it.
func inTemporaryFolder(within string, do func(dir string) error) (err error) {
	dir, err := os.MkdirTemp(within, "tandem-bench-capacity-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return do(dir)
}

// benchCapacityMeasureCommand is `tandem bench capacity measure`.
type benchCapacityMeasureCommand struct {
	capacityBenchFlags
	Rates []float64 `default:"30,100,300" placeholder:"X" help:"How often a process is asked a second (default ${default})."`
	Rows  []int     `default:"10000,50000,250000" placeholder:"N" help:"Sizes of the shards that are searched (default ${default})."`
	Out   string    `default:"-" placeholder:"FILE" help:"Where to write the JSON (default ${default}, standard output)."`
}

func (benchCapacityMeasureCommand) Help() string {
	return `Builds generated towers, and measures what tandem capacity reckons with: how long searches of one shard take by its rows, what calls and queries take of the processors of nodes and routers, how long processors take to wake, and what builds take. Run it on a machine like those that are to serve, with nothing else to do. For Linux.

Example:

    tandem bench capacity measure --out measured.json && tandem capacity --measured measured.json --instance name=a,vcpu=16,memory=128GiB,price=1`
}

func (c *benchCapacityMeasureCommand) Run(e *environment) error {
	o, err := c.options(e)
	if err != nil {
		return err
	}
	o.Rows, o.Rates = c.Rows, c.Rates
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	return inTemporaryFolder("", func(dir string) error {
		o.Dir = dir
		m, err := machine.Measure(e.ctx, o)
		if err != nil {
			return err
		}
		m.Command = fmt.Sprintf("tandem bench capacity measure --dim %d --k %d --recall %v --time %s --rounds %d --seed %d --rates %s --rows %s", c.Dim, c.K, c.Recall, c.Time, c.Rounds, c.Seed, commas(c.Rates), commas(c.Rows))
		if c.Out == "-" {
			return wording.WriteJSON(e.stdout, m)
		}
		return writeFile(c.Out, m.WriteJSON)
	})
}

// commas writes a list as a flag takes it.
func commas[E any](list []E) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
}

// benchCapacityValidateCommand is `tandem bench capacity validate`.
type benchCapacityValidateCommand struct {
	capacityBenchFlags
	Apps   int       `default:"80000" placeholder:"N" help:"Apps of each cluster (default ${default})."`
	Shards []int     `default:"4,16" placeholder:"N" help:"Clusters: how many shards, each on a process of its own (default ${default})."`
	Load   []float64 `default:"0.2,0.4,0.6" placeholder:"X" help:"How much of what the processors can do is asked (default ${default})."`
	JSON   bool      `help:"Print JSON."`
}

func (benchCapacityValidateCommand) Help() string {
	return `Starts a router and processes with a shard each on loopback, measures latencies at the router, CPU and memory, and simulates the same from what is measured of one shard and one router by themselves, in turns with it. Exits with 1 if a figure is off by more than a fifth. The processes share the processors of this machine, which are to have nothing else to do. For Linux.

Example:

    tandem bench capacity validate --rounds 7`
}

func (c *benchCapacityValidateCommand) Run(e *environment) error {
	o, err := c.options(e)
	if err != nil {
		return err
	}
	v := machine.ValidateOptions{Options: o, Apps: c.Apps, Shards: c.Shards, Loads: c.Load}
	if err := v.Validate(); err != nil {
		return usageError{err}
	}
	return inTemporaryFolder("", func(dir string) error {
		v.Dir = dir
		found, err := machine.Validate(e.ctx, v)
		if err != nil {
			return err
		}
		if c.JSON {
			err = wording.WriteJSON(e.stdout, found)
		} else {
			err = found.WriteTable(e.stdout)
		}
		if off := found.Off(); err == nil && len(off) > 0 {
			err = fmt.Errorf("the simulation is off by more than %.0f%%: %s", 100*machine.Wanted, strings.Join(off, "; "))
		}
		return err
	})
}

// benchCapacityLargeCommand is `tandem bench capacity large`.
type benchCapacityLargeCommand struct {
	capacityBenchFlags
	Apps     countFlag `default:"10M" placeholder:"N" help:"Apps, such as 10M (default ${default})."`
	Users    countFlag `default:"20000" placeholder:"N" help:"Users (default ${default})."`
	Shards   int       `default:"4" placeholder:"N" help:"Shards of each tower, and nodes (default ${default})."`
	Threads  int       `default:"${threads}" placeholder:"N" help:"Threads of each step (default all cores, here ${default})."`
	Rate     float64   `default:"100" placeholder:"X" help:"How many queries a second are asked (default ${default})."`
	Recalled int       `name:"compare" default:"200" placeholder:"N" help:"How many answers are compared with exact ones (default ${default})."`
	Measured string    `placeholder:"FILE" type:"existingfile" help:"What tandem bench capacity measure has written (default what was measured of one machine)."`
	Dir      string    `placeholder:"DIR" help:"Where to make a folder for towers and store, which is removed at the end (default the system's for temporary files)."`
	JSON     bool      `help:"Print JSON."`
}

func (benchCapacityLargeCommand) Help() string {
	return `Generates towers, builds them by build plan, partition, shard and commit, each a process of its own, serves the snapshot by a router and a process for each shard, asks it, and prints what all of it took in time, CPU and memory, recall and latency, beside what build plan and capacity said before. 10M apps of 64 components take some 16 GB of disk, reckoned from what 100,000 take; the report tells how much it was. For Linux.

Example:

    tandem bench capacity large --apps 10M --shards 4`
}

func (c *benchCapacityLargeCommand) Run(e *environment) error {
	o, err := c.options(e)
	if err != nil {
		return err
	}
	large := machine.LargeOptions{
		Options: o, Towers: machine.Towers{Apps: int(c.Apps), Users: int(c.Users), Shards: c.Shards, Seed: c.Seed},
		Threads: c.Threads, Rate: c.Rate, Recalled: c.Recalled, Unfit: exitUnfit,
	}
	if err := large.Validate(); err != nil {
		return usageError{err}
	}
	if c.Measured != "" {
		if large.Measured, err = readMeasured(c.Measured); err != nil {
			return usageError{fmt.Errorf("read %s: %w", c.Measured, err)}
		}
	}
	return inTemporaryFolder(c.Dir, func(dir string) error {
		large.Dir = dir
		r, err := machine.Large(e.ctx, large)
		if err != nil {
			return err
		}
		if c.JSON {
			return wording.WriteJSON(e.stdout, r)
		}
		return r.WriteTable(e.stdout)
	})
}
