package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Option changes how a client asks. Each has a default, which its function says.
type Option func(*options)

type options struct {
	deadline      time.Duration
	fence         time.Duration
	retries       float64
	hedges        float64
	http2         bool
	connections   int
	maxAnswer     int
	tls           *tls.Config
	token         string
	tokenFile     string
	tokenInClear  bool
	priority      string
	batchWait     time.Duration
	batchSize     int
	observe       func(Call)
	transport     func(Server) http.RoundTripper
	lookEvery     time.Duration
	probeEvery    time.Duration
	dial          time.Duration
	hedgesOn      bool
	batchOn       bool
	tokenGiven    bool
	tokenFileOpen bool
}

func defaults() options {
	return options{
		deadline: time.Second, fence: 5 * time.Second, retries: 0.1, connections: 256, maxAnswer: 64 << 20,
		lookEvery: 5 * time.Second, probeEvery: time.Second, dial: time.Second,
	}
}

// WithDeadline sets how long a call takes at most whose context has no deadline. The default is
// a second.
func WithDeadline(d time.Duration) Option { return func(o *options) { o.deadline = d } }

// WithFence sets the fence of the servers, their --live-fence. An answer whose proof that no
// takedown is missing, at the time at which the client has it, is older than the fence and the time
// that the call had, is dropped: [AnswerStale]. Only a server that answers beyond its fence
// (--live-stale answer), one that stood still between its last look and its answer, or a client that
// stood still, come to that. 0 takes answers of any age. The default is 5 seconds, as that of servers.
func WithFence(d time.Duration) Option { return func(o *options) { o.fence = d } }

// WithRetries sets how many calls may be repeated, as a share of all: 0, none, to 1. The default is
// 0.1, and 10 at first.
func WithRetries(share float64) Option { return func(o *options) { o.retries = share } }

// WithHedges has a second server asked where the first takes longer than 95 of 100 calls do, and
// the answer that is first counts; share, above 0 to 1, is of how many calls at most. The default
// is none: a hedge costs the servers a second search, and HTTP/1.1 the connection of the loser.
func WithHedges(share float64) Option {
	return func(o *options) { o.hedges, o.hedgesOn = share, true }
}

// WithHTTP2 speaks HTTP/2, without TLS too, on one connection to each server. It is for where
// connections are scarce: calls cost more CPU, and wait for one another where packets are lost. The
// default is HTTP/1.1.
func WithHTTP2() Option { return func(o *options) { o.http2 = true } }

// WithConnections sets how many connections of HTTP/1.1 a server has from this client at most, 1 to
// 10,000; a call that finds all in use waits for one. The default is 256.
func WithConnections(n int) Option { return func(o *options) { o.connections = n } }

// WithMaxAnswer sets how many bytes an answer has at most. The default is 64 MiB, where servers give
// 4 MiB unless they are told otherwise.
func WithMaxAnswer(bytes int) Option { return func(o *options) { o.maxAnswer = bytes } }

// WithTLS sets how TLS is spoken; config is not changed, nor may it be from then on. The default is
// as the system has it. With it, addresses without a scheme are https.
func WithTLS(config *tls.Config) Option { return func(o *options) { o.tls = config } }

// WithToken sends a token.
func WithToken(token string) Option {
	return func(o *options) { o.token, o.tokenGiven = token, true }
}

// WithTokenFile sends the token that a file has, which is read again when it changes, within 3 seconds
// and when a server refuses the token. One that cannot be read leaves the token before in use.
func WithTokenFile(path string) Option {
	return func(o *options) { o.tokenFile, o.tokenFileOpen = path, true }
}

// WithTokenInClear lets a token be sent without TLS, where something else keeps strangers from
// reading it, as a mesh does. The default sends it without TLS to this machine only.
func WithTokenInClear() Option { return func(o *options) { o.tokenInClear = true } }

// WithPriority sets the priority of calls: "live", "batch" or "audit". An overloaded server
// refuses audit first. The default is that of the token.
func WithPriority(p string) Option { return func(o *options) { o.priority = p } }

// WithBatching collects calls of Retrieve that are made at the same time, for wait at most (above
// 0, up to 100 ms) or until there are size (2 to 256), and sends them as one BatchRetrieve. A call
// that has less than twice that time left, or more than twice or less than half as much as the
// first of the batch, goes by itself. Observers are told of the batch. The default is not to: a batch is
// answered as a whole.
func WithBatching(wait time.Duration, size int) Option {
	return func(o *options) { o.batchWait, o.batchSize, o.batchOn = wait, size, true }
}

// WithObserver has a function called after each call, by the goroutine that made it, as for metrics.
// It must not block.
func WithObserver(observe func(Call)) Option { return func(o *options) { o.observe = observe } }

// WithTransport sets what sends the requests to a server, as for a mesh, a socket or a test. It
// decides on connections, HTTP/2 and TLS then. If it has a method CloseIdleConnections, that is
// called once the server is gone, and by Close.
func WithTransport(transport func(Server) http.RoundTripper) Option {
	return func(o *options) { o.transport = transport }
}

// WithLookups sets how often the source is asked where servers are. The default is 5 seconds.
func WithLookups(every time.Duration) Option { return func(o *options) { o.lookEvery = every } }

// WithProbes sets how often each server is asked at /readyz whether it is ready; 0 never. The default
// is a second: half of the time for which a server that is about to end says so before it ends.
func WithProbes(every time.Duration) Option { return func(o *options) { o.probeEvery = every } }

// validate returns an error that names the option out of bounds.
func (o *options) validate() error {
	switch {
	case o.deadline <= 0:
		return fmt.Errorf("deadline is %s; accepted: more than 0", o.deadline)
	case o.fence < 0:
		return fmt.Errorf("fence is %s; accepted: more than 0, or 0 for none", o.fence)
	case !(o.retries >= 0 && o.retries <= 1):
		return fmt.Errorf("retries is %g; accepted: 0 to 1", o.retries)
	case o.hedgesOn && !(o.hedges > 0 && o.hedges <= 1):
		return fmt.Errorf("hedges is %g; accepted: above 0, up to 1", o.hedges)
	case o.connections < 1 || o.connections > 10_000:
		return fmt.Errorf("connections is %d; accepted: 1 to 10000", o.connections)
	case o.maxAnswer < 1:
		return fmt.Errorf("max answer is %d bytes; accepted: at least 1", o.maxAnswer)
	case o.tokenGiven && o.tokenFileOpen:
		return errors.New("there is a token and a file of one; accepted: one of them")
	case o.tokenGiven && !isToken(o.token):
		return errors.New("the token is not one; accepted: visible characters of ASCII, without spaces")
	case o.priority != "" && o.priority != "live" && o.priority != "batch" && o.priority != "audit":
		return fmt.Errorf("priority is %.200q; accepted: live, batch, audit", o.priority)
	case o.batchOn && (o.batchWait <= 0 || o.batchWait > 100*time.Millisecond):
		return fmt.Errorf("the wait for a batch is %s; accepted: above 0, up to 100ms", o.batchWait)
	case o.batchOn && (o.batchSize < 2 || o.batchSize > 256):
		return fmt.Errorf("the size of a batch is %d; accepted: 2 to 256", o.batchSize)
	case o.lookEvery <= 0:
		return fmt.Errorf("lookups are made every %s; accepted: more than 0", o.lookEvery)
	case o.probeEvery < 0:
		return fmt.Errorf("probes are made every %s; accepted: more than 0, or 0 for none", o.probeEvery)
	}
	return nil
}
