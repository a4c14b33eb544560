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
	heapBytes     = "heap_bytes"
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
		{idBytes, 16, "bytes", "an id", byDefault, 1, 256},
		{rowsExponent, 0.43, "", "the time of a search grows by this power of the rows of a shard", "default: distances that walks compute at equal recall", 0, 1},
		{askedExponent, 0.6, "", "and by this power of how many rows a shard is to find", "default: distances of the README for k of 10 and 100", 0, 2},
		{recallPower, 0.3, "", "and by this power of 1 / (1 - recall)", "default: distances of the README for targets of 0.95 to 0.999", 0, 1},
		{dimCost, 0.024, "", "what a component adds to the time of a distance without any", "default: what admission reckons with (shard/cost.go)", 0, 1},
		{filterFactor, 1, "times", "as long a search takes with the filters that queries have", "default: queries without filters", 0.05, 1000},
		{coreSpeed, 1, "times", "as fast a vcpu is as a processor that was measured", byDefault, 0.05, 20},
		{callFactor, 1, "times", "as much a call takes of processors as was measured", byDefault, 0.05, 20},
		{wakeFactor, 1, "times", "as long a processor takes to wake as was measured", byDefault, 0, 20},
		{busyShare, 0.4, "", "of the processors may be at work at the peak", byDefault, 0.01, 0.9},
		{memoryShare, 0.8, "", "of the memory may be mapped", "default: --memory-limit of servers", 0.05, 0.98},
		{heapBytes, 256 << 20, "bytes", "a process may take beside what it maps, by requests", "default: how far the heap of a server grows (docs/serving.md)", 0, 1 << 40},
		{networkTime, 0.1, "ms", "a message takes from one machine to another", byDefault, 0, 1000},
		{sameShare, 0, "", "of the searches of a query take as long as its others do, by rank", "default: shards are drawn apart", 0, 1},
		{againShare, 0.005, "", "of the queries ask a shard a second time", "default: the bound of shard/share.go", 0, 1},
		{byID, 1, "", "of the queries ask for the vector of a user (0 or 1)", "default: queries name a user", 0, 1},
		{buildExponent, 1.1, "", "the time of a build of a shard grows by this power of its rows", byDefault, 0.5, 2},
		{partitionTime, 5, "µs", "of a processor to read and deal a row to its shard", byDefault, 0, 1e6},
		{buildBusy, 0.8, "", "of the processors of a build are at work", byDefault, 0.01, 1},
		{uploadRate, 100, "MB/s", "a machine that builds uploads", byDefault, 0.1, 1e6},
		{downloadRate, 100, "MB/s", "a node downloads", byDefault, 0.1, 1e6},
		{changedShare, 1, "", "of the bytes of a snapshot are not those of the one before", "default: every vector is new", 0.001, 1},
		{releases, 1, "a day", "releases of a new snapshot", byDefault, 0.001, 1000},
		{kept, 7, "", "snapshots are kept in the store", byDefault, 1, 10_000},
		{livePoll, 0.3, "s", "between two looks at the live log", "default: --live-poll of servers, in a bucket", 0.001, 60},
		{releasePoll, 1, "s", "between two looks at the releases", "default: of servers, in a bucket", 0.001, 60},
		{lookRequests, 2.02, "", "requests of a look: two reads, and a list in 64", "default: shard/appendlog/look.go", 1, 100},
		{events, 10, "/s", "live events", byDefault, 0, 1e7},
		{eventBytes, 500, "bytes", "of an event in the log", byDefault, 1, 1 << 20},
		{appendPause, 0.05, "s", "a writer takes to append what has come meanwhile as one entry", byDefault, 1e-4, 60},
		{checkpoints, 1, "a day", "checkpoints of the live log, by tandem snapshot gc", byDefault, 0, 10_000},
		{monthHours, 730, "hours", "in a month", byDefault, 1, 744},
	}
	rows, asked := m.exponents()
	for name, value := range map[string]float64{rowsExponent: rows, askedExponent: asked, buildExponent: m.buildExponent()} {
		i := slices.IndexFunc(list, func(a Assumption) bool { return a.Name == name })
		if a := &list[i]; !math.IsNaN(value) && value >= a.low && value <= a.high {
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
	if i < 0 {
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
