package server

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// heapLimit is a limit of the memory of the process beyond which Go collects more often than
// it would (see [debug.SetMemoryLimit]).
//
// # Goals
//
// The memory of a server has a bound that follows from what requests may take, while they are
// the worst. By itself Go lets the heap grow to twice what was in use when it collected last,
// which is most just after the largest requests.
//
// # Design
//
// The limit has room for twice what requests may take, for the ballast, and for what a server
// takes besides. What the live log has may take more than that, and collecting all the time
// would take the processors from requests: so the limit is never less than what is in use and
// half as much. It is looked at often, since a log that is read may fill the heap within seconds.
type heapLimit struct {
	room int64 // the limit where little is in use
	set  int64 // the limit now
}

const (
	// limitEvery is how often the limit is looked at.
	limitEvery = time.Second
	// besides is what a server takes beside requests and ballast: for connections, and for Go
	// itself.
	besides = 64 << 20
	// maxBallast bounds the ballast.
	maxBallast = 256 << 20
)

// Ballast is how many bytes the command that runs a server is to keep beside it, and not to touch:
// they take none of the memory of the machine, but the heap may grow by as much before Go collects.
// What a server itself keeps is some MiB: as much garbage is made within a tenth of a second, and
// while Go collects it queries wait for some of the processor.
//
// It is as much as requests may take at a time, up to 256 MiB.
func (o Options) Ballast() int64 { return ballastFor(o.withDefaults().MaxBytesInFlight) }

func ballastFor(requests int64) int64 { return min(requests, maxBallast) }

// limitHeap holds the limit until ctx ends, for requests that may take so many bytes. A limit
// that somebody has set stays as it is.
func limitHeap(ctx context.Context, requests int64) {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	defer debug.SetMemoryLimit(math.MaxInt64)
	l := &heapLimit{room: 2*requests + ballastFor(requests) + besides}
	ticker := time.NewTicker(limitEvery)
	defer ticker.Stop()
	for {
		l.look(heapInUse())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// look sets the limit for a number of bytes in use. To set it stops the process for a moment:
// it stays where it is nearly right.
func (l *heapLimit) look(used int64) {
	want := max(l.room, used+used/2)
	if want == l.set || want > l.room && max(want-l.set, l.set-want) < l.set/8 {
		return
	}
	l.set = want
	debug.SetMemoryLimit(want)
}

// heapInUse returns how many bytes of the heap were in use when Go collected last.
func heapInUse() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}
