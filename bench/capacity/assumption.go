package capacity

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/wording"
)

// Assumption is a number that the plan depends on beside the scenario.
type Assumption struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	What  string  `json:"what"`
	// Source is where the value is from.
	Source string `json:"source"`

	low, high float64
	// power is whether it is a power, of which half says nothing, and fixed whether it is no
	// assumption but a choice of units.
	power, fixed bool
}

// varied returns a smaller and a larger value to try: half and twice, of a power 0.1 less and more.
func (a *Assumption) varied() (low, high float64) {
	low, high = a.Value/2, 2*a.Value
	if a.power {
		low, high = a.Value-0.1, a.Value+0.1
	}
	return max(a.low, low), min(a.high, high)
}

// The names of assumptions.
const (
	idBytes       = "id_bytes"
	rowsExponent  = "rows_exponent"
	askedExponent = "asked_exponent"
	recallPower   = "recall_exponent"
	dimCost       = "dim_cost"
	filterFactor  = "filter_factor"
	coreSpeed     = "core_speed"
	callFactor    = "call_factor"
	wakeFactor    = "wake_factor"
	busyShare     = "utilisation"
	memoryShare   = "memory_share"
	heapBytes     = "heap"
	networkTime   = "network"
	sameShare     = "same_query"
	againShare    = "asked_again"
	byID          = "user_lookups"
	buildExponent = "build_exponent"
	partitionTime = "partition"
	buildBusy     = "build_utilisation"
	uploadRate    = "upload"
	downloadRate  = "download"
	changedShare  = "changed"
	releases      = "releases_a_day"
	kept          = "snapshots_kept"
	livePoll      = "live_poll"
	releasePoll   = "release_poll"
	lookRequests  = "look_requests"
	events        = "events"
	eventBytes    = "event_bytes"
	appendPause   = "append_pause"
	checkpoints   = "checkpoints_a_day"
	monthHours    = "month"
)

const byDefault = "default"

