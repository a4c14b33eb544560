package recall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Options say what is measured.
type Options struct {
	Load
	CPU      float64 // of audits
	Runs     int
	Cut      float64       // share of the links
	Limit    time.Duration // how soon there is to be an alarm
	Progress func(text string)
}

// RunResult is one run.
type RunResult struct {
	Snapshot manifest.Digest `json:"snapshot"` // that lacks links
	// Damaged is the mean recall of some users for all apps, whatever audits find.
	Damaged float64 `json:"damaged"`
	// Alarm is the time from when the snapshot began to answer to the alarm, and Back to when
	// the one before it answered again, in seconds; 0 if that was not within the limit.
	Alarm  float64 `json:"alarm"`
	Back   float64 `json:"back"`
	Recall float64 `json:"recall"` // as the alarm has it
	Floor  float64 `json:"floor"`
	Audits int     `json:"audits"` // since its onset
	Asked  int64   `json:"asked"`
	Failed int64   `json:"failed"`
	// Failure is the last that failed.
	Failure string `json:"failure,omitempty"`
	Late    int64  `json:"late"` // queries that were not asked, since too many waited
	// Reason is that of the release that rolled back.
	Reason string `json:"reason,omitempty"`
}

// Report is what [Run] has found.
type Report struct {
	Snapshot manifest.Digest `json:"snapshot"`
	Cut      float64         `json:"cut"`
	QPS      int             `json:"qps"`
	K        int             `json:"k"`
	CPU      float64         `json:"cpu"`
	Limit    float64         `json:"limit"` // seconds
	Runs     []RunResult     `json:"runs"`
	Raised   int             `json:"raised"` // runs with an alarm in time
	Back     int             `json:"back"`   // runs that were rolled back in time
}

// Run makes the runs, each in a store of its own. The first error ends it.
func Run(ctx context.Context, store *snapshots.Store, d manifest.Digest, o Options) (*Report, error) {
	r := &Report{Snapshot: d, Cut: o.Cut, QPS: o.QPS, K: o.K, CPU: o.CPU, Limit: o.Limit.Seconds()}
	who, err := askersOf(ctx, store, d)
	if err != nil {
		return nil, err
	}
	for i := range o.Runs {
		load := o.Load
		load.Seed += uint64(i)
		one, err := runOnce(ctx, store, d, who, &o, &load)
		if err != nil {
			return nil, fmt.Errorf("run %d: %w", i+1, err)
		}
		r.Runs = append(r.Runs, *one)
		if one.Alarm > 0 {
			r.Raised++
		}
		if one.Back > 0 {
			r.Back++
		}
		o.Progress(fmt.Sprintf("run %d: damaged to %.4f, alarm after %.1f s, back after %.1f s, recall %.4f, floor %.4f", i+1, one.Damaged, one.Alarm, one.Back, one.Recall, one.Floor))
	}
	return r, nil
}

