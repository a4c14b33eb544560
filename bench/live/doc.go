// Package live measures what takedowns and other live events take, through real servers of a
// store of their own: how long after it was acknowledged an app is still returned, how long
// an acknowledgement takes where several servers append to one log behind a slow network, and
// how many events a second one server takes.
//
// [Run] starts the servers as processes, each beside or behind a proxy that delays what it
// asks of the store, and stops them. It is called by `tandem bench live`, which makes the
// store.
package live

import (
	"errors"
	"fmt"
	"time"
)

// The targets: what is slower is told by [Report].Missed.
const (
	// TargetVisible is within which an app is no longer returned by a server that only polls
	// the store, once its takedown was acknowledged, at the 99th percentile; TargetOwn by the
	// server that acknowledged it.
	TargetVisible = time.Second
	TargetOwn     = 50 * time.Millisecond
	// TargetContended is within which a takedown is acknowledged while several servers
	// append at once behind a delay, at the 99th percentile.
	TargetContended = 2 * time.Second
	// TargetEvents is how many events a second a server takes into a folder, in messages of
	// several.
	TargetEvents = 5000
)

// Options say what is measured. The zero value of a field is its default, unless it says that
// it is required.
type Options struct {
	// Location is that of the store: a folder, or a URL. A snapshot is released in it. It is
	// written to. Required.
	Location string
	// Serve returns the command line of a server that takes live writes, of a store at a
	// location: it listens on loopback, on a free port, logs JSON with the address that it
	// listens on, remembers what it must and keeps what it downloads in a folder, and stops at
	// SIGTERM. Required.
	Serve func(location, dir string) []string
	// Apps are apps of the snapshot, each of which may be taken down. Required.
	Apps []string
	// Model and ModelVersion are the snapshot's, and Dim its dimension. Required.
	Model, ModelVersion string
	Dim                 int
	// Takedowns is how many takedowns are followed to all servers. The default is 300.
	Takedowns int
	// Servers is how many servers append at once. The default is 4.
	Servers int
	// Delay is how much later what those servers ask of the store arrives there. The default
	// is 100 milliseconds. A store in a folder is not behind a network: there is no delay.
	Delay time.Duration
	// Time is how long each load goes on. The default is 30 seconds.
	Time time.Duration
	// Progress, if not nil, is called when a phase begins.
	Progress func(phase string)
}

// Bounds of options.
const (
	MaxTakedowns = 100_000
	MaxServers   = 16
	MaxDelay     = 5 * time.Second
)

func (o Options) withDefaults() Options {
	if o.Takedowns == 0 {
		o.Takedowns = 300
	}
	if o.Servers == 0 {
		o.Servers = 4
	}
	if o.Delay == 0 {
		o.Delay = 100 * time.Millisecond
	}
	if o.Time == 0 {
		o.Time = 30 * time.Second
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// Validate returns an error that names the option out of bounds.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch {
	case o.Location == "":
		return errors.New("location is missing")
	case o.Serve == nil:
		return errors.New("serve is missing")
	case o.Model == "" || o.ModelVersion == "" || o.Dim < 1:
		return errors.New("model, model version or dimension is missing")
	case o.Takedowns < 1 || o.Takedowns > MaxTakedowns:
		return fmt.Errorf("takedowns is %d, want 1 to %d", o.Takedowns, MaxTakedowns)
	case len(o.Apps) < o.Takedowns:
		return fmt.Errorf("there are %d apps for %d takedowns, want one for each", len(o.Apps), o.Takedowns)
	case o.Servers < 2 || o.Servers > MaxServers:
		return fmt.Errorf("servers is %d, want 2 to %d", o.Servers, MaxServers)
	case o.Delay < 0 || o.Delay > MaxDelay:
		return fmt.Errorf("delay is %s, want 0 to %s", o.Delay, MaxDelay)
	case o.Time <= 0:
		return fmt.Errorf("time is %s, want more than 0", o.Time)
	}
	return nil
}
