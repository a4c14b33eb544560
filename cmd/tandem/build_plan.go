package main

import (
	"fmt"
	"io"
	"math"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

type buildPlanCommand struct {
	buildFlags

	TaskSize byteFlag `default:"512MiB" placeholder:"SIZE" help:"How many bytes of files a task reads at least: whole files, of which one that is larger is a task by itself (default ${default})."`
	Price    *float64 `placeholder:"X" help:"Price of an hour of a machine with --threads processors, in any currency, for the cost of each step."`
	JSON     bool     `help:"Print the plan as JSON."`
}

func (buildPlanCommand) Help() string {
	return `Takes the flags of tandem build, looks at footers and at the first rows, and at JSON Lines whole, and writes to the store what all steps of the build must agree on. It refuses what can be known by then: dimensions, types, segments, gates, the previous snapshot. It prints what the steps take, before anyone pays for them, and as the last line the id of the build, which the same inputs and flags give again.

Example:

    tandem build plan --apps s3://towers/apps/ --users s3://towers/users/ \
        --model feed --model-version 1 --metric dot --shards 64 --store s3://store

Then come tandem build partition, once for each task; tandem build shard, once for each shard; and tandem build commit. They open the inputs by the paths that were given here. A build of which nothing is written for seven days is deleted by tandem snapshot gc.

Exit codes: 1 try again; 2 and 5 do not: wrong use, inputs that are at fault.`
}

func (c *buildPlanCommand) Run(e *environment) (err error) {
	o, err := c.checked()
	if err != nil {
		return err
	}
	if c.Price != nil && !(*c.Price >= 0) {
		return usagef("--price is %v, want a number from 0", *c.Price)
	}
	store, moving, err := c.create(e)
	if err != nil {
		return err
	}
	defer moving.Done()
	defer closing(&err, store)
	if err := c.ask(e, store, &o); err != nil {
		return err
	}
	shown := newProgress(e.stderr)
	defer shown.Done()
	o.Progress = shown
	p, id, err := builder.MakePlan(e.ctx, store, o, int64(c.TaskSize))
	if err != nil {
		return stepError(err)
	}
	shown.Done()
	report := planReportOf(p, id, c.Price, o.Threads)
	if c.JSON {
		return wording.WriteJSON(e.stdout, report)
	}
	return report.write(e.stdout, o.Threads, c.Price != nil)
}

// planReport is what a plan says, as JSON.
type planReport struct {
	Build  manifest.Digest `json:"build"`
	Dim    int             `json:"dim"`
	Metric string          `json:"metric"`
	Apps   plannedTower    `json:"apps"`
	Users  plannedTower    `json:"users"`
	Tasks  []plannedTask   `json:"tasks"`
	Steps  []plannedStep   `json:"steps"`
}

type plannedTower struct {
	Shards     int           `json:"shards"`
	FirstIndex int           `json:"first_index"`
	Format     string        `json:"format"`
	Rows       int64         `json:"rows"` // as the files say: those too that will be rejected
	Files      []plannedFile `json:"files"`
}

type plannedFile struct {
	File  int    `json:"file"`
	Path  string `json:"path"`
	Name  string `json:"name"`
	Rows  int64  `json:"rows"`
	Bytes int64  `json:"bytes"`
}

type plannedTask struct {
	Task  int        `json:"task"`
	Tower shard.Kind `json:"tower"`
	Reads plan.Reads `json:"reads"`
	Files []int      `json:"files"`
	Bytes int64      `json:"bytes"`
}

// plannedStep is what one kind of step takes.
type plannedStep struct {
	Step   string `json:"step"`
	Runs   int    `json:"runs"`
	Memory int64  `json:"memory_bytes"` // of one run
	Disk   int64  `json:"disk_bytes"`   // likewise, beside the store or its cache
	// CPU is of all runs. It is an estimate.
	CPU  float64  `json:"cpu_seconds"`
	Cost *float64 `json:"cost,omitempty"`
}

// planReportOf estimates what the steps of a plan take.
func planReportOf(p *plan.Plan, id manifest.Digest, price *float64, threads int) *planReport {
	r := &planReport{Build: id, Dim: p.Dim, Metric: p.Metric.String()}
	var bytes, rows int64
	var indexing float64
	dim := float64(p.Dim)
	sizes := sizesOf(p)
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		t := p.Tower(kind)
		of := plannedTower{Shards: t.Shards, FirstIndex: p.Index(kind, 0), Format: string(t.Survey.Format), Rows: t.Survey.Total(), Files: []plannedFile{}}
		for i, f := range t.Rows {
			of.Files = append(of.Files, plannedFile{i, f.Place, f.Name, t.Survey.Rows[i], f.Size})
		}
		if kind == shard.Apps {
			r.Apps = of
		} else {
			r.Users = of
		}
		rows += of.Rows
		indexing += float64(of.Rows) * (indexRow + indexItem*dim) * math.Log(float64(max(of.Rows/int64(t.Shards), 10))) / math.Log(indexRows)
	}
	r.Tasks = []plannedTask{}
	for i, t := range p.Tasks {
		task := plannedTask{Task: i, Tower: t.Tower, Reads: t.Reads, Bytes: t.Bytes}
		for f := range t.Files {
			task.Files = append(task.Files, t.First+f)
		}
		r.Tasks = append(r.Tasks, task)
		bytes += t.Bytes
	}
	r.Steps = []plannedStep{
		{Step: "partition", Runs: len(p.Tasks), Memory: sizes.partition, Disk: 2 * sizes.task, CPU: float64(bytes)*digestByte + float64(rows)*(partitionRow+partitionItem*dim)},
		{Step: "shard", Runs: p.Shards(), Memory: sizes.shard, Disk: 2 * sizes.file, CPU: indexing},
		{Step: "commit", Runs: 1, Memory: sizes.commit, Disk: sizes.files, CPU: float64(rows) * (commitRow + commitItem*dim)},
	}
	if price != nil {
		for i := range r.Steps {
			cost := r.Steps[i].CPU / float64(threads) / 3600 * *price
			r.Steps[i].Cost = &cost
		}
	}
	return r
}

