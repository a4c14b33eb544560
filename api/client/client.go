package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/api/latency"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// Client asks servers. It is safe for concurrent use, and a process needs one: what it knows of
// servers, its connections and its budgets are shared by all calls. Close it.
type Client struct {
	options options
	pool    *pool
	token   token
	retries *budget
	hedges  *budget
	speed   [3]latency.Calls // by procedure
	batches *batcher         // nil unless calls are collected

	ctx    context.Context // ends with the client
	end    context.CancelFunc
	group  sync.WaitGroup
	mu     sync.Mutex // of closed, and group.Go beside group.Wait
	closed bool
}

// Call is what became of a call, for metrics.
type Call struct {
	// Procedure is "Retrieve", "BatchRetrieve" or "GetEmbeddings".
	Procedure string
	// Took is how long the caller has waited.
	Took time.Duration
	// Tries is how many times servers were asked, hedges among them; Retries and Hedges are how many of
	// them were made because one had failed, or was slow.
	Tries, Retries, Hedges int
	// Server is the address of the server that has answered, or was asked last.
	Server string
	// Err is why there is no answer; nil if there is one.
	Err *Error
}

// New returns a client of the servers of a source. It returns at once, asking nobody: whether
// servers are there is seen by calls. An error is about an option or an address.
func New(from Source, list ...Option) (*Client, error) {
	c := &Client{options: defaults()}
	for _, option := range list {
		option(&c.options)
	}
	o := &c.options
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("new client: %w", err)
	}
	o.tls = o.tls.Clone()
	switch s := from.(type) {
	case nil:
		return nil, errors.New("new client: there is no source of servers; accepted: Addresses, or one of your own")
	case *addresses:
		own := &addresses{list: s.list, lookup: s.lookup}
		if err := own.prepare(o.tls != nil); err != nil {
			return nil, fmt.Errorf("new client: %w", err)
		}
		for i, u := range own.urls {
			if err := o.allowsName(u.String()); err != nil {
				return nil, fmt.Errorf("new client: addresses[%d]: %w", i, err)
			}
		}
		from = own
	}
	if o.tokenGiven {
		c.token.now.Store(&o.token)
	}
	c.token.path = o.tokenFile
	if o.tokenFileOpen {
		if o.tokenFile == "" {
			return nil, errors.New("new client: the path of the token file is empty")
		}
		if _, err := c.token.look(); err != nil {
			return nil, fmt.Errorf("new client: %w", err)
		}
	}
	c.retries, c.hedges = newBudget(o.retries), newBudget(o.hedges)
	c.pool = &pool{source: from, options: o, first: make(chan struct{})}
	c.ctx, c.end = context.WithCancel(context.Background())
	if o.batchOn {
		c.batches = &batcher{client: c}
	}
	c.group.Go(c.followServers)
	c.group.Go(c.followToken)
	c.group.Go(c.probe)
	return c, nil
}

// tokenEvery is how often the file of a token is looked at.
const tokenEvery = 3 * time.Second

// lookSoon is how often the source is asked while no server is known.
const lookSoon = 200 * time.Millisecond

// followServers keeps up with where servers are.
func (c *Client) followServers() {
	c.pool.look(c.ctx)
	close(c.pool.first)
	for {
		every := c.options.lookEvery
		if len(c.pool.list()) == 0 {
			every = min(every, lookSoon)
		}
		if !sleep(c.ctx, every) {
			return
		}
		c.pool.look(c.ctx)
	}
}

// followToken keeps up with the file of the token.
func (c *Client) followToken() {
	for c.token.path != "" && sleep(c.ctx, tokenEvery) {
		c.token.lookBy(c.ctx)
	}
}

// probe keeps up with which servers are ready.
func (c *Client) probe() {
	for c.options.probeEvery > 0 && sleep(c.ctx, c.options.probeEvery) {
		c.pool.probe(c.ctx)
	}
}

// Close ends calls that are under way, and lets go of all connections. It returns once nothing of the
// client runs any more. Further calls fail with [Closed]. Closing again does nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.group.Wait()
	for _, e := range c.pool.list() {
		e.close()
	}
	return nil
}

// enter counts a call that begins, and reports whether it may: not once the client is closed.
func (c *Client) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.group.Add(1)
	}
	return !c.closed
}

