package client

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

const (
	// lossesInARow is how many calls in a row a server fails before it is left alone, for leaveFirst
	// then, and twice as long each time after that, up to leaveMost.
	lossesInARow = 3
	leaveFirst   = 500 * time.Millisecond
	leaveMost    = 15 * time.Second
	// mute is for how long a server has answered nothing before calls that ran out of time count
	// as lost: a caller may have had little time.
	mute = 500 * time.Millisecond
	// rampTime is how long it takes until a server that is back is given as much as others, and
	// rampLeast the share that it begins with.
	rampTime  = 5 * time.Second
	rampLeast = 0.05
	// latencyTime is in how long what is known of a server's speed loses most of its weight.
	latencyTime = 3 * time.Second
	// unknownLatency is assumed of a server that was never asked: it is to be asked soon.
	unknownLatency = 200 * time.Microsecond
	// refusedFactor is how many times as slow a server is taken for that has refused for overload:
	// a refusal is quick, and must not draw more calls to it.
	refusedFactor = 4
)

// endpoint is a server as the client sees it.
type endpoint struct {
	Server
	name string
	rpc  tandemv1connect.RetrievalServiceClient
	http *http.Client

	inFlight atomic.Int32
	unready  atomic.Bool // it says that it is not ready

	mu      sync.Mutex
	latency float64   // of a call, in nanoseconds, a mean over the last ones; 0: none yet
	at      time.Time // when it was last observed
	losses  int       // in a row
	mute    time.Time // since when it has answered nothing; zero if it has
	until   time.Time // it is left alone
	left    int       // how often it was left alone since it has answered last
	back    time.Time // when it has answered again; zero if it never was left alone
}

// newEndpoint returns a server that is asked as options say.
func newEndpoint(s Server, o *options) *endpoint {
	e := &endpoint{Server: s, name: s.String()}
	var transport http.RoundTripper
	if o.transport != nil {
		transport = o.transport(s)
	} else {
		dialer := &net.Dialer{Timeout: o.dial, KeepAlive: 15 * time.Second}
		t := &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if s.Dial != "" {
					address = s.Dial
				}
				return dialer.DialContext(ctx, network, address)
			},
			TLSClientConfig:     o.tls.Clone(),
			TLSHandshakeTimeout: 5 * time.Second,
			Protocols:           new(http.Protocols),
			DisableCompression:  true,
			MaxConnsPerHost:     o.connections,
			MaxIdleConnsPerHost: o.connections,
			IdleConnTimeout:     20 * time.Second, // before servers do, at 30 s, so that none is used as it closes
		}
		if o.http2 {
			t.MaxConnsPerHost = 0
			t.Protocols.SetHTTP2(true)
			t.Protocols.SetUnencryptedHTTP2(true)
			t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 2 * time.Second}
		} else {
			t.Protocols.SetHTTP1(true)
		}
		transport = t
	}
	e.http = &http.Client{
		Transport: transport,
		// Servers send nobody on, and a token must not go elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	calls := *e.http
	calls.Transport = explained{transport}
	e.rpc = tandemv1connect.NewRetrievalServiceClient(&calls, s.URL,
		connect.WithReadMaxBytes(o.maxAnswer),
		connect.WithAcceptCompression("gzip", nil, nil)) // within a data centre bytes cost less than CPU
	return e
}

// explained makes an error of an answer that is none of a Tandem server, such as one of a proxy: the
// library would lose when to retry.
type explained struct{ below http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (x explained) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := x.below.RoundTrip(r)
	if err != nil || answer.StatusCode == http.StatusOK || strings.HasPrefix(answer.Header.Get("Content-Type"), "application/json") {
		return answer, err
	}
	_ = answer.Body.Close()
	return nil, &foreignError{answer.StatusCode, retryAfter(answer.Header)}
}

// foreignError is the answer of something else than a Tandem server.
type foreignError struct {
	status     int
	retryAfter time.Duration
}

// Error implements error.
func (f *foreignError) Error() string {
	return fmt.Sprintf("the answer is HTTP %d %s, and not of a Tandem server", f.status, http.StatusText(f.status))
}

// code is the code that gRPC gives to an answer of HTTP, but for too many requests.
func (f *foreignError) code() connect.Code {
	switch f.status {
	case http.StatusTooManyRequests:
		return connect.CodeResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return connect.CodeUnavailable
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return connect.CodeUnimplemented
	}
	return connect.CodeUnknown
}

// begin counts a call that begins.
func (e *endpoint) begin() { e.inFlight.Add(1) }

// outcome is how a try has ended.
type outcome int

const (
	answered outcome = iota
	refused          // for overload
	failed           // it has no answer, and others may
	silent           // time was over before it had answered
	dropped          // the caller has given up: nothing is known of the server
)

// end takes in a try that has ended.
func (e *endpoint) end(took time.Duration, how outcome) {
	e.inFlight.Add(-1)
	if how == dropped {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	switch how {
	case answered:
		e.observe(now, float64(took))
		e.works(now)
		return
	case refused:
		e.observe(now, max(float64(took), refusedFactor*max(e.latency, float64(unknownLatency))))
		e.works(now)
		return
	case silent:
		e.observe(now, float64(took))
		if e.mute.IsZero() {
			e.mute = now.Add(-took)
		}
		if now.Sub(e.mute) < mute {
			return
		}
	default:
		// A failure is quick, and must not make the server look fast.
		e.observe(now, max(float64(took), refusedFactor*max(e.latency, float64(unknownLatency))))
	}
	e.losses++
	if e.losses < lossesInARow || now.Before(e.until) {
		return
	}
	// Clients that saw the same failure come back at different times.
	wait := min(leaveFirst<<min(e.left, 10), leaveMost)
	e.until = now.Add(wait/2 + rand.N(wait/2) + wait/4)
	e.left, e.losses = e.left+1, lossesInARow-1
}

// works takes in that a server has answered. If it was left alone, it is back.
func (e *endpoint) works(now time.Time) {
	if e.left > 0 {
		e.back = now
	}
	e.losses, e.left, e.mute = 0, 0, time.Time{}
}

// observe takes in how long a call took: a call counts a tenth, and what is older less.
func (e *endpoint) observe(now time.Time, took float64) {
	if e.latency == 0 {
		e.latency, e.at = took, now
		return
	}
	kept := 0.9 * math.Exp(-max(now.Sub(e.at), 0).Seconds()/latencyTime.Seconds())
	e.latency, e.at = kept*e.latency+(1-kept)*took, now
}

// alone returns until when a server is left alone, zero if it is not.
func (e *endpoint) alone(now time.Time) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Before(e.until) {
		return e.until
	}
	return time.Time{}
}

// rank is how a server compares with another one: the lower the better.
func (e *endpoint) rank(now time.Time) float64 {
	e.mu.Lock()
	latency, at, back, left := e.latency, e.at, e.back, e.left
	e.mu.Unlock()
	if latency == 0 {
		latency = float64(unknownLatency)
	} else if idle := now.Sub(at); idle > 0 { // it may be faster by now
		latency = max(latency*math.Exp(-idle.Seconds()/latencyTime.Seconds()), float64(unknownLatency))
	}
	queue := 1 + float64(e.inFlight.Load())
	if left > 0 || !back.IsZero() {
		share := rampLeast
		if left == 0 {
			share = max(now.Sub(back).Seconds()/rampTime.Seconds(), rampLeast)
		}
		if share < 1 && rand.Float64() > share {
			return math.Inf(1)
		}
	}
	return latency * queue * queue
}

// probe asks whether the server is ready. Only an answer that says so counts: what is before a
// server may not let probes through.
func (e *endpoint) probe(ctx context.Context) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL+"/readyz", nil)
	if err != nil {
		return
	}
	answer, err := e.http.Do(request)
	if err != nil {
		return // calls find out, and count it
	}
	_ = answer.Body.Close()
	e.unready.Store(answer.StatusCode == http.StatusServiceUnavailable)
}

// close lets go of connections that nobody uses.
func (e *endpoint) close() { e.http.CloseIdleConnections() }
