package metrics

import (
	"time"

	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// State is what a server is at one moment, as far as it is shown.
type State struct {
	Phase Phase
	Ready bool // whether requests should be sent to it
	// Generation is that of the release that answers, and Target that of the newest entry of
	// the log of releases; 0 without.
	Generation, Target uint64
	Since              time.Time // when it began to answer; zero if nothing does
	Arms               []Arm
	Mapped             []Mapped // what is mapped, with what does not answer
	Releases           Log
	Live               *Live // nil where none is followed, or it was not read yet
	Memory             Memory
	CPU                CPU
	Load               *Load // nil where nothing bounds the requests
	Connections        *Connections
	Audits             *audit.Counts // nil if there are none
	Certificate        *Certificate  // of the server; nil in clear text
	Cluster            *Cluster      // nil unless it is a router
}

// Cluster is what a router knows of its nodes, and what it did beside requests to one replica of
// each shard since it began.
type Cluster struct {
	// The nodes that are known, by what is made of them.
	Ready, Starting, Stopping, Lost, Out int
	// Shards of the snapshots that are open, those of them with fewer nodes that are ready than
	// there are to be, and those with none.
	Shards, Short, Uncovered int
	Lag                      time.Duration // since when there is a newer position than is asked
	Unlisted                 bool          // something is wrong with who lists the nodes
	// Counts, since it began.
	Retries, DeniedRetries, Hedges, HedgesWon, Ejections int64
}

// Certificate is how long a certificate counts.
type Certificate struct{ From, Until time.Time }

// Phase is where a server is in its life.
type Phase int

// The phases.
const (
	Loading Phase = iota
	Serving
	Draining
)

// Arm is a snapshot that answers.
type Arm struct {
	Name      string
	Weight    int       // of 1,000
	Published time.Time // when its snapshot was; zero if that is not known
	Inputs    uint64    // the position in the live log that its inputs reflect
	Lost      int       // shards that can no longer be read
	Apps      Tower
	Users     Tower
	Recall    []audit.Stratum // what audits know of its queries, empty without
}

// Tower is one tower of an arm, with what lies over it.
type Tower struct {
	Rows       int   // of the snapshot
	Dead       int   // of those, that are not returned
	Changed    int   // of those, that have other attributes
	Fresh      int   // rows that were upserted
	FreshBytes int64 // that those have
	Windows    int   // rows that have a window
	Misfits    int   // events that do not fit the snapshot, and do not count in it
}

// Mapped is a snapshot that is mapped.
type Mapped struct {
	Snapshot            manifest.Digest
	Model, ModelVersion string
	Arm                 string // that it is, empty if it does not answer
}

// Log is what is known of a log.
type Log struct {
	Followed  bool
	Broken    bool          // it does not go on from what was read
	Staleness time.Duration // age of the last proof that it ends where it was read to
}

// Live is what is known of the live log.
type Live struct {
	Log
	Position   uint64
	Fence      time.Duration
	Refuses    bool // whether queries are refused, because it is staler than the fence
	Takedowns  int
	Forgotten  int // users
	FreshBytes int64
	FreshLimit int64
}

// Memory is what is mapped, in bytes.
type Memory struct {
	Mapped int64
	Limit  int64 // 0 if there is none
}

// CPU is how long the process lacked processors, as far as the kernel tells; nil if it does
// not. Each only grows.
type CPU struct {
	// GroupWait is how long a thread of the control group of the process, or several, waited for a
	// processor, and MachineWait the same of any thread of the machine.
	GroupWait, MachineWait *time.Duration
	// Throttled is how long processors were held back from the group by its limit, or by those
	// of groups that it is in, summed over the processors.
	Throttled *time.Duration
}

// Load is what requests to methods take, and what of it is let in.
type Load struct {
	Requests, MaxRequests   int
	ShortWork, MaxShortWork time.Duration // estimated, of one processor
	LongWork, MaxLongWork   time.Duration
	Correction              float64 // of estimates, by what was measured
	Bytes, MaxBytes         int64
	Turns, MaxTurns         int
	Queue, MaxQueue         int
}

// Connections are those to the server.
type Connections struct {
	Open, Max        int
	Refused, Flooded uint64 // since it began
}
