package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/server/reportpage"
	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// feedbackReportCommand is `tandem feedback report`.
type feedbackReportCommand struct {
	requiredStoreFlags
	daysFlags
	K      []int    `default:"1,10,100" placeholder:"N" help:"Ranks up to which an answer can be a hit (default ${default})."`
	Hit    []string `default:"open,install,play_time" placeholder:"KIND" help:"Kinds of outcomes that make an exposure a hit (default ${default})."`
	Memory byteFlag `default:"512MiB" placeholder:"SIZE" help:"About how much memory rows of users may take (default ${default})."`
	Temp   string   `placeholder:"DIR" help:"Folder for rows that are dealt; by default the system's for temporary files."`
	Target []string `placeholder:"FILE" help:"Answers of another policy to the same requests, which are evaluated by what was explored: JSON Lines of request_id and app_ids, best first; files, folders, globs in quotes or URLs; gzip and zstd are read; - is standard input."`
	htmlFlag
	JSON bool `help:"Print JSON."`
}

func (feedbackReportCommand) Help() string {
	return `Reads the joined sets of some days (tandem feedback join) and prints hit rates, the share of exposures with a hit and their play time by rank, arm and segment, how much of the catalogue was shown, and which arm users preferred in interleaved answers. Intervals are of 95% confidence, by user.

Where a release explores (tandem release split --explore) it prints too what other policies would have come to: to draw nothing, to draw the last places of every answer, and that of --target, such as what another snapshot answers. Estimates are by inverse propensities (IPS), those self-normalised (SNIPS) and doubly robust (DR), with how many exposures they are worth and the share of places that cannot be evaluated, where what the policy has could not have been served. Without exploration there are none.

Example:

    tandem feedback report --store store --day 2026-11-25 --until 2026-11-30

A file of --target:

    {"request_id": "r1", "app_ids": ["app-0000007", "app-0000012"]}`
}

func (c *feedbackReportCommand) Run(e *environment) (err error) {
	days, err := c.days()
	if err != nil {
		return err
	}
	o := feedback.MeasureOptions{Days: days, K: c.K, Hits: c.Hit, Memory: int64(c.Memory), Dir: c.Temp}
	if err := o.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	if err := c.htmlFlag.check(); err != nil {
		return err
	}
	if len(c.Target) > 0 {
		files, wrong := openEvents(e.ctx, c.Target)
		if wrong != nil {
			return fmt.Errorf("--target: %w", wrong)
		}
		defer closing(&err, files)
		o.Target = targetAnswers(e.ctx, files)
	}
	store, err := snapshots.OpenStore(e.ctx, c.Store, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	o.Apps = func(ctx context.Context, snapshot string) (int64, bool, error) {
		if !manifest.Digest(snapshot).Valid() {
			return 0, false, nil
		}
		m, err := store.Manifest(ctx, manifest.Digest(snapshot))
		if errors.Is(err, objects.ErrNotFound) {
			return 0, false, nil
		}
		if err != nil {
			return 0, false, err
		}
		return int64(m.Apps.Rows), true, nil
	}
	report, err := feedback.Measure(e.ctx, store.Objects(), o)
	if errors.Is(err, objects.ErrNotFound) {
		return fmt.Errorf("%w; tandem feedback join does", err)
	}
	if err != nil {
		return err
	}
	if err := c.htmlFlag.write(reportpage.Feedback, "Feedback of "+daysText(days), report); err != nil {
		return err
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, report)
	}
	return report.WriteTable(e.stdout)
}

// daysText names days.
func daysText(days []time.Time) string {
	first, last := joined.DayOf(days[0]), joined.DayOf(days[len(days)-1])
	if first == last {
		return first
	}
	return first + " to " + last
}

// maxTargetLine bounds a line of a file of a target: 10,000 ids of 256 bytes are more than any answer
// has.
const maxTargetLine = 4 << 20

// targetAnswers returns the answers of a target in files of JSON Lines.
func targetAnswers(ctx context.Context, files *eventFiles) iter.Seq2[*feedback.Target, error] {
	return func(yield func(*feedback.Target, error) bool) {
		stopped := errors.New("stopped")
		err := tower.ReadLines(ctx, files.set.Files(), maxTargetLine, func(f input.File, number int64, line []byte) error {
			if len(bytes.TrimSpace(line)) == 0 {
				return nil
			}
			var a targetLine
			d := json.NewDecoder(bytes.NewReader(line))
			d.DisallowUnknownFields()
			err := d.Decode(&a)
			switch {
			case err != nil:
				err = fmt.Errorf("%w; accepted: {\"request_id\": \"r1\", \"app_ids\": [\"app-1\", \"app-2\"]}", err)
			case a.RequestID == "":
				err = errors.New("request_id is not given")
			case d.More():
				err = errors.New("it has more than one value; accepted: one on each line")
			}
			if err != nil {
				return fmt.Errorf("--target: %s line %d: %w", f.Name(), number, err)
			}
			if !yield(&feedback.Target{RequestID: a.RequestID, AppIDs: a.AppIDs}, nil) {
				return stopped
			}
			return nil
		})
		if err == nil {
			err = files.set.Unchanged()
		}
		if err != nil && !errors.Is(err, stopped) {
			yield(nil, err)
		}
	}
}

// feedbackPlanCommand is `tandem feedback plan`.
type feedbackPlanCommand struct {
	Rate     float64 `required:"" placeholder:"X" help:"Share of requests that are a hit now (tandem feedback report)."`
	Lift     float64 `required:"" placeholder:"X" help:"By which share of itself it is to change: 0.05 is from 10% to 10.5%."`
	Prefer   float64 `default:"0.55" placeholder:"X" help:"Share of the interleaved requests with one arm ahead in which that is the better one (default ${default})."`
	Decisive float64 `required:"" placeholder:"X" help:"Share of interleaved requests with one arm ahead: near the hit rate, where there is rarely more than one hit."`
	Power    float64 `default:"0.8" placeholder:"X" help:"With which probability the difference is to be found (default ${default})."`
	Level    float64 `default:"0.05" placeholder:"X" help:"With which probability a difference may be found that is not there (default ${default})."`
	JSON     bool    `help:"Print JSON."`
}

func (feedbackPlanCommand) Help() string {
	return `Reckons how many requests, each of another user, it takes to find which of two arms is better: if each request is answered by one arm and hit rates are compared, and if answers are interleaved and a sign test counts which arm is ahead.

Example:

    tandem feedback plan --rate 0.1 --lift 0.05 --decisive 0.1 --prefer 0.55`
}

func (c *feedbackPlanCommand) Run(e *environment) error {
	o := feedback.PlanOptions{Rate: c.Rate, Lift: c.Lift, Prefer: c.Prefer, Decisive: c.Decisive, Power: c.Power, Level: c.Level}
	if err := o.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	plan, err := feedback.NewPlan(o)
	if err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	if c.JSON {
		return wording.WriteJSON(e.stdout, plan)
	}
	_, err = fmt.Fprintf(e.stdout, "comparing arms   %s\ninterleaving     %s, of which %s decide\nratio            %.3f\n",
		wording.Plural(plan.Compared, "request"), wording.Plural(plan.Interleaved, "request"), wording.Count(plan.Deciding), plan.Ratio)
	return err
}
