package manifest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// The limits of what a manifest says of gates and parameters.
const (
	MaxGateChecks = 1 << 14
	maxGateName   = 64
	maxGateText   = 4096 // bytes
	maxColumns    = 4096
)

// Parameters are what a build was told beside its input files and what the towers'
// manifests say: with those, they are all it takes to build the snapshot again.
type Parameters struct {
	MaxRejected int             `json:"max_rejected"` // rows of both towers together
	Apps        TowerParameters `json:"apps"`
	Users       TowerParameters `json:"users"`
}

// TowerParameters say how the input files of one tower are read. A field that has no
// meaning for their format is empty.
type TowerParameters struct {
	IDColumn        string   `json:"id_column,omitempty"`
	EmbeddingColumn string   `json:"embedding_column,omitempty"`
	IgnoreColumns   []string `json:"ignore_columns,omitempty"`
	NumberRows      bool     `json:"number_rows,omitempty"` // ids are the rows' numbers

	AttributesIDKey      string   `json:"attributes_id_key,omitempty"`
	AttributesIgnoreKeys []string `json:"attributes_ignore_keys,omitempty"`

	GraphKeys string `json:"graph_keys,omitempty"` // the Go type of a graph's keys

	// What follows needs [InputsVersion].

	PartitionAttributes []string                  `json:"partition_attributes,omitempty"` // keys of the files' paths
	AttributeTypes      map[string]attribute.Type `json:"attribute_types,omitempty"`      // other than the input says
	AttributeColumns    []string                  `json:"attribute_columns,omitempty"`    // the only ones
	RenameColumns       map[string]string         `json:"rename_columns,omitempty"`       // names of attributes, by those of columns
}

// beyondColumns reports whether the parameters say what only [InputsVersion] can.
func (p *Parameters) beyondColumns() bool {
	return p != nil && (p.Apps.beyondColumns() || p.Users.beyondColumns())
}

func (p *TowerParameters) beyondColumns() bool {
	return len(p.PartitionAttributes)+len(p.AttributeTypes)+len(p.AttributeColumns)+len(p.RenameColumns) > 0
}

// Lineage says what a snapshot follows.
type Lineage struct {
	Previous Digest `json:"previous"` // the snapshot that its gates compared it with
}

// GateReport says how a snapshot did at its gates. The same snapshot, previous
// snapshot, interactions and thresholds give the same report to the byte.
type GateReport struct {
	// Previous is the snapshot that it was compared with; empty if there was none.
	Previous Digest `json:"previous,omitempty"`
	// Off are the gates that were turned off, in ascending order.
	Off []string `json:"off,omitempty"`
	// Loosened are the limits under which more passes than by default, each as one text that
	// begins with the gate's name and a dot. They need [EvidenceVersion].
	Loosened []string `json:"loosened,omitempty"`
	// Checks are those that passed or failed, in the order in which the gates ran.
	Checks []GateCheck `json:"checks"`
	// Undecided are the checks that did not run, and those that found nothing either way,
	// in the same order. They are apart because a reader that does not know of them may
	// leave them out, and may take none for passed or failed. It needs [EvidenceVersion].
	Undecided []GateCheck `json:"undecided,omitempty"`
}

// GateCheck is one thing that a gate looked at.
type GateCheck struct {
	Gate    string    `json:"gate"`    // e.g. recall
	Subject string    `json:"subject"` // e.g. recall@100 in segment ios_teen
	Value   float64   `json:"value"`   // what was found, to six decimals
	Bound   GateBound `json:"bound"`   // how Limit bounds Value; empty if it did not run
	Limit   float64   `json:"limit"`
	Passed  bool      `json:"passed"`
	// Undecided is [GateNotRun] or [GateInconclusive] of a check that neither passed nor
	// failed, and empty of others.
	Undecided GateState `json:"state,omitempty"`
	Text      string    `json:"text"` // for people; of a check that did not pass it says why
}

// State returns what the check came to.
func (c *GateCheck) State() GateState {
	switch {
	case c.Undecided != "":
		return c.Undecided
	case c.Passed:
		return GatePassed
	}
	return GateFailed
}

// GateState is what a check, or a gate, came to.
type GateState string

// The states.
const (
	GatePassed       GateState = "passed"
	GateFailed       GateState = "failed"
	GateNotRun       GateState = "not run"      // it had nothing to look at, or was turned off
	GateInconclusive GateState = "inconclusive" // what it looked at tells nothing either way
)

// GateBound is how a limit bounds a value.
type GateBound string

// The bounds.
const (
	BoundMin GateBound = "min" // the value must not be below the limit
	BoundMax GateBound = "max" // the value must not be above the limit
)

// Passed reports whether no check failed.
func (r *GateReport) Passed() bool { return len(r.Failed()) == 0 }

// Failed returns the checks that failed.
func (r *GateReport) Failed() []GateCheck {
	var list []GateCheck
	for _, c := range r.Checks {
		if !c.Passed {
			list = append(list, c)
		}
	}
	return list
}

