package querylog

import (
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Prefix is what the names of a store's recorded queries begin with.
const Prefix = "queries/"

// Version is the version of the format, which each file names. Version 1 is the first.
const Version = "1"

// versionKey is the key of the version in a file's metadata.
const versionKey = "tandem.queries"

// Query is one request that a server has answered, with the answer.
type Query struct {
	// Time is when the request came, to the microsecond.
	Time time.Time
	// RequestID is the request's request_id, given or generated.
	RequestID string
	// Request is the whole request, in an encoding that is of no concern here.
	Request []byte

	// What the request asks for, as in it.
	UserID     string
	AppID      string
	RequestKey string
	K          int64
	Filter     string
	Segment    string
	// Tower is whose rows it asks for; empty where a file does not say.
	Tower shard.Kind
	// Bindings are the kinds of those that it gives to its filter; nil where there is no
	// filter, or a file does not say.
	Bindings map[string]eligibility.Kind

	// Generation and Arm are the release's that answered; 0 and empty without one.
	Generation int64
	Arm        string
	// Model, ModelVersion and Snapshot answered.
	Model        string
	ModelVersion string
	Snapshot     string
	// Plan is the name of the answer's plan, such as PLAN_GRAPH_WALK.
	Plan string
	// Eligible is how many candidates were eligible.
	Eligible int64
	// Coverage is the share of the eligible that the answer is based on, 0 to 1.
	Coverage float64
	// ShardsCut is how many of the shards that answered were cut short.
	ShardsCut int64
	// Fallback is the name of the fallback that the answer is by, such as
	// FALLBACK_MEAN_USER; empty without one.
	Fallback string
	// LatencyUS is the time from the decoded request to the answer, in microseconds.
	LatencyUS int64
	// LiveLog and LiveSequence are the position of the live log that the answer knew; empty and
	// 0 where none is followed, or a file does not say.
	LiveLog      string
	LiveSequence int64
	// Experiment and Variant are those that the request names; empty where it names none.
	Experiment string
	Variant    string
	// Explored is whether places of the answer were drawn.
	Explored bool
	// Candidates are the answer's, best first.
	Candidates []Candidate
	// Next are those that would have come after them, best first; as many as the server was told
	// to keep, and none where it was not.
	Next []Candidate
}

// Candidate is one candidate of an answer.
type Candidate struct {
	ID    string
	Score float32
	// Team is the arm that it was drawn by, of an interleaved answer; else empty.
	Team string
	// Propensity is with which probability it was to be at its place, above 0 and up to 1; 0
	// where nothing was drawn, or a file does not say. Next have none.
	Propensity float32
}

// What a row, a candidate and a binding take beside their strings, roughly.
const (
	rowBytes       = 256
	bindingBytes   = 64
	candidateBytes = 56
)

// Size returns about how many bytes of memory a query takes, and at most how many of a
// file.
func (q *Query) Size() int {
	n := rowBytes + len(q.RequestID) + len(q.Request) + len(q.UserID) + len(q.AppID) + len(q.RequestKey) +
		len(q.Filter) + len(q.Segment) + len(q.Fallback) + len(q.Arm) + len(q.Model) + len(q.ModelVersion) + len(q.Snapshot) +
		len(q.LiveLog) + len(q.Experiment) + len(q.Variant)
	for name, kind := range q.Bindings {
		n += bindingBytes + len(name) + len(kind)
	}
	for i := range q.Candidates {
		n += candidateBytes + len(q.Candidates[i].ID) + len(q.Candidates[i].Team)
	}
	for i := range q.Next {
		n += candidateBytes + len(q.Next[i].ID)
	}
	return n
}
