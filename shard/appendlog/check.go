package appendlog

import (
	"context"
	"sync"
)

// checker has thorough looks made beside those of a Watch, one at a time: they list the log,
// which takes many requests where it is long, and proofs do not wait for that. One is due
// once there were enough proofs since the last. Its methods are for one goroutine.
type checker struct {
	looks   *looker
	hint    chan<- struct{} // of who waits meanwhile
	answers chan answer     // has at most one
	running sync.WaitGroup
	busy    bool // until the answer was taken
	proofs  int  // since the last began
	fresh   bool // whether entries have come that no check has seen
}

func newChecker(l *Log, hint chan<- struct{}) *checker {
	looks := l.looker(patience)
	looks.hedge = 2 * looks.timeout // a list is too much to ask for twice
	return &checker{looks: looks, hint: hint, answers: make(chan answer, 1), fresh: true}
}

// note takes what a look has found, after which the reader is at a position, and begins a
// check of it if one is due.
func (c *checker) note(ctx context.Context, at Position, found finding) {
	if found.checked {
		c.proofs, c.fresh = 0, false
		return
	}
	c.fresh = c.fresh || len(found.entries) > 0
	if !found.ended {
		return
	}
	c.proofs++
	if c.busy || c.proofs < unsure && !(c.fresh && c.proofs >= soon) {
		return
	}
	c.busy, c.proofs, c.fresh = true, 0, false
	c.running.Go(func() {
		a := c.looks.look(ctx, at, true, 1)
		c.answers <- a
		if a.err != nil {
			select {
			case c.hint <- struct{}{}:
			default: // it has one already
			}
		}
	})
}

// failed returns why a check that has ended since has proved nothing, nil if none has.
func (c *checker) failed() error {
	select {
	case a := <-c.answers:
		c.busy = false
		c.fresh = c.fresh || !a.found.checked
		return a.err
	default:
		return nil
	}
}