// Validate returns an error that names the check that no gate writes.
func (r *GateReport) Validate() error {
	if r.Previous != "" && !r.Previous.Valid() {
		return fmt.Errorf("gates: previous %.80q is not a SHA-256", r.Previous)
	}
	if !slices.IsSorted(r.Off) {
		return fmt.Errorf("gates: those turned off are %.200q, want them in ascending order", r.Off)
	}
	if n := len(r.Checks) + len(r.Undecided); n > MaxGateChecks {
		return fmt.Errorf("gates: %d checks, at most %d are accepted", n, MaxGateChecks)
	}
	if n := len(r.Loosened); n > MaxGateChecks || slices.ContainsFunc(r.Loosened, func(text string) bool { return len(text) > maxGateText }) {
		return fmt.Errorf("gates: %d limits are loosened, at most %d of up to %d bytes each are accepted", n, MaxGateChecks, maxGateText)
	}
	for i := range r.Checks {
		if err := r.Checks[i].validate(""); err != nil {
			return fmt.Errorf("gates: check %d: %w", i, err)
		}
	}
	for i := range r.Undecided {
		if err := r.Undecided[i].validate(GateNotRun, GateInconclusive); err != nil {
			return fmt.Errorf("gates: undecided check %d: %w", i, err)
		}
	}
	return nil
}

func (c *GateCheck) validate(states ...GateState) error {
	switch {
	case c.Gate == "" || len(c.Gate) > maxGateName:
		return fmt.Errorf("gate is %.80q, want 1 to %d bytes", c.Gate, maxGateName)
	case !slices.Contains(states, c.Undecided):
		return fmt.Errorf("state is %.20q, want one of %q", c.Undecided, states)
	case c.Undecided != "" && c.Passed:
		return fmt.Errorf("state is %s, and it has passed", c.Undecided)
	case c.Undecided == GateNotRun && (c.Bound != "" || c.Value != 0 || c.Limit != 0):
		return fmt.Errorf("it did not run, and has the value %v and the limit %v", c.Value, c.Limit)
	case c.Undecided == GateNotRun:
		return c.validateText()
	case c.Bound != BoundMin && c.Bound != BoundMax:
		return fmt.Errorf("bound is %.20q, want %s or %s", c.Bound, BoundMin, BoundMax)
	case !finite(c.Value) || !finite(c.Limit):
		return fmt.Errorf("value is %v and limit %v, want finite numbers", c.Value, c.Limit)
	}
	return c.validateText()
}

func (c *GateCheck) validateText() error {
	if len(c.Subject) > maxGateText || len(c.Text) > maxGateText {
		return fmt.Errorf("subject has %d bytes and text %d, at most %d are accepted", len(c.Subject), len(c.Text), maxGateText)
	}
	return nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// gated reports whether the manifest says what only [GatesVersion] can.
func (m *Manifest) gated() bool {
	if m.Tool != "" || m.Parameters != nil || m.Gates != nil || m.Lineage != nil {
		return true
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, s := range m.Tower(kind).Shards {
			if len(s.Effort) > 0 {
				return true
			}
		}
	}
	return false
}

// validateGated checks what [GatesVersion] adds.
func (m *Manifest) validateGated() error {
	const maxTool = 256
	if len(m.Tool) > maxTool || strings.ContainsAny(m.Tool, "\r\n") {
		return fmt.Errorf("tool is %.80q, want one line of at most %d bytes", m.Tool, maxTool)
	}
	if p := m.Parameters; p != nil {
		if p.MaxRejected < 0 {
			return fmt.Errorf("parameters: max_rejected is %d, want at least 0", p.MaxRejected)
		}
		for _, t := range []*TowerParameters{&p.Apps, &p.Users} {
			if n := max(len(t.IgnoreColumns), len(t.AttributesIgnoreKeys), len(t.PartitionAttributes), len(t.AttributeTypes), len(t.AttributeColumns), len(t.RenameColumns)); n > maxColumns {
				return fmt.Errorf("parameters: %d columns are named, at most %d are accepted", n, maxColumns)
			}
		}
	}
	if l := m.Lineage; l != nil && !l.Previous.Valid() {
		return fmt.Errorf("lineage: previous %.80q is not a SHA-256", l.Previous)
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for i, s := range m.Tower(kind).Shards {
			if err := checkEffort(s.Effort); err != nil {
				return fmt.Errorf("%s: shard %d: %w", kind, i, err)
			}
		}
	}
	if m.Gates == nil {
		return nil
	}
	if p := m.Gates.Previous; p != "" && (m.Lineage == nil || m.Lineage.Previous != p) {
		return fmt.Errorf("gates: previous is %s, the lineage says otherwise", p)
	}
	return m.Gates.Validate()
}

// maxEfforts is more than a calibration has.
const maxEfforts = 1 << 12

func checkEffort(list []index.Effort) error {
	if len(list) > maxEfforts {
		return fmt.Errorf("%d efforts, at most %d are accepted", len(list), maxEfforts)
	}
	for _, e := range list {
		if e.K < 1 || e.Ef < 0 || !(e.Target > 0 && e.Target < 1) || !(e.Recall >= 0 && e.Recall <= 1) || !(e.Scored >= 0) {
			return fmt.Errorf("effort %+v is none that a calibration finds", e)
		}
	}
	return nil
}

// Rounded returns x to six decimals, so that reports are the same on every CPU and
// read as a person would write them.
func Rounded(x float64) float64 { return math.Round(x*1e6) / 1e6 }
