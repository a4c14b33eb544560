package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// question is one kind of query, for every user.
type question struct {
	K       int
	Exact   bool   // by the exact scan, or else at the server's recall
	Filter  string // in CEL; empty for none
	Segment string // empty for none
}

func (q question) String() string {
	return fmt.Sprintf("k %d, exact %t, filter %q, segment %q", q.K, q.Exact, q.Filter, q.Segment)
}

// request is the query of one user.
func (q question) request(user string) *tandemv1.RetrieveRequest {
	r := &tandemv1.RetrieveRequest{UserId: user, K: uint32(q.K), Filter: q.Filter, Segment: q.Segment}
	if q.Exact {
		r.RecallTarget = proto.Float64(1)
	}
	return r
}

// entry is one app of an order.
type entry struct {
	app   int32
	score float32
}

// known is what one machine answers from a snapshot, with nothing taken down.
type known struct {
	version string
	orders  [][]entry                 // of each user, all apps
	places  []map[int32]int           // of each user and app, where it is in the order
	only    map[string]map[int32]bool // by filter and segment, what it leaves; nil for all
	answers map[question][][]int32    // of each user, to queries that are not exact
}

// Oracle knows what one machine with all shards answers. It is safe for any number of
// goroutines once all is learned.
type Oracle struct {
	Users     []string
	Questions []question
	apps      []string
	number    map[string]int32 // of an app
	snapshots map[string]*known

	mu       sync.Mutex
	releases map[uint64][]string // by generation, of which a number is used again after a restore
}

// released notes which snapshot a generation is of.
func (o *Oracle) released(generation uint64, snapshot string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Contains(o.releases[generation], snapshot) {
		o.releases[generation] = append(o.releases[generation], snapshot)
	}
}

// generation returns which snapshots a generation was of, none if that is not known.
func (o *Oracle) generation(n uint64) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.releases[n])
}

// newOracle returns an oracle that knows nothing yet.
func newOracle(users, apps []string, questions []question) *Oracle {
	o := &Oracle{Users: users, Questions: questions, apps: apps, number: map[string]int32{}, snapshots: map[string]*known{}, releases: map[uint64][]string{}}
	for i, app := range apps {
		o.number[app] = int32(i)
	}
	return o
}

// limited names what a question leaves of the apps.
func (q question) limited() string { return q.Segment + "\x00" + q.Filter }

// learn asks a server of one snapshot all that there is to know of it.
func (o *Oracle) learn(ctx context.Context, snapshot string, client tandemv1connect.RetrievalServiceClient) error {
	k := &known{only: map[string]map[int32]bool{}, answers: map[question][][]int32{}}
	all := question{K: len(o.apps), Exact: true}
	for _, user := range o.Users {
		a, err := client.Retrieve(ctx, connect.NewRequest(all.request(user)))
		if err != nil {
			return fmt.Errorf("learn the order of %s: %w", user, err)
		}
		if a.Msg.Snapshot != snapshot || len(a.Msg.Candidates) != len(o.apps) {
			return fmt.Errorf("learn the order of %s: %d apps of snapshot %.12s, want %d of %.12s", user, len(a.Msg.Candidates), a.Msg.Snapshot, len(o.apps), snapshot)
		}
		k.version = a.Msg.ModelVersion
		order, places := make([]entry, len(o.apps)), make(map[int32]int, len(o.apps))
		for i, c := range a.Msg.Candidates {
			n, ok := o.number[c.Id]
			if !ok {
				return fmt.Errorf("learn the order of %s: app %q is none that was built", user, c.Id)
			}
			order[i], places[n] = entry{n, c.Score}, i
		}
		k.orders, k.places = append(k.orders, order), append(k.places, places)
	}
	for _, q := range o.Questions {
		if err := o.ask(ctx, k, q, client); err != nil {
			return fmt.Errorf("learn %s: %w", q, err)
		}
	}
	o.snapshots[snapshot] = k
	return nil
}

// ask learns what a question leaves, and how it is answered if it is not exact.
func (o *Oracle) ask(ctx context.Context, k *known, q question, client tandemv1connect.RetrievalServiceClient) error {
	if _, ok := k.only[q.limited()]; !ok && q.limited() != "\x00" {
		all := question{K: len(o.apps), Exact: true, Filter: q.Filter, Segment: q.Segment}
		a, err := client.Retrieve(ctx, connect.NewRequest(all.request(o.Users[0])))
		if err != nil {
			return err
		}
		only := map[int32]bool{}
		for _, c := range a.Msg.Candidates {
			only[o.number[c.Id]] = true
		}
		k.only[q.limited()] = only
	}
	if q.Exact {
		return nil
	}
	for _, user := range o.Users {
		a, err := client.Retrieve(ctx, connect.NewRequest(q.request(user)))
		if err != nil {
			return err
		}
		list := make([]int32, len(a.Msg.Candidates))
		for i, c := range a.Msg.Candidates {
			list[i] = o.number[c.Id]
		}
		k.answers[q] = append(k.answers[q], list)
	}
	return nil
}
