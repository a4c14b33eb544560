package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds of [Options].
const (
	MaxNodes   = 64
	MaxRouters = 16
	MaxApps    = 10_000 // so that one answer has them all
	MaxRate    = 10_000
)

// Options say what is measured. The zero value of a field is its default, unless it says that
// it is required.
type Options struct {
	// Location is the store: a folder, or a URL with an endpoint. Nothing is released in it.
	// Required.
	Location string
	// Snapshots are the digests of what is released in turn, at least two. Required.
	Snapshots []string
	// Program is the command of servers, and Old an older one, to go back to; without it
	// there is no rolling upgrade. Program is required.
	Program, Old string
	// Users ask, and Apps are all that there are. Required.
	Users, Apps []string
	// Nodes hold shards, each of which Replicas are to hold, and Routers are asked. The
	// defaults are 3, 2 and 1.
	Nodes, Replicas, Routers int
	// Questions are what is asked. The default is of several k, with and without a filter.
	Questions []question
	// Rate is how many queries are asked a second. The default is 50.
	Rate float64
	// Skew is how much more often some users ask than others: the exponent of Zipf's law. The
	// default is 1.1.
	Skew float64
	// Deadline is how long callers wait, Fence that of servers, and Keep how long they keep
	// a snapshot that nobody needs. The defaults are 2, 5 and 10 seconds.
	Deadline, Fence, Keep time.Duration
	// Time is how long faults go on. The default is a minute.
	Time time.Duration
	// Away is how long the store and the list of members are away. The default is 60 seconds.
	Away time.Duration
	// Faults are the names of those that there are; see [FaultNames]. The default is all that
	// can be.
	Faults []string
	// Seed is what everything is drawn from.
	Seed uint64
	// Pinned has all servers run on the first processor.
	Pinned bool
	// Progress, if not nil, is called when something begins.
	Progress func(what string)

	unjudged bool // nothing is learned, since no answer is judged
}

func (o Options) withDefaults() Options {
	or := func(n *int, d int) {
		if *n == 0 {
			*n = d
		}
	}
	orTime := func(t *time.Duration, d time.Duration) {
		if *t == 0 {
			*t = d
		}
	}
	or(&o.Nodes, 3)
	or(&o.Replicas, 2)
	or(&o.Routers, 1)
	orTime(&o.Deadline, 2*time.Second)
	orTime(&o.Fence, 5*time.Second)
	orTime(&o.Keep, 10*time.Second)
	orTime(&o.Time, time.Minute)
	orTime(&o.Away, time.Minute)
	if o.Rate == 0 {
		o.Rate = 50
	}
	if o.Skew == 0 {
		o.Skew = 1.1
	}
	if o.Questions == nil {
		o.Questions = questions(len(o.Apps))
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// wants reports whether a fault is one of those that there are to be.
func (o *Options) wants(fault string) bool {
	return len(o.Faults) == 0 || slices.Contains(o.Faults, fault)
}

// questions are what is asked of so many apps.
func questions(apps int) []question {
	list := []question{}
	for _, k := range []int{10, 100, min(1000, apps)} {
		list = append(list, question{K: k}, question{K: k, Exact: true})
	}
	return append(list,
		question{K: 100, Filter: `"ios" in platforms`}, question{K: 100, Exact: true, Filter: `"ios" in platforms`},
		question{K: 50, Exact: true, Filter: `free && min_age <= 12`},
	)
}

// Validate returns an error that names the option out of bounds.
func (o Options) Validate() error {
	o = o.withDefaults()
	switch {
	case o.Location == "" || o.Program == "":
		return errors.New("location or program is missing")
	case len(o.Snapshots) < 2:
		return fmt.Errorf("there are %d snapshots, want at least 2", len(o.Snapshots))
	case len(o.Users) == 0:
		return errors.New("there are no users to ask with")
	case len(o.Apps) < 2*registered || len(o.Apps) > MaxApps:
		return fmt.Errorf("there are %d apps, want %d to %d", len(o.Apps), 2*registered, MaxApps)
	case o.Nodes < 1 || o.Nodes > MaxNodes:
		return fmt.Errorf("nodes is %d, want 1 to %d", o.Nodes, MaxNodes)
	case o.Replicas < 1 || o.Replicas > o.Nodes:
		return fmt.Errorf("replicas is %d, want 1 to %d, as many as there are nodes", o.Replicas, o.Nodes)
	case o.Routers < 1 || o.Routers > MaxRouters:
		return fmt.Errorf("routers is %d, want 1 to %d", o.Routers, MaxRouters)
	case !(o.Rate > 0 && o.Rate <= MaxRate):
		return fmt.Errorf("rate is %v, want more than 0, up to %d", o.Rate, MaxRate)
	case !(o.Skew > 1 && o.Skew <= 10):
		return fmt.Errorf("skew is %v, want more than 1, up to 10", o.Skew)
	case o.Deadline <= 0 || o.Fence <= 0 || o.Keep <= 0 || o.Time <= 0 || o.Away <= 0:
		return errors.New("deadline, fence, keep, time and away want to be more than 0")
	}
	return CheckFaults(o.Faults)
}

// CheckFaults returns an error that names the first of some faults that there is not.
func CheckFaults(names []string) error {
	for _, name := range names {
		if !slices.Contains(FaultNames(), name) {
			return fmt.Errorf("there is no fault %q; accepted: %s", name, strings.Join(FaultNames(), ", "))
		}
	}
	return nil
}
