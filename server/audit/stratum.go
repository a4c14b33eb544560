package audit

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Kind is what the queries of a stratum have in common.
type Kind uint8

// The kinds.
const (
	All     Kind = iota + 1 // an arm, unless they give an ef
	Plan                    // a plan, likewise
	Segment                 // a segment, likewise
	Ef                      // an arm, and that they give an ef
	Node                    // an arm, likewise, and that a node took part in them: what that has found
)

var kindNames = [...]string{"", "all", "plan", "segment", "ef", "node"}

// String returns the kind's name.
func (k Kind) String() string { return kindNames[k] }

// Enough is how many audits a window must have for its mean to be told.
const Enough = 30

const (
	// windowAudits and windowTime bound a window.
	windowAudits = 512
	windowTime   = 15 * time.Minute
	// lowRate is how often the lower bound of a stratum may be wrong, in times an hour, and
	// clearRate how often an alarm may be cleared for nothing while it is on.
	lowRate   = 0.01
	clearRate = 1
)

// Stratum is what audits have found of some queries of an arm.
type Stratum struct {
	Generation uint64
	Arm        string
	Snapshot   manifest.Digest
	Kind       Kind
	Name       string // of the plan or segment, or address of the node; else empty

	// Audits is how many there are in the window of the last ones, and Since when the first
	// of them was; what follows is of these. Total is how many there were.
	Audits int
	Since  time.Time
	Total  uint64
	// Enough is whether there are at least [Enough].
	Enough bool
	// Recall is the mean recall@k, WorstDecile that of the tenth of the queries that have the
	// lowest, rounded up to whole ones, and Reference the mean of what it is compared with.
	Recall, WorstDecile, Reference float64
	// Low and High bound the mean recall of now; see [Sequence]. Where it has just changed,
	// the mean of the window is not between them.
	Low, High float64
	// Floor is what there is an alarm below; 0 if there is none.
	Floor float64
	Alarm *Alarm // nil without one

	recalls []float64 // of the window, until order is called
}

// Alarm says that the recall of a stratum is below its floor.
type Alarm struct {
	Since  time.Time // when it was raised
	Onset  time.Time // since when about recall was below
	Audits int       // from then until it was raised
	Recall float64   // their mean
	High   float64   // the upper bound when it was raised
	Floor  float64
}

// String says why there is an alarm.
func (a *Alarm) String() string {
	return fmt.Sprintf("mean recall is %.4f over %d audits since %s, and below %.4f for sure; its floor is %.4f",
		a.Recall, a.Audits, a.Onset.UTC().Format(time.RFC3339), a.High, a.Floor)
}

// stratum is what is known of some queries of an arm. What is not atomic is guarded by the
// auditor's mu.
type stratum struct {
	kind Kind
	name string
	rate float64 // how often an alarm may be false, in times an hour

	asked  atomic.Bool  // since the generation began to answer
	wanted atomic.Bool  // the next query is to be audited
	taken  atomic.Int64 // when one was taken last, in Unix nanoseconds

	sequence *Sequence
	clear    *Sequence // from the alarm on; nil without one
	window   []audited // oldest first
	total    uint64
	last     time.Time // audit; when it began without one
	alarm    *Alarm
}

// audited is one audit.
type audited struct {
	at                time.Time
	recall, reference float64
}

func newStratum(kind Kind, name string, rate float64, now time.Time) *stratum {
	s := &stratum{kind: kind, name: name, rate: rate, last: now}
	s.restart(now)
	return s
}

func (s *stratum) restart(now time.Time) {
	s.sequence = NewSequence(Rate{Below: s.rate, Above: lowRate}, now)
	s.clear, s.alarm = nil, nil
}

// change is what an audit has changed.
type change uint8

const (
	nothing change = iota
	raised
	cleared
)

// add adds an audit.
func (s *stratum) add(now time.Time, recall, reference float64) change {
	s.trim(now)
	if len(s.window) == windowAudits {
		s.window = slices.Delete(s.window, 0, windowAudits/8) // some together, so that few are moved
	}
	s.window = append(s.window, audited{now, recall, reference})
	s.total++
	s.last = now
	s.sequence.Add(now, recall, reference)
	switch {
	case s.kind == Ef:
		return nothing
	case s.alarm == nil && s.sequence.BelowFloor():
		s.raise(now)
		return raised
	case s.alarm == nil:
		return nothing
	}
	if s.clear.Add(now, recall, reference); s.clear.AboveFloor() {
		s.window = s.window[:0]
		s.restart(now)
		return cleared
	}
	return nothing
}

// raise raises an alarm. What was before recall fell says nothing of it: the window begins
// anew.
func (s *stratum) raise(now time.Time) {
	onset, n := s.sequence.Onset()
	s.window = slices.Delete(s.window, 0, len(s.window)-min(max(n, 1), len(s.window)))
	recall, reference := s.means()
	s.alarm = &Alarm{
		Since: now, Onset: onset, Audits: len(s.window), Recall: recall,
		High: clamp(reference + s.sequence.High()), Floor: clamp(reference - Margin),
	}
	s.clear = NewSequence(Rate{Above: clearRate}, now, -Margin)
}

// trim removes from the window what is too old.
func (s *stratum) trim(now time.Time) {
	old := 0
	for old < len(s.window) && now.Sub(s.window[old].at).Abs() > windowTime { // or a clock was set back
		old++
	}
	s.window = slices.Delete(s.window, 0, old)
}

func (s *stratum) means() (recall, reference float64) {
	if len(s.window) == 0 {
		return 0, 0
	}
	for i := range s.window {
		recall += s.window[i].recall
		reference += s.window[i].reference
	}
	n := float64(len(s.window))
	return recall / n, reference / n
}

// look returns what is known, for [Stratum.order].
func (s *stratum) look(now time.Time) Stratum {
	s.trim(now)
	out := Stratum{Kind: s.kind, Name: s.name, Audits: len(s.window), Total: s.total, Enough: len(s.window) >= Enough, High: 1}
	if s.alarm != nil {
		alarm := *s.alarm
		out.Alarm = &alarm
	}
	if len(s.window) == 0 {
		return out
	}
	out.Since = s.window[0].at
	out.Recall, out.Reference = s.means()
	out.Low, out.High = clamp(out.Reference+s.sequence.Low()), clamp(out.Reference+s.sequence.High())
	if s.kind != Ef {
		out.Floor = clamp(out.Reference - Margin)
	}
	out.recalls = make([]float64, len(s.window))
	for i := range s.window {
		out.recalls[i] = s.window[i].recall
	}
	return out
}

// order works out what takes long, once the auditor's lock is let go.
func (s *Stratum) order() {
	slices.Sort(s.recalls)
	worst := s.recalls[:(len(s.recalls)+9)/10]
	for _, r := range worst {
		s.WorstDecile += r / float64(len(worst))
	}
	s.recalls = nil
}

func clamp(share float64) float64 { return min(max(share, 0), 1) }
