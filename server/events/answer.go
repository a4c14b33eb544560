package events

import (
	"strings"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Arms are the arms that answer.
type Arms struct {
	List []ServedArm // empty if nothing is to answer any more
	Done bool        // they answer, and no others
}

// ServedArm is an arm with what labels may name of it.
type ServedArm struct {
	Name     string
	Segments []string // of the manifest of its snapshot, ascending
}

// RPC is a request for a method that has ended.
type RPC struct {
	// Procedure is the path of the method, such as /tandem.v1.RetrievalService/Retrieve. It is
	// what the caller sent, and may be of no method; empty if it could not be read.
	Procedure string
	Code      connect.Code  // 0 without an error
	Shed      Shed          // what there was too much of, if it was refused for that
	Duration  time.Duration // from when its header had been read to the last byte of its answer
}

// Answer is what one query was answered with, and what that took. It is valid during the call.
type Answer struct {
	Generation uint64 // of the release; 0 without
	Arm        string
	Snapshot   manifest.Digest
	// Segment is empty for a query without one; else the snapshot has it.
	Segment string
	Plan    tandemv1.Plan // unspecified if nothing was eligible
	K       int           // candidates that it asks for
	// Candidates is how many it got, and Short why that is fewer than K.
	Candidates int
	Short      tandemv1.ShortReason
	Eligible   int     // rows, in the shards that answered
	Distances  int     // that were computed, of vectors or their codes
	Coverage   float64 // share of the eligible rows that the answer is based on
	Fallback   bool    // whether its vector is not that of its user, whom the tower does not have
	// Interleaving says whether it was to be drawn from two arms, and whether it was. Of one that
	// was Arm and Snapshot are those of the arm that it would have been of, and what is counted is
	// of both.
	Interleaving Interleaving
	Explored     bool // whether its last places were drawn

	// Wait is for a turn, once it was admitted; Prepare to check the query and find its
	// vector; Search to ask the shards and merge; Encode to make the answer, encode and
	// compress it. A batch waits once, which is told of each item, and what is done for all
	// of its answers together is shared equally among them.
	Wait, Prepare, Search, Encode time.Duration

	// ID is that of the request, or of the item of a batch; Trace and Caller are as in
	// [Request].
	ID, Trace, Caller string
	// Shards say how each took part.
	Shards []shard.ShardAnswer
}

// Interleaving says what became of a query that was to be drawn from two arms.
type Interleaving uint8

// What may have become of it.
const (
	NotToBe      Interleaving = iota // it was not to be
	Interleaved                      // it was drawn from both
	AloneExplain                     // of one arm: it is to be explained
	AloneUsers                       // it is for users
	AloneVector                      // it is by vector, and the arms are of two model versions
	AloneVersion                     // its model version is not that of both arms
	AloneRefused                     // one of the arms cannot answer it

	// MaxInterleaving is the last of them.
	MaxInterleaving = AloneRefused
)

var interleavingNames = [MaxInterleaving + 1]string{"none", "interleaved", "explain", "users", "vector", "model_version", "refused"}

// String returns what labels call it.
func (i Interleaving) String() string { return interleavingNames[min(i, MaxInterleaving)] }

// Interleavings are all but the first.
func Interleavings() (all []Interleaving) {
	for i := Interleaved; i <= MaxInterleaving; i++ {
		all = append(all, i)
	}
	return all
}

// Took is how long the query took once it was admitted.
func (a *Answer) Took() time.Duration { return a.Wait + a.Prepare + a.Search + a.Encode }

// PlanName is what logs, traces and labels call a plan.
func PlanName(p tandemv1.Plan) string {
	if p == tandemv1.Plan_PLAN_UNSPECIFIED {
		return "none"
	}
	return strings.ToLower(strings.TrimPrefix(p.String(), "PLAN_"))
}

// NotFound is a query by an id that its tower does not have.
type NotFound struct {
	Arm string
	// Segment is what the caller has sent, whether or not there is one of that name.
	Segment string
}

// Shed is what there was too much of for a request to be worked on.
type Shed string

// What there is too much of.
const (
	ShedRequests  Shed = "requests"   // requests in flight
	ShedShortWork Shed = "short_work" // short work in flight
	ShedLongWork  Shed = "long_work"  // other work in flight
	ShedBytes     Shed = "bytes"      // bytes of requests and answers in flight
	ShedQueue     Shed = "queue"      // large requests that wait to be looked at
	ShedArrival   Shed = "arrival"    // time that it took to arrive, while others needed its place
	ShedStreams   Shed = "streams"    // open streams
	ShedWait      Shed = "wait"       // time that requests wait to begin
	ShedNodes     Shed = "nodes"      // requests in flight of all nodes that have a shard
	ShedOutcomes  Shed = "outcomes"   // outcomes that wait to be written
	// Of a caller, which has taken its quota, while others may be answered.
	ShedQuotaCPU      Shed = "quota_cpu"       // time of processors
	ShedQuotaInFlight Shed = "quota_in_flight" // requests in flight
)

// IsQuota reports whether it is of the quota of a caller.
func (s Shed) IsQuota() bool { return s == ShedQuotaCPU || s == ShedQuotaInFlight }

// Sheds are all of them.
func Sheds() []Shed {
	return []Shed{
		ShedRequests, ShedShortWork, ShedLongWork, ShedBytes, ShedQueue, ShedArrival, ShedStreams, ShedWait, ShedNodes, ShedOutcomes,
		ShedQuotaCPU, ShedQuotaInFlight,
	}
}
