package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/bench/replay"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/reportpage"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

type replayCommand struct {
	requiredStoreFlags
	Log      string   `placeholder:"LOCATION" help:"Recorded queries: a folder, a file, or a URL such as s3://bucket?prefix=queries/; by default those of --store."`
	Against  string   `placeholder:"DIGEST" help:"The snapshot to ask: its digest or the beginning of it; by default what is released to most traffic."`
	Baseline string   `placeholder:"DIGEST" help:"A snapshot to ask the same queries, or none; by default what is released to most traffic, if that is another one."`
	Since    timeFlag `placeholder:"TIME" help:"Only queries that came from then on: 2026-11-25, 2026-11-25T08:15:00Z, or 24h for a day ago."`
	Until    timeFlag `placeholder:"TIME" help:"Only queries that came before."`
	Limit    int      `default:"0" placeholder:"N" help:"Replay a sample of that many queries, the same each time; by default all of them."`

	MinOverlap      *float64      `placeholder:"X" help:"Least mean overlap of the answers with the recorded ones, 0 to 1."`
	MaxFailed       *float64      `placeholder:"X" help:"Largest share of the queries that may fail, 0 to 1."`
	MaxLatencyRatio *float64      `placeholder:"X" help:"Largest ratio of the mean latency to that of --baseline."`
	MaxLatencyP99   time.Duration `name:"max-latency-p99" placeholder:"TIME" help:"Largest 99th percentile of the latency."`
	MaxScoreShift   *float64      `placeholder:"X" help:"Largest shift of scores, as a share of them: of an id that is in both answers, and of the mean score."`

	JSON    string `placeholder:"FILE" help:"Write the report as JSON too; - prints it instead of the table."`
	Answers string `placeholder:"FILE" help:"Write what the snapshot answers to each query too, as JSON Lines: what tandem feedback report takes as --target."`
	htmlFlag
}

func (replayCommand) Help() string {
	return `Asks queries that a server has recorded (tandem serve --record-share) again, of a snapshot, and compares the answers, after both snapshots were asked the first of them to warm up. Thresholds are for the means; the intervals beside them say how well those are known. Exits with 3 if a threshold is broken.

Example:

    tandem replay --store store --against 5f3a --baseline 09c4 --since 24h --limit 10000 --min-overlap 0.7 --max-failed 0.01 --max-latency-ratio 1.2`
}

// timeFlag is a time, or how long ago it was.
type timeFlag time.Time

// UnmarshalText reads a date, a time with its zone, or a duration before now.
func (t *timeFlag) UnmarshalText(text []byte) error {
	if ago, err := time.ParseDuration(string(text)); err == nil && ago >= 0 {
		*t = timeFlag(time.Now().Add(-ago))
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if at, err := time.Parse(layout, string(text)); err == nil {
			*t = timeFlag(at)
			return nil
		}
	}
	return usagef("%q is no time; accepted: 2026-11-25, 2026-11-25T08:15:00Z, or 24h for a day ago", text)
}

func (c *replayCommand) thresholds() replay.Thresholds {
	return replay.Thresholds{
		MinOverlap: c.MinOverlap, MaxFailed: c.MaxFailed, MaxLatencyRatio: c.MaxLatencyRatio,
		MaxLatencyP99: c.MaxLatencyP99, MaxScoreShift: c.MaxScoreShift,
	}
}

// baseline returns the snapshot to compare with, empty for none.
func (c *replayCommand) baseline(e *environment, store *snapshots.Store, against manifest.Digest) (manifest.Digest, error) {
	switch c.Baseline {
	case noPrevious:
		return "", nil
	case "":
	default:
		return store.Resolve(e.ctx, c.Baseline)
	}
	now, err := newestRelease(e, store)
	if err != nil || now == nil || now.Most().Snapshot == against {
		return "", err
	}
	return tellReleased(e, now), nil
}

func (c *replayCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	thresholds := c.thresholds()
	if err := thresholds.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	if c.MaxLatencyRatio != nil && c.Baseline == noPrevious {
		return usagef("--max-latency-ratio needs a baseline, and --baseline is %s", noPrevious)
	}
	store, digest, err := openStore(e, c.Store, c.Against, c.cacheFlags.options())
	if err != nil {
		return err
	}
	defer closing(&err, store)
	baseline, err := c.baseline(e, store, digest)
	if err != nil {
		return err
	}
	if c.MaxLatencyRatio != nil && baseline == "" {
		return usagef("--max-latency-ratio needs --baseline, since nothing else is released")
	}
	log := querylog.Of(store.Objects())
	if c.Log != "" {
		if log, err = querylog.Open(e.ctx, c.Log); err != nil {
			return err
		}
		defer closing(&err, log)
	}
	p := newProgress(e.stderr)
	defer p.Done()
	p.Stage("queries", -1)
	o := replay.Options{
		Log: log, Since: time.Time(c.Since), Until: time.Time(c.Until), Limit: c.Limit,
		Store: store, Against: string(digest), Baseline: string(baseline),
		Logger:   newLogger(e.stderr, "text", slog.LevelError),
		Progress: func(read int) { p.Step(int64(read)) },
	}
	if err := o.Validate(); err != nil {
		return usageError{fmt.Errorf("--%w", err)}
	}
	answers, err := newAnswersFile(c.Answers)
	if err != nil {
		return err
	}
	o.Answer = answers.add
	found, err := replay.Run(e.ctx, o)
	err = answers.end(err)
	if errors.Is(err, replay.ErrNoQueries) {
		return fmt.Errorf("%w; tandem serve --record-share records some, and writes them within %s of the query, or when it stops",
			err, server.RecordInterval)
	}
	if err != nil {
		return err
	}
	p.Done()
	for _, text := range thresholds.Broken(found) {
		found.Broken = append(found.Broken, "--"+text)
	}
	err = c.write(reportpage.Replay, fmt.Sprintf("Recorded queries, asked of snapshot %s", found.Against.Digest.Short()), found)
	if c.JSON == "-" {
		err = errors.Join(err, found.WriteJSON(e.stdout))
	} else {
		if c.JSON != "" {
			err = errors.Join(err, writeFile(c.JSON, found.WriteJSON))
		}
		err = errors.Join(err, found.WriteTable(e.stdout))
	}
	if err == nil && len(found.Broken) > 0 {
		return unfitError{errors.New("not fit for release: " + strings.Join(found.Broken, "; "))}
	}
	return err
}
