package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// stepFlags are those of each step of a plan.
type stepFlags struct {
	requiredStoreFlags
	Build   string `required:"" placeholder:"ID" help:"The build, as its plan printed it, or the beginning of that."`
	Threads int    `default:"${threads}" placeholder:"N" help:"Threads to work on; the snapshot does not depend on it (default all cores, here ${default})."`
}

// open opens the store and the plan. The caller calls done.
func (f *stepFlags) open(e *environment, memory int64, p builder.Progress) (*builder.Steps, *snapshots.Store, func(*error), error) {
	if f.Threads < 1 {
		return nil, nil, nil, usagef("threads is %d, want at least 1", f.Threads)
	}
	moving := newTransfers(e.stderr)
	so := f.cacheFlags.options()
	so.Progress, so.Waiting = moving.Transfer, newWaiting(e.stderr)
	store, err := snapshots.OpenStore(e.ctx, f.Store, so)
	if err != nil {
		moving.Done()
		return nil, nil, nil, err
	}
	done := func(err *error) {
		closing(err, store)
		moving.Done()
	}
	steps, err := builder.OpenSteps(e.ctx, store, f.Build, builder.StepOptions{Threads: f.Threads, Memory: memory, Tool: toolRelease, Progress: p})
	if err != nil {
		err = stepError(err)
		done(&err)
		return nil, nil, nil, err
	}
	return steps, store, done, nil
}

// refusedError says that doing it again gives the same, so that no scheduler should.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

// stepError gives the error of a step its exit code.
func stepError(err error) error {
	switch {
	case errors.As(err, new(*builder.RangeError)), errors.Is(err, builder.ErrNoBuild):
		return usageError{err}
	case errors.As(err, new(*builder.ElsewhereError)):
		return usageError{fmt.Errorf("%w: to --records, on stdin", err)}
	case errors.As(err, new(*builder.RefusedError)):
		return refusedError{hinted(err)}
	}
	return err
}

// indexVariables are where schedulers say which of many processes one is.
var indexVariables = []string{"JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"}

// indexOf returns the number of a step: that of the flag, or of the scheduler; false if neither
// says one.
func indexOf(flag *int) (index int, found bool, err error) {
	if flag != nil {
		return *flag, true, nil
	}
	for _, name := range indexVariables {
		text, is := os.LookupEnv(name)
		if !is {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return 0, false, usagef("%s is %.80q, want a number from 0", name, text)
		}
		if found && n != index {
			return 0, false, usagef("%s is %d and %s is %d: give the number by its flag, or take one of them out of the environment", indexVariables[0], index, name, n)
		}
		index, found = n, true
	}
	return index, found, nil
}

type buildPartitionCommand struct {
	stepFlags
	Task     *int     `placeholder:"N" help:"The task, from 0; by default that of JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID, and if neither is set all that are not done."`
	All      bool     `help:"All tasks that are not done, whatever a scheduler says."`
	Parallel int      `default:"1" placeholder:"N" help:"How many tasks to do at a time, where it is all of them (default ${default})."`
	Memory   byteFlag `default:"128MiB" placeholder:"SIZE" help:"How much of the rows a task holds before it writes them out (default ${default})."`
	Records  bool     `help:"Write the records of the task to stdout, for another engine to bring them to their shards, and not to the store."`
}

func (buildPartitionCommand) Help() string {
	return `Reads the files of a task of the plan, judges their rows, deals them to shards by the hash of their ids, and uploads one object. What is done is not done again. It takes --memory, and room on the disk for what the task reads.

Example:

    tandem build partition --store store --build 4be1 --task 0

With --records, an engine such as Spark brings the records to their shards, and gives them to tandem build shard --records. They are an Arrow stream of id, seq and record: bytes whose xxHash64 with the seed 0, without a sign, modulo the number of shards of the tower is the shard; the number in the task; and what only tandem reads. What is to be done once all of it is written; again, it is written again.

Exit codes: 1 try again; 2 and 5 do not: wrong use, inputs that are at fault.`
}