// The procedures.
const (
	retrieve = iota
	batchRetrieve
	getEmbeddings
)

var procedures = [...]string{"Retrieve", "BatchRetrieve", "GetEmbeddings"}

// Retrieve returns the best candidates for one query. The request must not be changed before it
// returns. Errors are an [*Error].
func (c *Client) Retrieve(ctx context.Context, r *tandemv1.RetrieveRequest) (*tandemv1.RetrieveResponse, error) {
	if c.batches != nil {
		if answer, taken, err := c.batches.retrieve(ctx, r); taken {
			return answer, err
		}
	}
	return c.retrieve(ctx, r)
}

func (c *Client) retrieve(ctx context.Context, r *tandemv1.RetrieveRequest) (*tandemv1.RetrieveResponse, error) {
	answer, err := c.do(ctx, retrieve, func(ctx context.Context, t *try) (any, error) {
		res, err := t.rpc.Retrieve(ctx, request(t, r))
		if err != nil {
			return nil, err
		}
		return res.Msg, t.fresh(res.Msg.Staleness, res.Msg.RequestId)
	})
	if err != nil {
		return nil, err
	}
	return answer.(*tandemv1.RetrieveResponse), nil
}

// Result is the outcome of one query of a batch: an answer or an [*Error].
type Result struct {
	Response *tandemv1.RetrieveResponse
	Err      error
}

// BatchRetrieve answers up to 256 queries in one call. There is one result for each request, in their
// order; queries succeed and fail one by one. Shortly before the deadline those that have an answer come
// back, and the others fail with [DeadlineExceeded]. The error is of the batch as a whole, an [*Error],
// and then there are no results. The requests must not be changed before it returns.
func (c *Client) BatchRetrieve(ctx context.Context, requests []*tandemv1.RetrieveRequest) ([]Result, error) {
	message := &tandemv1.BatchRetrieveRequest{Requests: requests}
	answer, err := c.do(ctx, batchRetrieve, func(ctx context.Context, t *try) (any, error) {
		res, err := t.rpc.BatchRetrieve(ctx, request(t, message))
		if err != nil {
			return nil, err
		}
		return t.results(res.Msg, len(requests))
	})
	if err != nil {
		return nil, err
	}
	return answer.([]Result), nil
}

// results returns the outcomes of a batch. What is stale is dropped query by query, since an arm's
// snapshot may be: if all are, another server may have better ones.
func (t *try) results(m *tandemv1.BatchRetrieveResponse, n int) ([]Result, error) {
	if len(m.Results) != n {
		return nil, t.malformed("the answer has %d results for %d requests", len(m.Results), n)
	}
	list := make([]Result, n)
	stale := 0
	var last error
	for i, r := range m.Results {
		switch of := r.GetOutcome().(type) {
		case *tandemv1.BatchRetrieveResult_Response:
			if err := t.fresh(of.Response.GetStaleness(), of.Response.GetRequestId()); err != nil {
				list[i].Err, last = err, err
				stale++
				continue
			}
			list[i].Response = of.Response
		case *tandemv1.BatchRetrieveResult_Error:
			e := itemError(of.Error)
			e.Server, e.Tries = t.name, t.number
			list[i].Err = e
		default:
			return nil, t.malformed("the result of requests[%d] has neither an answer nor an error", i)
		}
	}
	if stale == n {
		return nil, last
	}
	return list, nil
}

// GetEmbeddings returns vectors of one tower by id. The request must not be changed before it returns.
// Errors are an [*Error]; an id that the tower does not have is none.
func (c *Client) GetEmbeddings(ctx context.Context, r *tandemv1.GetEmbeddingsRequest) (*tandemv1.GetEmbeddingsResponse, error) {
	answer, err := c.do(ctx, getEmbeddings, func(ctx context.Context, t *try) (any, error) {
		res, err := t.rpc.GetEmbeddings(ctx, request(t, r))
		if err != nil {
			return nil, err
		}
		return res.Msg, t.fresh(res.Msg.Staleness, res.Msg.RequestId)
	})
	if err != nil {
		return nil, err
	}
	return answer.(*tandemv1.GetEmbeddingsResponse), nil
}

// request returns what is sent, with its headers.
func request[T any](t *try, m *T) *connect.Request[T] {
	r := connect.NewRequest(m)
	t.header(r.Header())
	return r
}
