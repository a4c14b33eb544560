package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tandem-ann/tandem/bench"
	"github.com/tandem-ann/tandem/server/reportpage"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// benchCommand is `tandem bench`.
type benchCommand struct {
	Snapshot     benchSnapshotCommand     `cmd:"" default:"withargs" help:"Measure recall against latency on a snapshot; the default."`
	Engines      benchEnginesCommand      `cmd:"" help:"Measure our index and other engines on a set of vectors."`
	Filters      benchFiltersCommand      `cmd:"" help:"Measure our index and other engines under eligibility filters."`
	Switches     benchSwitchesCommand     `cmd:"" help:"Measure a server while it switches between two snapshots."`
	Attack       benchAttackCommand       `cmd:"" help:"Measure a server while others send it the worst requests."`
	Overload     benchOverloadCommand     `cmd:"" help:"Measure a server that is asked more than it can answer."`
	Capacity     benchCapacityCommand     `cmd:"" help:"Measure this machine for tandem capacity, and hold its simulation against clusters."`
	Cluster      benchClusterCommand      `cmd:"" help:"Judge and measure a cluster of processes that it starts, while it makes them fail."`
	Live         benchLiveCommand         `cmd:"" help:"Measure takedowns and other live events, on servers that it starts."`
	Overlay      benchOverlayCommand      `cmd:"" help:"Measure queries of a snapshot that takedowns and fresh apps lie over."`
	Recall       benchRecallCommand       `cmd:"" help:"Measure how soon a server finds that recall is low, and goes back."`
	Record       benchRecordCommand       `cmd:"" help:"Serve a snapshot and write down what audits find."`
	Simulate     benchSimulateCommand     `cmd:"" help:"Count false alarms in hours of audits like those of a record."`
	Alignment    benchAlignmentCommand    `cmd:"" help:"Measure how often the gate axes is wrong, on towers that it makes."`
	Interleaving benchInterleavingCommand `cmd:"" help:"Simulate experiments, and how many requests they take: interleaved, or by comparing arms."`
	OffPolicy    benchOffPolicyCommand    `cmd:"" name:"offpolicy" help:"Simulate what a release that explores logs, and how well policies are evaluated that were not served."`
}

// benchSnapshotCommand is `tandem bench snapshot`.
type benchSnapshotCommand struct {
	requiredStoreFlags
	Snapshot     string     `arg:"" optional:"" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`
	Target       shard.Kind `default:"apps" enum:"apps,users" placeholder:"TOWER" help:"Tower to search, apps or users; the other one asks (default ${default})."`
	K            []int      `default:"10,100" placeholder:"N" help:"How many candidates to ask for (default ${default})."`
	Queries      int        `default:"1000" placeholder:"N" help:"Queries to ask at each setting (default ${default})."`
	Ef           []int      `placeholder:"N" help:"Efforts to sweep; by default from k to 32 times k."`
	RecallTarget []float64  `default:"0.9,0.95,0.99,0.999" placeholder:"X" help:"Recall targets (default ${default})."`
	Filter       string     `placeholder:"CEL" help:"Eligibility filter of all queries."`
	Bind         []string   `sep:"none" placeholder:"NAME=JSON" help:"Value of user.NAME in the filter. May be repeated."`
	Segment      string     `placeholder:"NAME" help:"Segment of all queries."`
	Walk         bool       `help:"Walk the graph in the sweep even where the exact scan is cheaper."`
	Rounds       int        `default:"3" placeholder:"N" help:"How often each setting takes its turn (default ${default})."`
	Seed         uint64     `default:"0" placeholder:"N" help:"Seed of the order of the turns (default ${default})."`
	JSON         string     `placeholder:"FILE" help:"Write the report as JSON too; - prints it instead of the table."`
	htmlFlag
}

func (benchSnapshotCommand) Help() string {
	return `Asks real queries, which the build has not seen, at each effort and recall target, and compares the answers with an exact scan. One query is asked at a time; its shards share the processors, as in the server. For one thread, run it with GOMAXPROCS=1.

Example:

    tandem bench --store store --k 10,100 --json bench.json`
}

// maxK is the largest k that a server answers.
const maxK = 10_000

// check returns an error for a flag out of bounds that [bench.Options] would take:
// a 0 there is a default, and its k may be larger.
func (c *benchSnapshotCommand) check() error {
	switch {
	case c.Queries < 1 || c.Queries > bench.MaxQueries:
		return usagef("--queries is %d, want 1 to %d", c.Queries, bench.MaxQueries)
	case c.Rounds < 1 || c.Rounds > bench.MaxRounds:
		return usagef("--rounds is %d, want 1 to %d", c.Rounds, bench.MaxRounds)
	}
	for _, k := range c.K {
		if k < 1 || k > maxK {
			return usagef("--k is %d, want 1 to %d", k, maxK)
		}
	}
	return nil
}

func (c *benchSnapshotCommand) Run(e *environment) (err error) {
	values, err := bindings(c.Bind)
	if err != nil {
		return err
	}
	if err := errors.Join(c.check(), c.htmlFlag.check()); err != nil {
		return err
	}
	p := newProgress(e.stderr)
	defer p.Done()
	o := bench.Options{
		Target: c.Target, K: c.K, Queries: c.Queries, Ef: c.Ef, Targets: c.RecallTarget,
		Filter: c.Filter, Bindings: values, Segment: c.Segment, Walk: c.Walk, Rounds: c.Rounds, Seed: c.Seed,
	}
	started := false
	o.Progress = func(done, total int64) {
		if !started {
			p.Stage("bench", total)
			started = true
		}
		p.Step(done)
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
	found, err := bench.Run(e.ctx, s, o)
	if errors.As(err, new(*eligibility.Error)) || errors.As(err, new(*eligibility.BindError)) || errors.As(err, new(*shard.SegmentError)) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	p.Done()
	if err := c.write(reportpage.Bench, fmt.Sprintf("Recall against latency on snapshot %s", found.Snapshot.Short()), found); err != nil {
		return err
	}
	if c.JSON == "-" {
		return found.WriteJSON(e.stdout)
	}
	if c.JSON != "" {
		if err := writeFile(c.JSON, found.WriteJSON); err != nil {
			return err
		}
	}
	return found.WriteTable(e.stdout)
}

// writeFile writes a file that does not matter enough to be written atomically.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
