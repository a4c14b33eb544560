package recall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Recording is what audits have found of a snapshot while it served.
type Recording struct {
	Snapshot manifest.Digest `json:"snapshot"`
	Seconds  float64         `json:"seconds"`
	QPS      int             `json:"qps"`
	K        int             `json:"k"`
	CPU      float64         `json:"cpu"`      // that audits might take, of a processor
	Used     float64         `json:"used"`     // seconds of processor time that they took
	Longest  float64         `json:"longest"`  // seconds of processor time at a stretch
	LeftOut  uint64          `json:"left_out"` // queries that were to be audited, and were not
	Failed   int64           `json:"failed"`   // queries
	Late     int64           `json:"late"`     // queries that were not asked
	Alarms   int             `json:"alarms"`
	Audits   []Audited       `json:"audits"` // in the order in which they were done
}

// Audited is one audit.
type Audited struct {
	At        float64  `json:"at"` // seconds since the beginning
	Plan      string   `json:"plan"`
	Segment   string   `json:"segment,omitempty"`
	Strata    []string `json:"strata"` // the kinds of those that it counts in
	Recall    float64  `json:"recall"`
	Reference float64  `json:"reference"`
}

// Record serves a snapshot for a time, and records the audits.
func Record(ctx context.Context, store *snapshots.Store, d manifest.Digest, cpu float64, o Load, d0 time.Duration) (_ *Recording, err error) {
	who, err := askersOf(ctx, store, d)
	if err != nil {
		return nil, err
	}
	r := &Recording{Snapshot: d, QPS: o.QPS, K: o.K, CPU: cpu}
	var mu sync.Mutex
	begun := time.Now()
	var counts audit.Counts
	address, stop, err := serving(ctx, server.Config{
		Store: store, Snapshot: string(d),
		Audit: server.Audit{CPU: cpu, Recorded: func(a audit.Audit) {
			mu.Lock()
			defer mu.Unlock()
			counts = a.Counts
			one := Audited{At: time.Since(begun).Seconds(), Plan: a.Plan, Segment: a.Segment, Recall: a.Recall, Reference: a.Reference}
			for _, kind := range a.Strata {
				one.Strata = append(one.Strata, kind.String())
			}
			r.Audits = append(r.Audits, one)
		}},
		Events: []*events.Listener{{Recall: func(e events.Recall) {
			if e.Change == events.RecallAlarm {
				mu.Lock()
				defer mu.Unlock()
				r.Alarms++
			}
		}}},
	})
	if err != nil {
		return nil, err
	}
	begun = time.Now()
	asking, end := context.WithTimeout(ctx, d0)
	defer end()
	var n sent
	who.send(asking, address, &o, &n)
	r.Seconds = time.Since(begun).Seconds()
	err = errors.Join(stop(), ctx.Err())
	mu.Lock()
	defer mu.Unlock()
	r.Failed, r.Late = n.failed.Load(), n.late.Load()
	r.Used, r.Longest = counts.Used.Seconds(), counts.Longest.Seconds()
	r.LeftOut = counts.Full + counts.Aged + counts.Large + counts.Failed
	return r, err
}

// ReadRecording reads a recording as JSON.
func ReadRecording(in io.Reader) (*Recording, error) {
	r := &Recording{}
	if err := json.NewDecoder(in).Decode(r); err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	if len(r.Audits) < audit.Enough || r.Seconds <= 0 {
		return nil, fmt.Errorf("recording: %d audits in %v s; accepted: at least %d in more than 0 s", len(r.Audits), r.Seconds, audit.Enough)
	}
	for i, a := range r.Audits {
		if !(a.Recall >= 0 && a.Recall <= 1) || !(a.Reference >= 0 && a.Reference <= 1) {
			return nil, fmt.Errorf("recording: audits[%d] has the recall %v and the reference %v; accepted: 0 to 1", i, a.Recall, a.Reference)
		}
	}
	return r, nil
}

// Moments describe audits.
type Moments struct {
	Audits    int     `json:"audits"`
	PerSecond float64 `json:"per_second"`
	Recall    float64 `json:"recall"`
	Deviation float64 `json:"deviation"`
	Reference float64 `json:"reference"`
	// Lag is the correlation of an audit with the next: what is drawn one by one has none.
	Lag float64 `json:"lag"`
}

func momentsOf(list []Audited, seconds float64) Moments {
	m := Moments{Audits: len(list), PerSecond: float64(len(list)) / seconds}
	n := float64(max(len(list), 1))
	for _, a := range list {
		m.Recall += a.Recall / n
		m.Reference += a.Reference / n
	}
	var square, lagged float64
	for i, a := range list {
		square += (a.Recall - m.Recall) * (a.Recall - m.Recall)
		if i > 0 {
			lagged += (a.Recall - m.Recall) * (list[i-1].Recall - m.Recall)
		}
	}
	m.Deviation = math.Sqrt(square / n)
	if square > 0 {
		m.Lag = lagged / square
	}
	return m
}

// WriteJSON writes the recording as JSON.
func (r *Recording) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }
