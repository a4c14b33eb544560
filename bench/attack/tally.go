package attack

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Sent is what attackers sent and what came back. The names of its JSON fields are stable.
type Sent struct {
	Seed    uint64     `json:"seed"`
	Seconds float64    `json:"seconds"`
	Kinds   []KindSent `json:"kinds"` // by name
}

// KindSent is what was sent of one kind of attack.
type KindSent struct {
	Name  string `json:"name"`
	Turns int64  `json:"turns"`
	// Outcomes counts what came back: codes by their Connect names, "ok", "http STATUS"
	// where there was none, and what became of connections.
	Outcomes map[string]int64 `json:"outcomes"`
	// LongestError is the bytes of the longest error that came back, in trailers or body.
	LongestError int `json:"longest_error"`
	// Faults are the first answers that say that the server is at fault.
	Faults []string `json:"faults,omitempty"`
}

// tally counts outcomes.
type tally struct {
	mu    sync.Mutex
	kinds map[string]*KindSent
}

func newTally() *tally { return &tally{kinds: map[string]*KindSent{}} }

// of returns the counts of a kind. The tally is locked.
func (t *tally) of(kind string) *KindSent {
	k := t.kinds[kind]
	if k == nil {
		k = &KindSent{Name: kind, Outcomes: map[string]int64{}}
		t.kinds[kind] = k
	}
	return k
}

func (t *tally) turn(kind string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(kind).Turns++
}

func (t *tally) note(kind, outcome string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(kind).Outcomes[outcome]++
}

// maxFaults is how many faults of a kind are kept, and maxFault how many bytes of each.
const (
	maxFaults = 5
	maxFault  = 500
)

// failed notes an error that came back, of a number of bytes.
func (t *tally) failed(kind, outcome, text string, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.of(kind)
	k.LongestError = max(k.LongestError, bytes)
	if isFault(outcome) && len(k.Faults) < maxFaults {
		text = strings.ToValidUTF8(text[:min(len(text), maxFault)], "�")
		if fault := outcome + ": " + text; !slices.Contains(k.Faults, fault) {
			k.Faults = append(k.Faults, fault)
		}
	}
}

// isFault reports whether an outcome says that the server is at fault. A stream that is
// reset by INTERNAL_ERROR is none: net/http ends so what its caller does not take in time.
func isFault(outcome string) bool {
	switch outcome {
	case "internal", "unknown", "data_loss", "http 500", "goaway INTERNAL_ERROR":
		return true
	}
	return false
}

func (t *tally) sent(seed uint64, took time.Duration) *Sent {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &Sent{Seed: seed, Seconds: took.Seconds()}
	for _, name := range slices.Sorted(maps.Keys(t.kinds)) {
		s.Kinds = append(s.Kinds, *t.kinds[name])
	}
	return s
}
