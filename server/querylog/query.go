package querylog

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
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
	// Request is the whole RetrieveRequest as protobuf; [Query.Decode] decodes it.
	Request []byte

	// What the request asks for, as in it.
	UserID     string
	AppID      string
	RequestKey string
	K          int64
	Filter     string
	Segment    string

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
	// Candidates are the answer's, best first.
	Candidates []Candidate
}

// Candidate is one candidate of an answer.
type Candidate struct {
	ID    string
	Score float32
}

// New returns the query that a request and its answer are. It aliases the strings of
// both.
func New(at time.Time, latency time.Duration, r *tandemv1.RetrieveRequest, a *tandemv1.RetrieveResponse) (Query, error) {
	request, err := proto.Marshal(r)
	if err != nil {
		return Query{}, fmt.Errorf("record query: %w", err)
	}
	q := Query{
		Time: at.UTC().Truncate(time.Microsecond), RequestID: r.RequestId, Request: request,
		UserID: r.UserId, AppID: r.AppId, K: int64(r.K), Filter: r.Filter, Segment: r.Segment,
		Model: a.Model, ModelVersion: a.ModelVersion, Snapshot: a.Snapshot, Plan: a.Plan.String(),
		Eligible: int64(a.Eligible), Coverage: a.Coverage.GetEligibleShare(), ShardsCut: int64(a.Coverage.GetShardsCut()), LatencyUS: latency.Microseconds(),
		Candidates: make([]Candidate, len(a.Candidates)),
	}
	if a.FallbackUsed != tandemv1.Fallback_FALLBACK_UNSPECIFIED {
		q.Fallback = a.FallbackUsed.String()
	}
	for i, c := range a.Candidates {
		q.Candidates[i] = Candidate{c.GetId(), c.GetScore()}
	}
	return q, nil
}

// Decode returns the request. An error is of class [ErrDamaged].
func (q *Query) Decode() (*tandemv1.RetrieveRequest, error) {
	r := new(tandemv1.RetrieveRequest)
	if err := proto.Unmarshal(q.Request, r); err != nil {
		return nil, fmt.Errorf("request %q: %w: %w", q.RequestID, ErrDamaged, err)
	}
	return r, nil
}

// What a row and a candidate take beside their strings, roughly.
const (
	rowBytes       = 256
	candidateBytes = 32
)

// Size returns about how many bytes of memory a query takes, and at most how many of a
// file.
func (q *Query) Size() int {
	n := rowBytes + len(q.RequestID) + len(q.Request) + len(q.UserID) + len(q.AppID) + len(q.RequestKey) +
		len(q.Filter) + len(q.Segment) + len(q.Fallback) + len(q.Arm) + len(q.Model) + len(q.ModelVersion) + len(q.Snapshot)
	for i := range q.Candidates {
		n += candidateBytes + len(q.Candidates[i].ID)
	}
	return n
}

// Key returns a name for an object that is written from the time on. No two calls
// return the same.
func Key(at time.Time) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	at = at.UTC()
	return Prefix + at.Format(time.DateOnly) + "/" + at.Format(keyTime) + "-" + hex.EncodeToString(random[:]) + extension
}

const (
	keyTime   = "20060102T150405.000Z"
	extension = ".parquet"
)

// written returns the time in an object's name, if it has one.
func written(key string) (time.Time, bool) {
	name := key[strings.LastIndexByte(key, '/')+1:]
	if len(name) < len(keyTime) {
		return time.Time{}, false
	}
	at, err := time.Parse(keyTime, name[:len(keyTime)])
	return at, err == nil
}
