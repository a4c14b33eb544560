package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/bench/cluster"
	"github.com/tandem-ann/tandem/builder/synthetic"
	"github.com/tandem-ann/tandem/shard/wording"
)

// benchClusterCommand is `tandem bench cluster`.
type benchClusterCommand struct {
	Chaos benchClusterChaosCommand `cmd:"" help:"Judge a cluster while faults are drawn from a seed."`
	Rows  benchClusterRowsCommand  `cmd:"" help:"Measure a cluster, and each fault by itself, beside what is wanted."`
}

// clusterBenchFlags say which cluster is started, and what it is asked.
type clusterBenchFlags struct {
	Store     string        `placeholder:"STORE" help:"Where to make a store: a new folder, or a URL such as s3://bucket?endpoint=http://127.0.0.1:7070&prefix=bench/, in which nothing is; by default a temporary folder, which is removed at the end."`
	Apps      int           `default:"2000" placeholder:"N" help:"Apps of each snapshot (default ${default})."`
	Users     int           `default:"200" placeholder:"N" help:"Users that ask (default ${default})."`
	Dim       int           `default:"32" placeholder:"N" help:"Dimension of the towers (default ${default})."`
	Shards    int           `default:"4" placeholder:"N" help:"Shards of each tower (default ${default})."`
	Nodes     int           `default:"3" placeholder:"N" help:"Nodes (default ${default})."`
	Replicas  int           `default:"2" placeholder:"N" help:"Nodes that are to hold each shard (default ${default})."`
	Routers   int           `default:"2" placeholder:"N" help:"Routers (default ${default})."`
	Rate      float64       `default:"50" placeholder:"X" help:"Queries a second (default ${default})."`
	Skew      float64       `default:"1.1" placeholder:"X" help:"How much more often some users ask than others: the exponent of Zipf's law (default ${default})."`
	Deadline  time.Duration `default:"2s" placeholder:"TIME" help:"How long callers wait (default ${default})."`
	Fence     time.Duration `default:"5s" placeholder:"TIME" help:"The --live-fence of servers (default ${default})."`
	Away      time.Duration `default:"60s" placeholder:"TIME" help:"How long the store and the list of members are away, in rows (default ${default})."`
	OldBinary string        `placeholder:"FILE" type:"existingfile" help:"An older tandem, for rolling upgrades from it and back."`
	Seed      uint64        `default:"1" placeholder:"N" help:"Seed of the towers, of what is asked and when, and of faults (default ${default})."`
	JSON      bool          `help:"Print JSON."`
}

// clusterReport is what a measurement of a cluster gives.
type clusterReport interface {
	WriteTable(w io.Writer) error
	Broken() []string
}

