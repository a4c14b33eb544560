package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tandem-ann/tandem/bench/recall"
	"github.com/tandem-ann/tandem/shard/wording"
)

// recallLoadFlags are what live queries are.
type recallLoadFlags struct {
	QPS      int     `name:"qps" default:"50" placeholder:"N" help:"Queries a second (default ${default})."`
	K        int     `default:"100" placeholder:"N" help:"How many candidates they ask for (default ${default})."`
	Segments float64 `default:"0.2" placeholder:"X" help:"Share of them that ask for a segment, if there are any (default ${default})."`
	Seed     uint64  `default:"1" placeholder:"N" help:"Seed of who asks and of what is cut (default ${default})."`
	AuditCPU float64 `name:"audit-cpu" default:"0.02" placeholder:"X" help:"Share of one processor that audits may take (default ${default})."`
}

func (f *recallLoadFlags) check() error {
	switch {
	case f.QPS < 1 || f.QPS > 10_000:
		return usagef("--qps is %d, want 1 to 10000", f.QPS)
	case f.K < 1 || f.K > maxK:
		return usagef("--k is %d, want 1 to %d", f.K, maxK)
	case !(f.Segments >= 0 && f.Segments <= 1):
		return usagef("--segments is %v, want 0 to 1", f.Segments)
	case !(f.AuditCPU > 0 && f.AuditCPU <= 1):
		return usagef("--audit-cpu is %v, want more than 0, up to 1", f.AuditCPU)
	}
	return nil
}

func (f *recallLoadFlags) load() recall.Load {
	return recall.Load{QPS: f.QPS, K: f.K, Segments: f.Segments, Seed: f.Seed}
}

// benchRecallCommand is `tandem bench recall`.
type benchRecallCommand struct {
	requiredStoreFlags
	Snapshot string `arg:"" optional:"" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`
	recallLoadFlags
	Runs  int           `default:"20" placeholder:"N" help:"How often (default ${default})."`
	Cut   float64       `default:"0.2" placeholder:"X" help:"Share of the links of the graph to cut (default ${default})."`
	Limit time.Duration `default:"2m" placeholder:"TIME" help:"How soon there is to be an alarm (default ${default})."`
	Least int           `default:"19" placeholder:"N" help:"In how many runs at least, and how many are to go back (default ${default})."`
	JSON  bool          `help:"Print JSON."`
}

func (benchRecallCommand) Help() string {
	return `Serves a copy of a snapshot on loopback, asks it live queries, and has a release with --auto-rollback replace it by one that lacks links of the graph, with valid checksums. Takes the time until there is an alarm, and until the snapshot before answers again. Exits with 1 if fewer than --least runs had an alarm, or went back, in time.

Example:

    tandem bench recall --store store --runs 20`
}