// write prints the report for people.
func (r *planReport) write(w io.Writer, threads int, priced bool) error {
	t := newTable(w)
	fmt.Fprintln(t, "tower\trows\tfiles\tshards\trows a shard\tindex of build shard")
	for _, of := range []struct {
		kind shard.Kind
		plannedTower
	}{{shard.Apps, r.Apps}, {shard.Users, r.Users}} {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%d to %d\n", of.kind, wording.Count(of.Rows), len(of.Files), of.Shards,
			wording.Count(of.Rows/int64(of.Shards)), of.FirstIndex, of.FirstIndex+of.Shards-1)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	t = newTable(w)
	head := "\nstep\truns\tmemory of each\tdisk of each\tCPU of all"
	if priced {
		head += "\tcost of all"
	}
	fmt.Fprintln(t, head)
	for _, s := range r.Steps {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s", s.Step, s.Runs, wording.Bytes(s.Memory), wording.Bytes(s.Disk), cpuTime(s.CPU))
		if s.Cost != nil {
			fmt.Fprintf(t, "\t%.2f", *s.Cost)
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	note := "rows are what the files say, exactly; all else is estimated, memory as a bound (docs/build-at-scale.md)"
	if priced {
		note += fmt.Sprintf("; cost is CPU time on machines of %s that are never idle", wording.Plural(threads, "thread"))
	}
	_, err := fmt.Fprintf(w, "\n%s\nthe build is\n%s\n", note, r.Build)
	return err
}

// cpuTime formats seconds of CPU for people, as no more exact than they are.
func cpuTime(s float64) string {
	switch {
	case s < 60:
		return fmt.Sprintf("%.0f s", s)
	case s < 3600:
		return fmt.Sprintf("%.0f min", s/60)
	}
	return fmt.Sprintf("%.0f h", s/3600)
}
