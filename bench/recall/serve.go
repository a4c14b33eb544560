package recall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Load is what live queries are.
type Load struct {
	QPS      int     // queries a second, whether or not others were answered
	K        int     // how many candidates they ask for
	Segments float64 // share of them that ask for a segment, each for the same one as often
	Seed     uint64
}

const (
	// maxUsers is how many users ask.
	maxUsers = 20_000
	// maxWaiting is how many queries wait for their answers at a time: of a server that does
	// not keep up no more are asked.
	maxWaiting = 64
	askTimeout = 10 * time.Second
)

// askers are who asks a snapshot.
type askers struct {
	users, segments []string
}

// askersOf returns users and segments of a snapshot.
func askersOf(ctx context.Context, store *snapshots.Store, d manifest.Digest) (_ *askers, err error) {
	s, err := snapshots.Open(ctx, store, d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	a := &askers{}
	for _, row := range probe.Pick(s.Tower(shard.Users), maxUsers, nil) {
		a.users = append(a.users, row.ID)
	}
	if len(a.users) == 0 {
		return nil, fmt.Errorf("snapshot %s has no users who could ask", d.Short())
	}
	t := s.Tower(shard.Apps)
	for i, segment := range t.Segments() {
		if t.SegmentRows()[i] > 0 {
			a.segments = append(a.segments, segment.Name)
		}
	}
	return a, nil
}

// request draws a query.
func (a *askers) request(o *Load, r *rand.Rand) *tandemv1.RetrieveRequest {
	q := &tandemv1.RetrieveRequest{UserId: a.users[r.IntN(len(a.users))], K: uint32(o.K)}
	if len(a.segments) > 0 && r.Float64() < o.Segments {
		q.Segment = a.segments[r.IntN(len(a.segments))]
	}
	return q
}

// serving runs a server in this process until stop is called.
func serving(ctx context.Context, c server.Config) (address string, stop func() error, err error) {
	running, cancel := context.WithCancel(ctx)
	ready, done := make(chan struct{}), make(chan error, 1)
	listening := make(chan net.Addr, 1)
	c.Listen, c.Logger = "127.0.0.1:0", slog.New(slog.DiscardHandler)
	c.Listening = func(a net.Addr) { listening <- a }
	c.Ready = func(server.Snapshot) { close(ready) }
	go func() { done <- server.Run(running, c) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		return "", nil, errors.Join(err, ctx.Err())
	}
	return (<-listening).String(), func() error { cancel(); return <-done }, nil
}

// sent counts queries.
type sent struct {
	answered, failed, late atomic.Int64
	failure                atomic.Pointer[error] // the last
}

// text is the last failure; empty if there is none.
func (s *sent) text() string {
	if err := s.failure.Load(); err != nil {
		return (*err).Error()
	}
	return ""
}

// send asks until ctx ends.
func (a *askers) send(ctx context.Context, address string, o *Load, n *sent) {
	transport := &http.Transport{MaxIdleConnsPerHost: maxWaiting}
	defer transport.CloseIdleConnections()
	client := tandemv1connect.NewRetrievalServiceClient(&http.Client{Transport: transport, Timeout: askTimeout}, "http://"+address)
	r := rand.New(rand.NewPCG(o.Seed, 1))
	var waiting sync.WaitGroup
	defer waiting.Wait()
	places := make(chan struct{}, maxWaiting)
	ticker := time.NewTicker(time.Second / time.Duration(o.QPS))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		q := a.request(o, r)
		select {
		case places <- struct{}{}:
		default:
			n.late.Add(1)
			continue
		}
		waiting.Go(func() {
			defer func() { <-places }()
			if _, err := client.Retrieve(context.WithoutCancel(ctx), connect.NewRequest(q)); err != nil {
				n.failed.Add(1)
				n.failure.Store(&err)
				return
			}
			n.answered.Add(1)
		})
	}
}
