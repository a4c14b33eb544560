package auth

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// Quota is what a caller may take at most. A zero field is no bound.
type Quota struct {
	// CPU is how many processors its requests may take, on average, as estimated: 0.5 is
	// half a second of one processor each second.
	CPU float64
	// InFlight is how many of its requests may be under way, from their headers to the last
	// byte of their answers.
	InFlight int
}

// Bounds of a quota.
const (
	maxCPU      = 4096
	maxInFlight = 1 << 20
)

// NewQuota returns a quota of what is given; nil is no bound. An error names what is out of
// bounds, as 0 is.
func NewQuota(cpu *float64, inFlight *int) (q Quota, err error) {
	if cpu != nil {
		if q.CPU = *cpu; q.CPU == 0 {
			return q, q.cpuError()
		}
	}
	if inFlight != nil {
		if q.InFlight = *inFlight; q.InFlight == 0 {
			return q, q.inFlightError()
		}
	}
	return q, q.Validate()
}

// Validate returns an error that names the field out of bounds.
func (q Quota) Validate() error {
	switch {
	case math.IsNaN(q.CPU) || q.CPU < 0 || q.CPU > maxCPU || q.CPU > 0 && q.CPU < 1e-6:
		return q.cpuError()
	case q.InFlight < 0 || q.InFlight > maxInFlight:
		return q.inFlightError()
	}
	return nil
}

func (q Quota) cpuError() error {
	return fmt.Errorf("quota.cpu is %v, want 0.000001 to %d processors", q.CPU, maxCPU)
}

func (q Quota) inFlightError() error {
	return fmt.Errorf("quota.in_flight is %d, want 1 to %d", q.InFlight, maxInFlight)
}

// burst is for how long a caller that has asked nothing may take more than its quota.
const burst = time.Second

// ExceededError is the error of a request of a caller that has taken all of its quota.
type ExceededError struct {
	Caller string
	Quota  Quota
	InTime bool          // it has taken its time of processors, else it has too many requests
	Retry  time.Duration // when there is some again; an estimate
}

// Error implements [error].
func (e *ExceededError) Error() string {
	if e.InTime {
		return fmt.Sprintf("caller %q has taken its quota of %g processors", e.Caller, e.Quota.CPU)
	}
	return fmt.Sprintf("caller %q has %d requests in flight, which is its quota", e.Caller, e.Quota.InFlight)
}

// Caller is who a token names, with what it takes. It outlives the tokens that name it.
type Caller struct {
	Name string

	mu       sync.Mutex
	quota    Quota
	inFlight int
	left     time.Duration // of processors, at; below 0 if a request took more than was left
	at       time.Time
}

// newCaller returns a caller that has taken nothing.
func newCaller(name string, q Quota, now time.Time) *Caller {
	c := &Caller{Name: name, at: now}
	c.allow(q, now)
	c.left = c.most()
	return c
}

// allow gives the caller another quota.
func (c *Caller) allow(q Quota, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refill(now)
	if c.quota.CPU == 0 {
		c.left = time.Duration(q.CPU * float64(burst))
	}
	c.quota = q
	c.left = min(c.left, c.most())
}

// most is how much may be left.
func (c *Caller) most() time.Duration { return time.Duration(c.quota.CPU * float64(burst)) }

// refill adds what the caller may take since it was looked at last.
func (c *Caller) refill(now time.Time) {
	since := now.Sub(c.at)
	if since > 0 {
		c.left = min(c.left+time.Duration(c.quota.CPU*float64(min(since, time.Hour))), max(c.most(), c.left))
	}
	if since > 0 || since < -time.Minute { // the clock was set back
		c.at = now
	}
}

// Begin counts one more request, or returns why it is not to be looked at.
func (c *Caller) Begin(now time.Time) *ExceededError {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.quota.InFlight > 0 && c.inFlight >= c.quota.InFlight {
		return &ExceededError{Caller: c.Name, Quota: c.quota, Retry: burst}
	}
	if err := c.spent(now); err != nil {
		return err
	}
	c.inFlight++
	return nil
}

// End ends a request that has begun.
func (c *Caller) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
}

// Take takes time of processors, as estimated, or returns an error if nothing is
// left. One may take more than is left, or the largest would never get through; the next ones
// wait the longer.
func (c *Caller) Take(work time.Duration, now time.Time) *ExceededError {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spent(now); err != nil {
		return err
	}
	if c.quota.CPU > 0 {
		c.left -= work
	}
	return nil
}

// GiveBack gives back what was taken for a request that was refused all the same.
func (c *Caller) GiveBack(work time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.quota.CPU > 0 {
		c.left = min(c.left+work, c.most())
	}
}

// spent returns an error if nothing is left.
func (c *Caller) spent(now time.Time) *ExceededError {
	if c.quota.CPU == 0 {
		return nil
	}
	if c.refill(now); c.left > 0 {
		return nil
	}
	wait := time.Duration(float64(-c.left)/c.quota.CPU) + time.Millisecond
	return &ExceededError{Caller: c.Name, Quota: c.quota, InTime: true, Retry: wait}
}