// runOnce has a snapshot replaced by one that lacks links.
func runOnce(ctx context.Context, from *snapshots.Store, d manifest.Digest, who *askers, o *Options, load *Load) (_ *RunResult, err error) {
	dir, err := os.MkdirTemp("", "tandem-recall-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store, err := snapshots.CreateStore(ctx, filepath.Join(dir, "store"), snapshots.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Copy(ctx, from, d); err != nil {
		return nil, err
	}
	out := &RunResult{}
	if out.Snapshot, err = Cut(ctx, store, d, o.Cut, load.Seed); err != nil {
		return nil, err
	}
	if out.Damaged, err = measure(ctx, store, out.Snapshot, o.K); err != nil {
		return nil, err
	}
	releases := release.New(store)
	// What is whole serves under another reason than its gates, which may never have run here.
	c := release.Change{Author: "bench", Override: "nobody else is served"}
	if _, err := releases.Start(ctx, release.StartOptions{Change: c, Snapshot: d}); err != nil {
		return nil, err
	}
	alarm, switched := make(chan events.Recall, 64), make(chan events.Switch, 64)
	address, stop, err := serving(ctx, server.Config{
		Store: store, Audit: server.Audit{CPU: o.CPU, Author: "bench"},
		Events: []*events.Listener{{
			Recall:   func(e events.Recall) { offer(alarm, e) },
			Switched: func(e events.Switch) { offer(switched, e) },
		}},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	asking, end := context.WithCancel(ctx)
	defer end()
	var n sent
	done := make(chan struct{})
	go func() { defer close(done); who.send(asking, address, load, &n) }()
	defer func() {
		end()
		<-done
		out.Asked, out.Failed, out.Late = n.answered.Load(), n.failed.Load(), n.late.Load()
		out.Failure = n.text()
	}()

	if _, err := releases.Start(ctx, release.StartOptions{Change: c, Snapshot: out.Snapshot, Arm: release.Candidate}); err != nil {
		return nil, err
	}
	c.AutoRollback = true
	bad, err := releases.Promote(ctx, c, release.Candidate)
	if err != nil {
		return nil, err
	}
	return out, out.await(ctx, releases, bad.Generation, o.Limit, alarm, switched)
}

// measured is how many users are asked for.
const measured = 300

// measure returns the mean recall of queries for so many apps.
func measure(ctx context.Context, store *snapshots.Store, d manifest.Digest, k int) (mean float64, err error) {
	s, err := snapshots.Open(ctx, store, d)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	apps := s.Tower(shard.Apps)
	users := probe.Pick(s.Tower(shard.Users), measured, nil)
	for _, v := range probe.Vectors(users) {
		q := probe.Default(v, k, "")
		found, err := apps.Search(ctx, q)
		if err != nil {
			return 0, err
		}
		q.Target = 1
		exact, err := apps.Search(ctx, q)
		if err != nil {
			return 0, err
		}
		mean += shard.RecallOf(apps.Metric(), exact.Candidates, found.Candidates) / float64(len(users))
	}
	return mean, nil
}

// offer puts an event into a channel that has room, or forgets it.
func offer[T any](to chan<- T, e T) {
	select {
	case to <- e:
	default:
	}
}

// await waits for what becomes of a generation once it answers.
func (r *RunResult) await(ctx context.Context, releases *release.Releases, generation uint64, limit time.Duration, alarm <-chan events.Recall, switched <-chan events.Switch) error {
	var begun time.Time
	late := time.NewTimer(limit + time.Minute) // until it answers
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			if begun.IsZero() {
				return fmt.Errorf("generation %d does not answer", generation)
			}
			return nil
		case e := <-switched:
			switch {
			case e.Generation == generation:
				begun = time.Now()
				late.Reset(limit)
			case e.Generation > generation && !begun.IsZero():
				r.Back = time.Since(begun).Seconds()
				now, err := releases.Get(ctx, e.Generation)
				if err == nil {
					r.Reason = now.Reason
				}
				return err
			}
		case e := <-alarm:
			if e.Change == events.RecallAlarm && e.Generation == generation && r.Alarm == 0 {
				r.Alarm, r.Recall, r.Floor, r.Audits = time.Since(begun).Seconds(), e.Recall, e.Floor, e.Audits
			}
		}
	}
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "snapshot %s, %.0f%% of links cut, %d queries a second for %d candidates, audits take %v of a processor\n",
		r.Snapshot.Short(), 100*r.Cut, r.QPS, r.K, r.CPU)
	t := wording.NewTable(w)
	fmt.Fprintln(t, "run\tdamaged\talarm s\tback s\trecall\tfloor\taudits\tasked\tfailed\tlate")
	for i, run := range r.Runs {
		fmt.Fprintf(t, "%d\t%.4f\t%.1f\t%.1f\t%.4f\t%.4f\t%d\t%d\t%d\t%d\n", i+1, run.Damaged, run.Alarm, run.Back, run.Recall, run.Floor, run.Audits, run.Asked, run.Failed, run.Late)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d runs had an alarm within %.0f s, %d went back\n", r.Raised, len(r.Runs), r.Limit, r.Back)
	return err
}
