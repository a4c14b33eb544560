package live

import (
	"context"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects"
)

// Writers that compete for the next entry. One of them wins each. That it be not always the
// same, who has won waits until it has seen as many entries of others as there were others a
// moment ago. Of those who never win it sees nothing: who has lost lately, or has won a few
// times on end, lets one go first, too. No wait is longer than those entries usually take.
// Who has lost tries again at once, but for a little chance that decides among them.

// turns is when a replica may try to append.
type turns struct {
	roundTrip time.Duration // that an append takes, about
	lostAt    time.Time
	streak    int // how often it has won since it let others go first
}

const (
	// contention is for how long another writer is taken for one that writes.
	contention = 5 * time.Second
	// maxStreak is how often one who knows of no other wins on end.
	maxStreak = 4
	// maxTurn bounds what one who has won waits.
	maxTurn = time.Second
)

// won returns how many entries of others to wait for after an append that took so long,
// beside so many others, and for how long at most.
func (t *turns) won(took time.Duration, rivals int) (entries int, bound time.Duration) {
	if t.roundTrip == 0 {
		t.roundTrip = took
	}
	t.roundTrip = (3*t.roundTrip + took) / 4
	if t.streak++; t.streak == maxStreak || objects.Elapsed(t.lostAt) < contention {
		rivals = max(rivals, 1)
	}
	if rivals == 0 {
		return 0, 0
	}
	t.streak = 0
	// Who has lost has read what was written before it tries again, and so does who waits.
	return rivals, min(time.Duration(rivals+1)*t.roundTrip*9/4, maxTurn)
}

// few returns how many entries behind the next one an append looks for, beside so many others.
func (t *turns) few(rivals int) int {
	if rivals == 0 && objects.Elapsed(t.lostAt) >= contention {
		return 0
	}
	return 2
}

// lost returns how long to wait after an append that lost to another, which took so long.
func (t *turns) lost(took time.Duration) time.Duration {
	t.lostAt = time.Now()
	return mathrand.N(took/8 + 1)
}

// seenWriter is a writer of an entry, and when that was seen.
type seenWriter struct {
	writer [8]byte
	at     time.Time
}

// see notes who has written an entry. The caller holds mu.
func (r *Replica) see(e appendlog.Entry) {
	c, _, _, err := decodeHeader(e.Data)
	if err != nil || c.Writer == r.writer {
		return
	}
	r.foreign++
	r.recent = slices.DeleteFunc(r.recent, func(s seenWriter) bool { return s.writer == c.Writer || objects.Elapsed(s.at) > contention })
	r.recent = append(r.recent, seenWriter{c.Writer, time.Now()})
}

// rivals returns how many others append.
func (r *Replica) rivals() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.recent {
		if objects.Elapsed(s.at) <= contention {
			n++
		}
	}
	return n
}

// yield waits until others have appended so many entries, or for so long.
func (r *Replica) yield(ctx context.Context, entries int, bound time.Duration) {
	timer := time.NewTimer(bound)
	defer timer.Stop()
	r.mu.Lock()
	until := r.foreign + uint64(entries)
	r.mu.Unlock()
	for {
		now := r.now.Load()
		r.mu.Lock()
		foreign := r.foreign
		r.mu.Unlock()
		if foreign >= until {
			return
		}
		select {
		case <-now.next:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