// run makes a store and has a cluster measured.
func (f *clusterBenchFlags) run(e *environment, measure func(o cluster.Options) (clusterReport, error)) (err error) {
	dir, err := os.MkdirTemp("", "tandem-bench-cluster-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	location := f.Store
	if location == "" {
		location = filepath.Join(dir, "store")
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to run it as servers: %w", err)
	}
	o := cluster.Options{
		Location: location, Program: program, Old: f.OldBinary, Nodes: f.Nodes, Replicas: f.Replicas, Routers: f.Routers,
		Snapshots: make([]string, 2), Rate: f.Rate, Skew: f.Skew, Deadline: f.Deadline, Fence: f.Fence, Away: f.Away, Seed: f.Seed,
		Progress: func(what string) { fmt.Fprintf(e.stderr, "%s %s\n", time.Now().Format(time.TimeOnly), what) },
	}
	for i := range f.Apps {
		o.Apps = append(o.Apps, synthetic.AppID(int64(i)))
	}
	for i := range f.Users {
		o.Users = append(o.Users, synthetic.UserID(int64(i)))
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	if f.Store != "" {
		if err := isNew(e, location); err != nil {
			return err
		}
	}
	for i := range o.Snapshots {
		if o.Snapshots[i], err = f.make(e, dir, location, i); err != nil {
			return err
		}
	}
	report, err := measure(o)
	if report != nil {
		if f.JSON {
			err = errors.Join(err, wording.WriteJSON(e.stdout, report))
		} else {
			err = errors.Join(err, report.WriteTable(e.stdout))
		}
		if broken := report.Broken(); err == nil && len(broken) > 0 {
			err = fmt.Errorf("it is not as it should be: %s", strings.Join(broken, "; "))
		}
	}
	return err
}

// make builds one snapshot of generated towers.
func (f *clusterBenchFlags) make(e *environment, dir, location string, number int) (digest string, err error) {
	version := strconv.Itoa(number + 1)
	towers, cache := filepath.Join(dir, "towers-"+version), filepath.Join(dir, "cache")
	for _, args := range [][]string{
		{
			"generate", "--out", towers, "--apps", strconv.Itoa(f.Apps), "--users", strconv.Itoa(f.Users),
			"--dim", strconv.Itoa(f.Dim), "--interactions-per-user", "0", "--seed", strconv.FormatUint(f.Seed+uint64(number), 10),
		},
		{
			"build", "--apps", filepath.Join(towers, synthetic.AppsFile), "--users", filepath.Join(towers, synthetic.UsersFile), "--store", location,
			"--cache", cache, "--model", "bench", "--model-version", version, "--metric", "dot", "--shards", strconv.Itoa(f.Shards),
		},
	} {
		var said, log bytes.Buffer
		if code := run(e.ctx, args, &said, &log); code != 0 && code != exitUnfit {
			return "", fmt.Errorf("%s: exit code %d: %s", args[0], code, strings.TrimSpace(log.String()))
		}
		if words := strings.Fields(said.String()); len(words) > 0 {
			digest = words[len(words)-1]
		}
	}
	return digest, nil
}

// benchClusterChaosCommand is `tandem bench cluster chaos`.
type benchClusterChaosCommand struct {
	clusterBenchFlags
	Time   time.Duration `default:"1m" placeholder:"TIME" help:"How long faults go on (default ${default})."`
	Faults []string      `placeholder:"FAULT" help:"Faults to draw from (default all); a name that is none has them listed."`
}

func (benchClusterChaosCommand) Help() string {
	return `Makes a store with two small snapshots, starts one server with all shards, nodes and routers on loopback, and asks the routers at times that are drawn beforehand, while apps are taken down and restored, releases are switched, and one thing after the other goes wrong: nodes are killed, stopped, slowed, cut off, the store and the list of members are away, processes are restarted, nodes join and leave, routers are killed, disks are full, and the store is restored to some seconds before. Each answer is compared with what one server answers. Exits with 1 if one was wrong, of several snapshots, or had an app later than its bound after it was taken down, or was of an earlier position than the same process had answered from, and if a query failed that the fence did not demand, and that was not on its way to a router that was killed. With the same --seed the same faults come again. For Linux.

Example:

    tandem bench cluster chaos --time 30m --seed 7`
}

func (c *benchClusterChaosCommand) Run(e *environment) error {
	if c.Time <= 0 {
		return usagef("--time is %s, want more than 0", c.Time)
	}
	if err := cluster.CheckFaults(c.Faults); err != nil {
		return usageError{err}
	}
	fmt.Fprintf(e.stderr, "seed %d\n", c.Seed)
	return c.run(e, func(o cluster.Options) (clusterReport, error) {
		o.Time, o.Faults = c.Time, c.Faults
		report, err := cluster.Chaos(e.ctx, o)
		if report == nil {
			return nil, err
		}
		return report, err
	})
}

// benchClusterRowsCommand is `tandem bench cluster rows`.
type benchClusterRowsCommand struct {
	clusterBenchFlags
	Time time.Duration `default:"10s" placeholder:"TIME" help:"How long each measurement goes on that is of no fault (default ${default})."`
	Row  []string      `placeholder:"ROW" help:"Rows to measure (default all); a name that is none has them listed."`
}

func (benchClusterRowsCommand) Help() string {
	return `Starts a cluster as tandem bench cluster chaos does, and measures it: whether its answers are those of one server, how much later they are, for one client that asks both in turn, what one server takes for a query beside --old-binary, whether goroutines and connections grow while routers are asked at a steady --rate for --time, and what becomes of queries while each fault goes on by itself, with a release during it; then a router, with all servers on one processor, that is asked twice what it can answer. Exits with 1 if something is not as it is wanted, and says what. Compare on a machine with nothing else to do.

Examples:

    tandem bench cluster rows --apps 10000 --shards 16 --row topk
    tandem bench cluster rows --row growth --nodes 4 --time 10m
    tandem bench cluster rows --row kill,stop,slow --old-binary tandem-before`
}

func (c *benchClusterRowsCommand) Run(e *environment) error {
	if c.Time <= 0 {
		return usagef("--time is %s, want more than 0", c.Time)
	}
	if err := cluster.CheckRows(c.Row); err != nil {
		return usageError{err}
	}
	return c.run(e, func(o cluster.Options) (clusterReport, error) {
		o.Time = c.Time
		report, err := cluster.Rows(e.ctx, o, c.Row)
		if report == nil {
			return nil, err
		}
		return report, err
	})
}