func (c *buildPartitionCommand) Run(e *environment) (err error) {
	switch {
	case c.Parallel < 1:
		return usagef("--parallel is %d, want at least 1", c.Parallel)
	case c.All && c.Task != nil:
		return usagef("--all and --task do not go together")
	case c.Records && c.Task == nil:
		return usagef("--records takes --task: it writes the records of one")
	}
	p := newProgress(e.stderr)
	defer p.Done()
	var shown builder.Progress = p
	if c.Parallel > 1 {
		shown = &notes{p: p}
	}
	steps, _, done, err := c.open(e, int64(c.Memory), shown)
	if err != nil {
		return err
	}
	defer done(&err)
	if c.Records {
		return stepError(steps.Give(e.ctx, *c.Task, e.stdout))
	}
	if !c.All {
		if index, found, err := indexOf(c.Task); found || err != nil {
			if err == nil {
				err = stepError(steps.Partition(e.ctx, index))
			}
			return err
		}
	}
	group, ctx := errgroup.WithContext(e.ctx)
	group.SetLimit(c.Parallel)
	for i := range steps.Plan().Tasks {
		group.Go(func() error {
			if err := steps.Partition(ctx, i); err != nil {
				return fmt.Errorf("task %d: %w", i, err)
			}
			return nil
		})
	}
	return stepError(group.Wait())
}

// notes is progress of several tasks at a time, of which only the notes can be told.
type notes struct {
	mu sync.Mutex
	p  progress
}

func (*notes) Stage(string, int64) {}
func (*notes) Step(int64)          {}
func (n *notes) Note(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.p.Note(text)
}

type buildShardCommand struct {
	stepFlags
	Index *int `placeholder:"N" help:"The shard, from 0: those of apps come first, then those of users. By default that of JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID."`
	All   bool `help:"All shards that are not built, one after the other."`

	Records bool `help:"Take from stdin the records that another engine has brought to the shard."`
}

func (buildShardCommand) Help() string {
	return `Builds one shard of a plan whose rows are partitioned, uploads it, and notes that. It takes the memory of one shard, and waits for nothing: while tasks are missing it names them and exits with 1. A shard that is there, whole, is not built again.

Example:

    tandem build shard --store store --build 4be1 --index 0

With --records, those of tandem build partition --records come on stdin, as an Arrow stream of task, seq and record (int32, int64, binary), ascending by task and seq. That all are there, once each, and of this shard, is looked at; those of users it uploads. A shard that is there reads none.

Exit codes: 1 try again; 2 and 5 do not: wrong use, inputs that are at fault.`
}

func (c *buildShardCommand) Run(e *environment) (err error) {
	index, found, err := indexOf(c.Index)
	switch {
	case c.All && c.Index != nil:
		return usagef("--all and --index do not go together")
	case c.Records && c.Index == nil:
		return usagef("--records takes --index: they are of one shard")
	case err != nil && !c.All:
		return err
	case !found && !c.All:
		return usagef("no shard is named: give --index, or --all, or have JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID say which")
	}
	p := newProgress(e.stderr)
	defer p.Done()
	steps, _, done, err := c.open(e, 0, p)
	if err != nil {
		return err
	}
	defer done(&err)
	if c.Records {
		defer context.AfterFunc(e.ctx, func() { os.Stdin.Close() })() // what reads it ends
		return stepError(steps.ShardFrom(e.ctx, index, os.Stdin))
	}
	if !c.All {
		return stepError(steps.Shard(e.ctx, index))
	}
	for i := range steps.Plan().Shards() {
		if err := steps.Shard(e.ctx, i); err != nil {
			return stepError(fmt.Errorf("shard %d: %w", i, err))
		}
	}
	return nil
}

type buildCommitCommand struct {
	stepFlags
	JSON bool `help:"Print the report as JSON."`
	htmlFlag
}

func (buildCommitCommand) Help() string {
	return `Measures the snapshot of which all shards are built, runs the gates, and publishes it last, as tandem build does: the digest is the same, and is the last line. Then it deletes what the other steps left in the store, in which users' ids are. Again, it prints the same.

Example:

    tandem build commit --store store --build 4be1

Exit codes: 1 try again, once the shards are there that it names; 2 and 5 do not: wrong use, inputs that are at fault; 3 the snapshot is published, and is not fit for release.`
}

func (c *buildCommitCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	p := newProgress(e.stderr)
	defer p.Done()
	steps, store, done, err := c.open(e, 0, p)
	if err != nil {
		return err
	}
	defer done(&err)
	start := time.Now()
	report, err := steps.Commit(e.ctx, builder.CommitOptions{LiveFilters: gates.LiveFilters(store)})
	if err != nil {
		return stepError(err)
	}
	p.Done()
	return told(e, report, time.Since(start), c.Threads, c.JSON, &c.htmlFlag, c.Store)
}