// assumptions returns all of them, in the order in which they are told.
func assumptions(m *Measured) []Assumption {
	list := []Assumption{
		{Name: idBytes, Value: 16, Unit: "bytes", What: "an id", Source: byDefault, low: 1, high: 256},
		{Name: rowsExponent, Value: 0.43, Unit: "", What: "the time of a search grows by this power of the rows of a shard", Source: "default: distances that walks compute at equal recall", low: 0, high: 1, power: true},
		{Name: askedExponent, Value: 0.6, Unit: "", What: "and by this power of how many rows a shard is to find", Source: "default: distances of the README for k of 10 and 100", low: 0, high: 2, power: true},
		{Name: recallPower, Value: 0.3, Unit: "", What: "and by this power of 1 / (1 - recall)", Source: "default: distances of the README for targets of 0.95 to 0.999", low: 0, high: 1, power: true},
		{Name: dimCost, Value: 0.024, Unit: "", What: "what a component adds to the time of a distance without any", Source: "default: what admission reckons with (shard/cost.go)", low: 0, high: 1},
		{Name: filterFactor, Value: 1, Unit: "times", What: "as long a search takes with the filters that queries have", Source: "default: queries without filters", low: 0.05, high: 1000},
		{Name: coreSpeed, Value: 1, Unit: "times", What: "as fast a vcpu is as a processor that was measured", Source: byDefault, low: 0.05, high: 20},
		{Name: callFactor, Value: 1, Unit: "times", What: "as much a call takes of processors as was measured", Source: byDefault, low: 0.05, high: 20},
		{Name: wakeFactor, Value: 1, Unit: "times", What: "as long a processor takes to wake as was measured", Source: byDefault, low: 0, high: 20},
		{Name: busyShare, Value: 0.4, Unit: "", What: "of the processors may be at work at the peak", Source: byDefault, low: 0.01, high: 0.9},
		{Name: memoryShare, Value: 0.8, Unit: "", What: "of the memory may be mapped", Source: "default: --memory-limit of servers", low: 0.05, high: 0.98},
		{Name: heapBytes, Value: 256, Unit: "MiB", What: "a process may take beside what it maps, by requests", Source: "default: how far the heap of a server grows (docs/serving.md)", low: 0, high: 1 << 20},
		{Name: networkTime, Value: 0.1, Unit: "ms", What: "a message takes from one machine to another", Source: byDefault, low: 0, high: 1000},
		{Name: sameShare, Value: 0, Unit: "", What: "of the searches of a query take as long as its others do, by rank", Source: "default: shards are drawn apart", low: 0, high: 1},
		{Name: againShare, Value: 0.005, Unit: "", What: "of the queries ask a shard a second time", Source: "default: the bound of shard/share.go", low: 0, high: 1},
		{Name: byID, Value: 1, Unit: "", What: "of the queries ask for the vector of a user (0 or 1)", Source: "default: queries name a user", low: 0, high: 1, fixed: true},
		{Name: buildExponent, Value: 1.1, Unit: "", What: "the time of a build of a shard grows by this power of its rows", Source: byDefault, low: 0.5, high: 2, power: true},
		{Name: partitionTime, Value: 5, Unit: "µs", What: "of a processor to read and deal a row to its shard", Source: byDefault, low: 0, high: 1e6},
		{Name: buildBusy, Value: 0.8, Unit: "", What: "of the processors of a build are at work", Source: byDefault, low: 0.01, high: 1},
		{Name: uploadRate, Value: 100, Unit: "MB/s", What: "a machine that builds uploads", Source: byDefault, low: 0.1, high: 1e6},
		{Name: downloadRate, Value: 100, Unit: "MB/s", What: "a node downloads", Source: byDefault, low: 0.1, high: 1e6},
		{Name: changedShare, Value: 1, Unit: "", What: "of the bytes of a snapshot are not those of the one before", Source: "default: every vector is new", low: 0.001, high: 1},
		{Name: releases, Value: 1, Unit: "a day", What: "releases of a new snapshot", Source: byDefault, low: 0.001, high: 1000},
		{Name: kept, Value: 7, Unit: "", What: "snapshots are kept in the store", Source: byDefault, low: 1, high: 10_000},
		{Name: livePoll, Value: 0.3, Unit: "s", What: "between two looks at the live log", Source: "default: --live-poll of servers, in a bucket", low: 0.001, high: 60},
		{Name: releasePoll, Value: 1, Unit: "s", What: "between two looks at the releases", Source: "default: of servers, in a bucket", low: 0.001, high: 60},
		{Name: lookRequests, Value: 2.02, Unit: "", What: "requests of a look: two reads, and a list in 64", Source: "default: shard/appendlog/look.go", low: 1, high: 100},
		{Name: events, Value: 10, Unit: "/s", What: "live events", Source: byDefault, low: 0, high: 1e7},
		{Name: eventBytes, Value: 500, Unit: "bytes", What: "of an event in the log", Source: byDefault, low: 1, high: 1 << 20},
		{Name: appendPause, Value: 0.05, Unit: "s", What: "a writer takes to append what has come meanwhile as one entry", Source: byDefault, low: 1e-4, high: 60},
		{Name: checkpoints, Value: 1, Unit: "a day", What: "checkpoints of the live log, by tandem snapshot gc", Source: byDefault, low: 0, high: 10_000},
		{Name: monthHours, Value: 730, Unit: "hours", What: "in a month", Source: byDefault, low: 1, high: 744, fixed: true},
	}
	rows, asked := m.exponents()
	for name, value := range map[string]float64{rowsExponent: rows, askedExponent: asked, buildExponent: m.buildExponent()} {
		i := slices.IndexFunc(list, func(a Assumption) bool { return a.Name == name })
		if a := &list[i]; !math.IsNaN(value) && value >= a.low && value <= a.high {
			if name == buildExponent && value < 1 {
				continue // it is of what a build does once, which a large one hardly takes longer for
			}
			a.Value, a.Source = two(value), "measured"
		}
	}
	return list
}

// Names are the names of all assumptions.
func Names() []string {
	var list []string
	for _, a := range assumptions(Default()) {
		list = append(list, a.Name)
	}
	return list
}

// Plan reckons with these numbers.
type numbers []Assumption

func (n numbers) at(name string) *Assumption {
	i := slices.IndexFunc(n, func(a Assumption) bool { return a.Name == name })
	if i < 0 { // a name of this package that is not in the list
		panic("capacity: there is no assumption " + name)
	}
	return &n[i]
}

func (n numbers) of(name string) float64 { return n.at(name).Value }

// with returns numbers of which one is another; it is bounded by what it may be.
func (n numbers) with(name string, value float64) numbers {
	out := slices.Clone(n)
	a := out.at(name)
	a.Value = max(a.low, min(a.high, value))
	return out
}

// assume sets numbers that somebody has given. The error names the first that cannot be.
func (n numbers) assume(given map[string]float64) error {
	for name, value := range given {
		i := slices.IndexFunc(n, func(a Assumption) bool { return a.Name == name })
		if i < 0 {
			return fmt.Errorf("there is no assumption %.64q%s; accepted: %s", name, meant(name), strings.Join(Names(), ", "))
		}
		a := &n[i]
		if !(value >= a.low && value <= a.high) {
			return fmt.Errorf("assumption %s is %v, want %v to %v", name, value, a.low, a.high)
		}
		a.Value, a.Source = value, "given"
	}
	if v := n.of(byID); v != 0 && v != 1 {
		return fmt.Errorf("assumption %s is %v, want 0 or 1", byID, v)
	}
	return nil
}

// meant names the assumption that was perhaps meant.
func meant(name string) string {
	for _, other := range Names() {
		if len(name) <= maxName && wording.Distance(name, other) <= 2 {
			return fmt.Sprintf(", perhaps %s is meant", other)
		}
	}
	return ""
}
