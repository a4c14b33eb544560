package live

import (
	"slices"
	"sort"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// What is remembered of the entries that were applied last, so that an event that is sent
// again counts once, and another log is told from this one: those of rememberFor, by the
// times of entries, and as many as have rememberEvents events.
const (
	rememberFor    = 24 * time.Hour
	rememberEvents = 1_000_000
)

// past is what is remembered, oldest first.
type past struct {
	entries []pastEntry
	events  []pastEvent
	dropped uint64               // how many events came before the first of events
	index   map[eventHash]uint64 // of an event, counted from the first that there ever was
}

type pastEntry struct {
	sequence uint64
	time     time.Time
	hash     [16]byte // the first half of the entry's
	end      uint64   // the number of the event behind its last one
}

type pastEvent struct {
	id      eventHash
	content uint64 // see contentHash
}

func newPast() *past { return &past{index: map[eventHash]uint64{}} }

// add remembers an entry, whose events are those that were added since the one before.
func (p *past) add(sequence uint64, at time.Time, hash appendlog.Hash) {
	p.entries = append(p.entries, pastEntry{sequence, at, [16]byte(hash[:16]), p.dropped + uint64(len(p.events))})
	last := p.entries[len(p.entries)-1]
	n := 0
	for n+1 < len(p.entries) && last.time.Sub(p.entries[n].time) > rememberFor && last.end-p.entries[n].end >= rememberEvents {
		n++
	}
	if n == 0 {
		return
	}
	gone := p.entries[n-1].end - p.dropped
	for _, e := range p.events[:gone] {
		delete(p.index, e.id)
	}
	p.entries, p.events, p.dropped = p.entries[n:], p.events[gone:], p.dropped+gone
}

// note remembers an event of the entry that is added next.
func (p *past) note(e pastEvent) {
	p.index[e.id] = p.dropped + uint64(len(p.events))
	p.events = append(p.events, e)
}

// find returns the content of an event that is remembered, and its entry; 0 if that is the
// one which is added next.
func (p *past) find(id eventHash) (content, sequence uint64, ok bool) {
	at, ok := p.index[id]
	if !ok {
		return 0, 0, false
	}
	i := sort.Search(len(p.entries), func(i int) bool { return p.entries[i].end > at })
	if i < len(p.entries) {
		sequence = p.entries[i].sequence
	}
	return p.events[at-p.dropped].content, sequence, true
}

// entry returns what is remembered of an entry.
func (p *past) entry(sequence uint64) (pastEntry, bool) {
	i, ok := slices.BinarySearchFunc(p.entries, sequence, func(e pastEntry, n uint64) int {
		switch {
		case e.sequence < n:
			return -1
		case e.sequence > n:
			return 1
		}
		return 0
	})
	if !ok {
		return pastEntry{}, false
	}
	return p.entries[i], true
}

// before returns the last entry that was accepted by a time.
func (p *past) before(t time.Time) (sequence uint64, ok bool) {
	i := sort.Search(len(p.entries), func(i int) bool { return p.entries[i].time.After(t) })
	if i == 0 {
		return 0, false
	}
	return p.entries[i-1].sequence, true
}

// Lineage are the logs that one log has gone on from. It does not change.
type Lineage struct {
	log   string
	forks []Fork // oldest first
}

// Fork is where a log was left for another.
type Fork struct {
	Log    string // the id of the one that was left
	Common uint64 // the last entry that both have
}

// maxForks is how many logs are known at most. Nothing is known to be of one before.
const maxForks = 256

// next returns the lineage of a log that goes on from this one.
func (l Lineage) next(log string, common uint64) Lineage {
	forks := append(slices.Clone(l.forks), Fork{l.log, common})
	return Lineage{log, forks[max(len(forks)-maxForks, 0):]}
}

// Common returns the last entry that a log has in common with this one, and whether it is
// this log or one that it has gone on from; of this one itself it is the largest number.
func (l Lineage) Common(log string) (sequence uint64, ok bool) {
	common := ^uint64(0)
	if log == l.log {
		return common, true
	}
	for i := len(l.forks) - 1; i >= 0; i-- {
		common = min(common, l.forks[i].Common)
		if l.forks[i].Log == log {
			return common, true
		}
	}
	return 0, false
}

// Covers reports whether inputs that reflect a position, of whatever log, reflect what this
// log's entry of a number says.
func (l Lineage) Covers(inputs shard.Position, sequence uint64) bool {
	common, _ := l.Common(inputs.Log)
	return sequence <= min(inputs.Sequence, common)
}
