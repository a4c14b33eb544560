package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// trouble is what a request through a [brokenProxy] may run into.
type trouble string

const (
	hang  trouble = "hang"  // it is never answered
	stall trouble = "stall" // half of the answer comes, and then nothing
	cut   trouble = "cut"   // the connection is reset instead of an answer, and the store knows nothing of it
	lost  trouble = "lost"  // the store answers, and the connection is reset
	half  trouble = "half"  // the connection is reset after half of the answer
	slow  trouble = "slow"  // the answer comes late, and little by little
	fail  trouble = "fail"  // the answer is 500 or 503
)

// troubles are what a share of requests runs into for some time.
type troubles struct {
	name  string
	share float64
	kinds []trouble
	only  func(*http.Request) bool // nil is all requests
}

// brokenProxy is an HTTP proxy before an object store. Whether it does something to a
// request, and what, is drawn from a seed. It knows how fresh what went through it can be.
type brokenProxy struct {
	server *httptest.Server
	store  *url.URL
	client *http.Transport
	late   time.Duration // how late a slow answer may begin
	closed chan struct{}

	mu      sync.Mutex
	random  *rand.Rand
	now     troubles
	counts  map[trouble]int
	passed  int       // requests without trouble
	freshen time.Time // when the last request for the releases came of those that were answered
}

// newBrokenProxy returns a proxy before the store at an address, without trouble.
func newBrokenProxy(t *testing.T, store string, late time.Duration, seed uint64) *brokenProxy {
	u, err := url.Parse(store)
	require.NoError(t, err)
	p := &brokenProxy{
		store: u, client: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}, late: late, closed: make(chan struct{}),
		random: rand.New(rand.NewPCG(seed, 1)), counts: map[trouble]int{},
	}
	p.server = httptest.NewServer(p)
	t.Cleanup(func() {
		close(p.closed)
		p.server.CloseClientConnections()
		p.server.Close()
		p.client.CloseIdleConnections()
	})
	return p
}

// set changes what requests run into from now on. Those that hang go on hanging.
func (p *brokenProxy) set(now troubles) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = now
}

// fresh returns when the last request for the releases came that was answered: nobody
// behind the proxy can know more than was so then.
func (p *brokenProxy) fresh() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.freshen
}

// draw decides what a request runs into, empty for nothing, and a number from 0 to 1.
func (p *brokenProxy) draw(r *http.Request) (trouble, float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	amount := p.random.Float64()
	if p.random.Float64() >= p.now.share || p.now.only != nil && !p.now.only(r) {
		p.passed++
		return "", amount
	}
	kind := p.now.kinds[p.random.IntN(len(p.now.kinds))]
	p.counts[kind]++
	return kind, amount
}

// lists reports whether a request lists objects.
func lists(r *http.Request) bool { return r.URL.Query().Has("list-type") }

// forReleases reports whether a request reads the log of releases.
func forReleases(r *http.Request) bool {
	return strings.Contains(r.URL.Path, "releases/") || strings.Contains(r.URL.Query().Get("prefix"), "releases/")
}

// ServeHTTP implements [http.Handler].
func (p *brokenProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	came := time.Now()
	kind, amount := p.draw(r)
	switch kind {
	case hang:
		p.wait(r, time.Hour)
		panic(http.ErrAbortHandler)
	case cut:
		reset(w)
		return
	case fail:
		status := http.StatusInternalServerError
		if amount < 0.5 {
			status = http.StatusServiceUnavailable
		}
		w.WriteHeader(status)
		return
	case slow:
		p.wait(r, time.Duration(amount*float64(p.late)))
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI = p.store.Scheme, p.store.Host, ""
	answer, err := p.client.RoundTrip(out) // with the Host that it is signed for
	if err != nil {
		reset(w)
		return
	}
	defer answer.Body.Close()
	if kind == lost {
		reset(w)
		return
	}
	maps.Copy(w.Header(), answer.Header)
	broken := kind == half || kind == stall
	if r.Method == http.MethodHead {
		if broken { // it has no half
			reset(w)
			return
		}
		w.Header().Set("Content-Length", answer.Header.Get("Content-Length"))
	}
	if !broken && forReleases(r) && (answer.StatusCode < 300 || answer.StatusCode == http.StatusNotFound) {
		p.mu.Lock()
		if came.After(p.freshen) {
			p.freshen = came
		}
		p.mu.Unlock()
	}
	p.answer(w, r, answer, kind)
}

// answer sends on an answer, or half of it.
func (p *brokenProxy) answer(w http.ResponseWriter, r *http.Request, answer *http.Response, kind trouble) {
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		reset(w)
		return
	}
	if r.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(answer.StatusCode)
	send := func(part []byte) {
		_, _ = w.Write(part) // the client may be gone
		_ = http.NewResponseController(w).Flush()
	}
	switch kind {
	case half, stall:
		send(body[:len(body)/2])
		if kind == stall {
			p.wait(r, time.Hour)
		}
		panic(http.ErrAbortHandler)
	case slow:
		for part := range slices.Chunk(body, 16<<10) {
			send(part)
			p.wait(r, 50*time.Millisecond)
		}
	default:
		_, _ = w.Write(body)
	}
}

// wait waits for some time, until the client has gone, or until the proxy is closed.
func (p *brokenProxy) wait(r *http.Request, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-r.Context().Done():
	case <-p.closed:
	case <-timer.C:
	}
}

// reset resets the connection of a request.
func reset(w http.ResponseWriter) {
	connection, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, is := connection.(*net.TCPConn); is {
		_ = tcp.SetLinger(0) // what remains unsent is thrown away
	}
	_ = connection.Close()
}

// String says what requests ran into.
func (p *brokenProxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf("%d requests passed", p.passed)
	for _, kind := range slices.Sorted(maps.Keys(p.counts)) {
		text += fmt.Sprintf(", %s %d", kind, p.counts[kind])
	}
	return text
}

func TestBrokenProxy(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	}))
	defer store.Close()
	p := newBrokenProxy(t, store.URL, time.Second, 1)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	get := func() (status, size int, err error) {
		answer, err := client.Get(p.server.URL + "/bucket/releases/000000000001.json")
		if err != nil {
			return 0, 0, err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return answer.StatusCode, len(body), err
	}
	for _, c := range []struct {
		kind    trouble
		timeout time.Duration // in which the header of a body that stalls comes, on a busy machine
		want    string
	}{
		{hang, 300 * time.Millisecond, "Client.Timeout exceeded while awaiting headers"}, {stall, 5 * time.Second, "Client.Timeout .* while reading body"},
		{cut, 0, "reset|EOF"}, {lost, 0, "reset|EOF"}, {half, 0, "reset|EOF"},
	} {
		client.Timeout = c.timeout
		p.set(troubles{share: 1, kinds: []trouble{c.kind}})
		_, _, err := get()
		require.Error(t, err, "%s", c.kind)
		assert.Regexp(t, c.want, err.Error(), "%s", c.kind)
		assert.Zero(t, p.fresh(), "%s", c.kind)
	}
	p.set(troubles{share: 1, kinds: []trouble{fail}})
	status, _, err := get()
	require.NoError(t, err)
	assert.Contains(t, []int{500, 503}, status)
	p.set(troubles{share: 1, kinds: []trouble{cut}, only: lists})
	start := time.Now()
	status, size, err := get()
	require.NoError(t, err)
	assert.Equal(t, []int{200, 100_000}, []int{status, size})
	assert.False(t, p.fresh().Before(start))
}
