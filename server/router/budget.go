package router

import (
	"sync"
	"time"
)

// budget bounds what is done beside requests, such as retries: by what they earn, and, so that
// few requests may have some too, by time.
type budget struct {
	perSecond float64
	most      float64 // that are saved up
	now       func() time.Time

	mu   sync.Mutex
	have float64
	at   time.Time
}

// newBudget returns a budget that is full.
func newBudget(perSecond, most float64, now func() time.Time) *budget {
	return &budget{perSecond: perSecond, most: most, now: now, have: most, at: now()}
}

// earn adds what a request allows.
func (b *budget) earn(share float64) {
	b.mu.Lock()
	b.have = min(b.have+share, b.most)
	b.mu.Unlock()
}

// spend reports whether one more may be done, with so many kept for others, and counts it.
func (b *budget) spend(kept float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.have = min(b.have+b.perSecond*now.Sub(b.at).Seconds(), b.most)
	b.at = now
	if b.have < 1+kept {
		return false
	}
	b.have--
	return true
}
