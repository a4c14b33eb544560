package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Recorded is one run of the gates on a snapshot, as the store keeps it.
type Recorded struct {
	Snapshot shard.Digest `json:"snapshot"`
	Time     time.Time    `json:"time"`
	Tool     string       `json:"tool,omitempty"` // the release of the tool that ran them
	Seconds  float64      `json:"seconds"`        // that it took
	// Inputs are the files of gates and interactions.
	Inputs  []shard.Input     `json:"inputs,omitempty"`
	Report  *shard.GateReport `json:"report"`
	Latency []shard.GateCheck `json:"latency,omitempty"`
	// LatencyOff says that the latency gate was turned off; the report says it of others.
	LatencyOff bool `json:"latency_off,omitempty"`
}

// Checks returns all checks, those of the report first.
func (r *Recorded) Checks() []shard.GateCheck {
	return append(r.Report.Checks[:len(r.Report.Checks):len(r.Report.Checks)], r.Latency...)
}

// Failed returns the checks that did not pass.
func (r *Recorded) Failed() []shard.GateCheck {
	return (&shard.GateReport{Checks: r.Checks()}).Failed()
}

// Off lists the gates that were turned off.
func (r *Recorded) Off() []string {
	off := slices.Clone(r.Report.Off)
	if r.LatencyOff {
		off = append(off, Latency)
	}
	return off
}

// Passed reports whether every check passed.
func (r *Recorded) Passed() bool { return len(r.Failed()) == 0 }

var (
	// ErrNotRun is the class of the error that says that the gates were not run on a
	// snapshot.
	ErrNotRun = errors.New("the gates were not run")
	// ErrFailed is the class of every error that says that a snapshot did not pass.
	ErrFailed = errors.New("it did not pass its gates")
)

// prefix begins the names of the records of a snapshot:
//
//	gates/DIGEST/000000000001.json
func prefix(d shard.Digest) string { return "gates/" + string(d) }

func logOf(bucket *objects.Bucket, d shard.Digest) *appendlog.Log {
	return appendlog.New(bucket, appendlog.Options{Prefix: prefix(d)})
}

// Record appends a run to those of its snapshot. It may be called by several processes
// at once.
func Record(ctx context.Context, bucket *objects.Bucket, r *Recorded) error {
	if !r.Snapshot.Valid() {
		return fmt.Errorf("record gates: snapshot %.80q is not a SHA-256", r.Snapshot)
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("record gates: %w", err)
	}
	l := logOf(bucket, r.Snapshot)
	for {
		head, err := l.Head(ctx)
		if err == nil {
			err = l.Append(ctx, head+1, append(data, '\n'))
		}
		switch {
		case errors.Is(err, appendlog.ErrConflict) && ctx.Err() == nil:
			continue // another run was recorded meanwhile
		case err != nil:
			return fmt.Errorf("record gates: %w", err)
		}
		return nil
	}
}

// runs returns the runs on a snapshot, oldest first. The report in its manifest is the
// oldest: all there is of a snapshot that was copied from another store.
func runs(ctx context.Context, store *shard.Store, d shard.Digest) ([]*Recorded, error) {
	m, err := store.Manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	var list []*Recorded
	if r := OfManifest(d, m); r != nil {
		list = append(list, r)
	}
	for e, err := range logOf(store.Objects(), d).Read(ctx, 1) {
		if err != nil {
			return nil, fmt.Errorf("read gates: %w", err)
		}
		r := &Recorded{}
		if err := json.Unmarshal(e.Data, r); err != nil {
			return nil, fmt.Errorf("read gates of snapshot %s, entry %d: %w", d.Short(), e.Sequence, err)
		}
		if r.Report == nil || r.Snapshot != d {
			return nil, fmt.Errorf("read gates of snapshot %s, entry %d: it is not of this snapshot", d.Short(), e.Sequence)
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("snapshot %s: %w", d.Short(), ErrNotRun)
	}
	return list, nil
}

// Last returns the last run on a snapshot. An error is of class [ErrNotRun] if there is
// none.
func Last(ctx context.Context, store *shard.Store, d shard.Digest) (*Recorded, error) {
	list, err := runs(ctx, store, d)
	if err != nil {
		return nil, err
	}
	return list[len(list)-1], nil
}

// WriteJSON writes the run as one indented object.
func (r *Recorded) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the run for people: every check, and the texts of those that failed.
func (r *Recorded) WriteTable(w io.Writer) error {
	var b strings.Builder
	against := "no previous snapshot"
	if r.Report.Previous != "" {
		against = "previous " + r.Report.Previous.Short()
	}
	fmt.Fprintf(&b, "gates of snapshot %s, %s\n\n", r.Snapshot.Short(), against)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tgate\tcheck\tvalue\tlimit")
	for _, c := range r.Checks() {
		mark, bound := "ok", ">="
		if !c.Passed {
			mark = "FAILED"
		}
		if c.Bound == shard.BoundMax {
			bound = "<="
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s %v\n", mark, c.Gate, c.Subject, strconv.FormatFloat(c.Value, 'g', 4, 64), bound, c.Limit)
	}
	_ = t.Flush() // a strings.Builder takes everything
	b.WriteByte('\n')
	for _, row := range r.Rows() {
		if row.State == shard.GateNotRun || row.State == shard.GateInconclusive {
			fmt.Fprintf(&b, "%s %s: %s\n", row.Gate, row.State, row.Why)
		}
	}
	failed := r.Failed()
	if len(failed) > 0 {
		b.WriteByte('\n')
	}
	for _, c := range failed {
		fmt.Fprintf(&b, "%s: %s\n", c.Gate, c.Text)
	}
	if len(failed) == 0 {
		fmt.Fprintf(&b, "\nall %d checks passed\n", len(r.Checks()))
	} else {
		fmt.Fprintf(&b, "\n%d of %d checks failed\n", len(failed), len(r.Checks()))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
