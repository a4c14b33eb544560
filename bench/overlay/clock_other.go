//go:build !linux

package overlay

import "time"

var began = time.Now()

// spent returns the time that has passed: what a processor has taken for this thread is
// measured on Linux only.
func spent() (time.Duration, error) { return time.Since(began), nil }
