package router

import (
	"sync"
	"time"
)

// budget bounds what is done beside requests, such as retries: a share of them, and a little
// each second, so that few requests may have some, too.
type budget struct {
	share     float64 // added by each request
	perSecond float64
	most      float64 // that are saved up
	now       func() time.Time

	mu   sync.Mutex
	have float64
	at   time.Time
}

// newBudget returns a budget that is full.
func newBudget(share, perSecond, most float64, now func() time.Time) *budget {
	return &budget{share: share, perSecond: perSecond, most: most, now: now, have: most, at: now()}
}

// earn counts a request.
func (b *budget) earn() {
	b.mu.Lock()
	b.have = min(b.have+b.share, b.most)
	b.mu.Unlock()
}

// spend reports whether one more may be done, and counts it.
func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.have = min(b.have+b.perSecond*now.Sub(b.at).Seconds(), b.most)
	b.at = now
	if b.have < 1 {
		return false
	}
	b.have--
	return true
}
