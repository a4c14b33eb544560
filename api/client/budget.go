package client

import (
	"sync"
	"time"
)

// budget bounds what is done beside calls, such as repeating them, by what calls earn.
type budget struct {
	share float64 // of a call

	mu   sync.Mutex
	have float64
	at   time.Time
}

const (
	// budgetMost is what is saved up at most, and there at first; budgetPerSecond comes whether
	// or not there are calls, so that who calls rarely may repeat a call, too.
	budgetMost      = 10
	budgetPerSecond = 0.5
)

func newBudget(share float64) *budget { return &budget{share: share, have: budgetMost, at: time.Now()} }

// earn counts a call.
func (b *budget) earn() {
	b.mu.Lock()
	b.have = min(b.have+b.share, budgetMost)
	b.mu.Unlock()
}

// spend reports whether one more may be done, and counts it.
func (b *budget) spend() bool {
	if b.share == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.have = min(b.have+budgetPerSecond*now.Sub(b.at).Seconds(), budgetMost)
	b.at = now
	if b.have < 1 {
		return false
	}
	b.have--
	return true
}