func (c *benchRecallCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if c.Runs < 1 || c.Least < 0 || c.Limit <= 0 || !(c.Cut >= 0 && c.Cut < 1) {
		return usagef("--runs, --least, --limit and --cut are %d, %d, %s and %v, want at least 1, at least 0, more than 0, and 0 up to below 1", c.Runs, c.Least, c.Limit, c.Cut)
	}
	store, digest, err := openStore(e, c.Store, c.Snapshot, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	report, err := recall.Run(e.ctx, store, digest, recall.Options{
		Load: c.load(), CPU: c.AuditCPU, Runs: c.Runs, Cut: c.Cut, Limit: c.Limit,
		Progress: func(text string) { fmt.Fprintf(e.stderr, "%s %s\n", time.Now().Format(time.TimeOnly), text) },
	})
	if err != nil {
		return err
	}
	if c.JSON {
		err = wording.WriteJSON(e.stdout, report)
	} else {
		err = report.WriteTable(e.stdout)
	}
	if least := min(c.Least, c.Runs); err == nil && (report.Raised < least || report.Back < least) {
		err = fmt.Errorf("%d runs had an alarm and %d went back, %d are to", report.Raised, report.Back, least)
	}
	return err
}

// benchRecordCommand is `tandem bench record`.
type benchRecordCommand struct {
	requiredStoreFlags
	Snapshot string `arg:"" optional:"" help:"The snapshot's digest or the beginning of it; by default what is released to most traffic."`
	recallLoadFlags
	Time time.Duration `default:"1h" placeholder:"TIME" help:"How long to serve (default ${default})."`
	Out  string        `required:"" placeholder:"FILE" help:"Where to write the record, which is JSON; - is standard output, and nothing else is printed."`
}

func (benchRecordCommand) Help() string {
	return `Serves a snapshot on loopback, asks it live queries, and writes the recall of each that was audited as JSON, in their order. Exits with 1 if there was an alarm.

Example:

    tandem bench record --store store --out record.json`
}

func (c *benchRecordCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if c.Time <= 0 {
		return usagef("--time is %s, want more than 0", c.Time)
	}
	store, digest, err := openStore(e, c.Store, c.Snapshot, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	r, err := recall.Record(e.ctx, store, digest, c.AuditCPU, c.load(), c.Time)
	if err != nil {
		return err
	}
	if c.Out == "-" {
		if err := r.WriteJSON(e.stdout); err != nil {
			return err
		}
	} else if err := c.tell(e, r); err != nil {
		return err
	}
	if r.Alarms > 0 {
		return fmt.Errorf("%s", wording.Plural(r.Alarms, "alarm"))
	}
	return nil
}

// tell writes the record to its file, and says what is in it.
func (c *benchRecordCommand) tell(e *environment, r *recall.Recording) error {
	if err := writeFile(c.Out, r.WriteJSON); err != nil {
		return err
	}
	_, err := fmt.Fprintf(e.stdout, "%d audits in %.0f s, of which %.4f s a second of a processor, %.2f ms at a stretch at most; %d left out; %d queries failed, %d were not asked\n",
		len(r.Audits), r.Seconds, r.Used/r.Seconds, 1e3*r.Longest, r.LeftOut, r.Failed, r.Late)
	return err
}

// benchSimulateCommand is `tandem bench simulate`.
type benchSimulateCommand struct {
	Record     string        `arg:"" placeholder:"FILE" help:"What tandem bench record has written."`
	Hours      int           `default:"12000" placeholder:"N" help:"Arm-hours to simulate of each kind (default ${default})."`
	Generation time.Duration `default:"24h" placeholder:"TIME" help:"How long a generation answers, after which everything begins anew (default ${default})."`
	Segments   int           `default:"0" placeholder:"N" help:"Segments of the snapshot (default as many as the record has)."`
	Seed       uint64        `default:"1" placeholder:"N" help:"Seed of what is drawn (default ${default})."`
	JSON       bool          `help:"Print JSON."`
}

func (benchSimulateCommand) Help() string {
	return `Draws audits from a record, for as many hours of an arm, and has the sequences of servers look at them: as they were recorded, and changed so that the mean recall of each stratum is at its floor, in several ways, so that every alarm is a false one and as likely as it can be. Exits with 1 if there was more than one alarm in 12,000 arm-hours.

Example:

    tandem bench simulate record.json`
}

// falseAlarmHours is in how many arm-hours there may be a false alarm.
const falseAlarmHours = 12_000

func (c *benchSimulateCommand) Run(e *environment) (err error) {
	if c.Hours < 1 || c.Generation < time.Hour || c.Segments < 0 {
		return usagef("--hours, --generation and --segments are %d, %s and %d, want at least 1, 1h and 0", c.Hours, c.Generation, c.Segments)
	}
	f, err := os.Open(c.Record)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	record, err := recall.ReadRecording(f)
	if err != nil {
		return err
	}
	p := newProgress(e.stderr)
	defer p.Done()
	p.Stage("simulate arm-hours", int64(c.Hours))
	report, err := recall.Simulate(e.ctx, record, recall.SimulateOptions{
		Hours: c.Hours, Generation: c.Generation, Segments: c.Segments, Seed: c.Seed, Progress: func(hours int) { p.Step(int64(hours)) },
	})
	if err != nil {
		return err
	}
	p.Done()
	if c.JSON {
		err = wording.WriteJSON(e.stdout, report)
	} else {
		err = report.WriteTable(e.stdout)
	}
	for _, r := range report.Runs {
		if err == nil && r.Alarms > max(1, r.Hours/falseAlarmHours) {
			err = fmt.Errorf("%s: %d alarms in %d arm-hours, want at most one in %d", r.What, r.Alarms, r.Hours, falseAlarmHours)
		}
	}
	return err
}
