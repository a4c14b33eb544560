package gates

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Recorded is one run of the gates on a snapshot, as the store keeps it.
type Recorded struct {
	Snapshot manifest.Digest `json:"snapshot"`
	Time     time.Time       `json:"time"`
	Tool     string          `json:"tool,omitempty"` // the release of the tool that ran them
	Seconds  float64         `json:"seconds"`        // that it took
	// Inputs are the files of gates and interactions.
	Inputs  []manifest.Input     `json:"inputs,omitempty"`
	Report  *manifest.GateReport `json:"report"`
	Latency []manifest.GateCheck `json:"latency,omitempty"`
	// LatencyOff says that the latency gate was turned off; the report says it of others.
	LatencyOff bool `json:"latency_off,omitempty"`
	// Filters and FiltersOff say the same of the filters gate; Undecided is what of it, and
	// of the gate fresh, did not run.
	Filters    []manifest.GateCheck `json:"filters,omitempty"`
	Undecided  []manifest.GateCheck `json:"undecided,omitempty"`
	FiltersOff bool                 `json:"filters_off,omitempty"`
	// Fresh and FreshOff say the same of the gate fresh, which depends on what the live log
	// has by then.
	Fresh    []manifest.GateCheck `json:"fresh,omitempty"`
	FreshOff bool                 `json:"fresh_off,omitempty"`
}

// Checks returns the checks that passed or failed, those of the report first.
func (r *Recorded) Checks() []manifest.GateCheck {
	return slices.Concat(r.Report.Checks, r.Filters, r.Fresh, r.Latency)
}

// undecided returns the checks that did not run or found nothing either way.
func (r *Recorded) undecided() []manifest.GateCheck {
	return slices.Concat(r.Report.Undecided, r.Undecided)
}

// Failed returns the checks that did not pass.
func (r *Recorded) Failed() []manifest.GateCheck {
	return (&manifest.GateReport{Checks: r.Checks()}).Failed()
}

// Off lists the gates that were turned off.
func (r *Recorded) Off() []string {
	off := slices.Clone(r.Report.Off)
	if r.FiltersOff {
		off = append(off, Filters)
	}
	if r.FreshOff {
		off = append(off, Fresh)
	}
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
func prefix(d manifest.Digest) string { return "gates/" + string(d) }

func logOf(bucket *objects.Bucket, d manifest.Digest) *appendlog.Log {
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

// CopyRecords gives a bucket the runs on a snapshot that another one has and it lacks, so that
// what they found goes with the snapshot. Which of two runs is newer is known in one log
// alone: where the bucket has a run that the other one does not have at that place, nothing
// is copied, and same is false.
func CopyRecords(ctx context.Context, to, from *objects.Bucket, d manifest.Digest) (same bool, err error) {
	source, target := logOf(from, d), logOf(to, d)
	head, err := target.Head(ctx)
	if err != nil {
		return false, fmt.Errorf("copy gates of snapshot %s: %w", d.Short(), err)
	}
	for e, err := range source.Read(ctx, 1) {
		if err != nil {
			return false, fmt.Errorf("copy gates of snapshot %s: %w", d.Short(), err)
		}
		if e.Sequence > head {
			if err := target.Append(ctx, e.Sequence, e.Data); err != nil {
				return false, fmt.Errorf("copy gates of snapshot %s: %w", d.Short(), err)
			}
			continue
		}
		had, err := target.Get(ctx, e.Sequence)
		if err != nil {
			return false, fmt.Errorf("copy gates of snapshot %s: %w", d.Short(), err)
		}
		if !bytes.Equal(had.Data, e.Data) {
			return false, nil
		}
	}
	return true, nil
}

// Runs returns the runs on a snapshot, oldest first. The report in its manifest is the
// oldest. An error is of class [sections.ErrCorrupt] if one cannot be read, and of class
// [ErrNotRun] if there is none.
func Runs(ctx context.Context, store *snapshots.Store, d manifest.Digest) ([]*Recorded, error) {
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
			return nil, fmt.Errorf("read gates of snapshot %s, entry %d: %w: %w", d.Short(), e.Sequence, sections.ErrCorrupt, err)
		}
		if r.Report == nil || r.Snapshot != d {
			return nil, fmt.Errorf("read gates of snapshot %s, entry %d: %w: it is not of this snapshot", d.Short(), e.Sequence, sections.ErrCorrupt)
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("snapshot %s: %w", d.Short(), ErrNotRun)
	}
	return list, nil
}

// WriteJSON writes the run as one indented object.
func (r *Recorded) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, r) }

// Err returns nil if no check failed, and else a [*FailedError].
func (r *Recorded) Err() error {
	if e := refusal(r.Rows(), r.Checks()); e != nil {
		e.Snapshot, e.Previous = r.Snapshot, r.Report.Previous
		return e
	}
	return nil
}

// WriteRows writes what each gate came to, for people: one line for each.
func WriteRows(w io.Writer, list []Row) error {
	t := wording.NewTable(w)
	fmt.Fprintln(t, "gate\tresult\tchecks\twhy")
	for _, r := range list {
		state, checks := string(r.State), strconv.Itoa(r.Checks)
		if r.State == manifest.GateFailed {
			state, checks = "FAILED", fmt.Sprintf("%d of %d", r.Failed, r.Checks)
		}
		if r.Checks == 0 {
			checks = "-"
		}
		why := shortened(r.Why, 160)
		if r.State == manifest.GatePassed && r.Undecided > 0 {
			why = wording.Plural(r.Undecided, "more check") + " not run"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Gate, state, checks, why)
	}
	return t.Flush()
}

// WriteTable writes every check of the run, for people: those that failed first, with what
// they have found, then all others.
func (r *Recorded) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	for _, c := range r.Failed() {
		fmt.Fprintf(b, "%s: %s\n", c.Gate, c.Text)
	}
	for _, c := range r.undecided() {
		fmt.Fprintf(b, "%s %s: %s\n", strings.TrimSpace(c.Gate+" "+c.Subject), c.Undecided, c.Text)
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	t := wording.NewTable(b)
	fmt.Fprintln(t, "\tgate\tcheck\tvalue\tlimit")
	for _, c := range r.Checks() {
		mark, bound := "ok", ">="
		if !c.Passed {
			mark = "FAILED"
		}
		if c.Bound == manifest.BoundMax {
			bound = "<="
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s %v\n", mark, c.Gate, c.Subject, strconv.FormatFloat(c.Value, 'g', 4, 64), bound, c.Limit)
	}
	_ = t.Flush() // a page takes everything
	_, err := io.WriteString(w, b.String())
	return err
}
