package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/api/client"
	"github.com/tandem-ann/tandem/api/client/clienttest"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// refusing returns what answers all calls with a reason.
func refusing(t testing.TB, why client.Reason) func(http.ResponseWriter, *http.Request) bool {
	s := towers(t, 1)
	s.Before(func(context.Context, string, proto) error { return clienttest.Refuse(why, "refused") })
	return func(w http.ResponseWriter, r *http.Request) bool { s.ServeHTTP(w, r); return true }
}

func status(code int, retryAfter string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "<html>a proxy</html>")
		return true
	}
}

// reset ends the connection before an answer, or in the middle of one.
func reset(after string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, after)
		_ = conn.Close()
		return true
	}
}

func bytesOf(contentType, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, body)
		return true
	}
}

// TestFaults breaks one of two servers in each way, over real connections: callers notice nothing; and
// then both: the error says what it is.
func TestFaults(t *testing.T) {
	s := towers(t, 20)
	for name, c := range map[string]struct {
		fault func(http.ResponseWriter, *http.Request) bool
		want  client.Reason
		code  connect.Code
	}{
		"proxy, 503":         {status(503, ""), client.Unexplained, connect.CodeUnavailable},
		"proxy, 429":         {status(429, "7"), client.Unexplained, connect.CodeResourceExhausted},
		"reset":              {reset(""), client.Unreachable, connect.CodeUnavailable},
		"cut":                {reset("HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 1000\r\n\r\nabc"), client.Unreachable, connect.CodeUnavailable},
		"no HTTP":            {reset("SSH-2.0-OpenSSH\r\n"), client.AnswerMalformed, connect.CodeUnavailable},
		"wrong bytes":        {bytesOf("application/proto", "\xff\xff\xff\xff"), client.AnswerMalformed, connect.CodeUnavailable},
		"another type":       {bytesOf("text/html", "<html>sign in</html>"), client.AnswerMalformed, connect.CodeUnavailable},
		"overloaded":         {refusing(t, client.Overloaded), client.Overloaded, connect.CodeResourceExhausted},
		"beyond its quota":   {refusing(t, client.QuotaExceeded), client.QuotaExceeded, connect.CodeResourceExhausted},
		"stopping":           {refusing(t, client.Stopping), client.Stopping, connect.CodeUnavailable},
		"cut from its store": {refusing(t, client.LiveStale), client.LiveStale, connect.CodeUnavailable},
		"a lost disk":        {refusing(t, client.ShardUnreadable), client.ShardUnreadable, connect.CodeDataLoss},
		"no coverage":        {refusing(t, client.CoverageTooLow), client.CoverageTooLow, connect.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := listen(t, s), listen(t, s)
			c1 := newClient(t, client.Addresses(a.address(), b.address()), client.WithProbes(0), client.WithDeadline(time.Minute), client.WithRetries(1))
			a.breaks(c.fault)
			for i := range 50 {
				answer, err := c1.Retrieve(t.Context(), query(fmt.Sprintf("user-%03d", i%20), 3))
				require.NoError(t, err)
				require.Len(t, answer.Candidates, 3)
			}
			b.breaks(c.fault)
			c2 := newClient(t, client.Addresses(a.address(), b.address()), client.WithProbes(0), client.WithDeadline(time.Minute), client.WithRetries(0))
			_, err := c2.Retrieve(t.Context(), query("user-001", 3))
			e, ok := errors.AsType[*client.Error](err)
			require.True(t, ok)
			require.Equal(t, c.want, e.Reason, "%v", err)
			require.Equal(t, c.code, e.Code)
			require.Equal(t, 1, e.Tries)
			require.NotEmpty(t, e.Message)
			if strings.HasPrefix(name, "proxy, 429") {
				require.Equal(t, 7*time.Second, e.RetryAfter)
			}
		})
	}
}

// TestNotRepeated has servers give reasons for which another try has no better answer.
func TestNotRepeated(t *testing.T) {
	for _, why := range []client.Reason{client.RuleBroken, client.EntityUnknown, client.ModelVersionNotServed, client.TokenMissing,
		client.ScopeMissing, client.Internal, client.DeadlineExceeded, client.PathUnknown, "NEWER_THAN_THIS"} {
		s := towers(t, 1)
		s.Before(func(context.Context, string, proto) error { return clienttest.Refuse(why, "no") })
		_, err := s.Client(t).Retrieve(t.Context(), query("user-000", 1))
		require.ErrorIs(t, err, why)
		require.Len(t, s.Requests(), 1, why)
	}
}

// world is servers in memory that are broken one by one, in a bubble of time.
type world struct {
	*inMemory
	server *clienttest.Server
	mu     sync.Mutex
	faults map[string]func(*http.Request) (*http.Response, error) // by host; nil answers
	asked  map[string]int
	takes  map[string]time.Duration
}

func newWorld(t testing.TB, n int) *world {
	return &world{inMemory: memorySource(n), server: towers(t, 20), faults: map[string]func(*http.Request) (*http.Response, error){}, asked: map[string]int{}, takes: map[string]time.Duration{}}
}

func (w *world) client(t testing.TB, options ...client.Option) *client.Client {
	c, err := client.New(w, append([]client.Option{client.WithTransport(func(client.Server) http.RoundTripper { return sender(w.send) })}, options...)...)
	require.NoError(t, err)
	return c
}

func (w *world) send(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	host := r.URL.Hostname()
	fault, takes := w.faults[host], w.takes[host]
	if r.URL.Path != "/readyz" {
		w.asked[host]++
	}
	w.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if fault != nil {
		if answer, err := fault(r); answer != nil || err != nil {
			return answer, err
		}
	}
	return handled(w.server, r), nil
}

func (w *world) counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.asked
	w.asked = map[string]int{}
	return out
}

func (w *world) breaks(host string, fault func(*http.Request) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[host] = fault
}

func (w *world) slow(takes time.Duration, host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.takes[host] = takes
}

func unreachable(*http.Request) (*http.Response, error) { return nil, refusedDial }

// TestBudget draws faults, deadlines and options, and looks at what must hold whatever they are: a
// call ends by its deadline, an answer is right, an error is typed, and servers are asked no more
// often than the budgets allow.
func TestBudget(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, rapid.IntRange(1, 4).Draw(rt, "servers"))
			retries := rapid.SampledFrom([]float64{0, 0.1, 1}).Draw(rt, "retries")
			options := []client.Option{client.WithRetries(retries)}
			hedges := rapid.SampledFrom([]float64{0, 0.05}).Draw(rt, "hedges")
			if hedges > 0 {
				options = append(options, client.WithHedges(hedges))
			}
			if rapid.Bool().Draw(rt, "batches") {
				options = append(options, client.WithBatching(time.Millisecond, 4))
			}
			c := w.client(t, options...)
			defer c.Close()
			reasons := []client.Reason{client.Overloaded, client.LiveStale, client.EntityUnknown, client.Internal}
			calls, started := 0, time.Now()
			for range rapid.IntRange(1, 25).Draw(rt, "steps") {
				host := fmt.Sprintf("127.0.0.%d", rapid.IntRange(1, 4).Draw(rt, "host"))
				w.slow(time.Duration(rapid.IntRange(0, 300).Draw(rt, "ms"))*time.Millisecond, host)
				switch rapid.IntRange(0, 3).Draw(rt, "fault") {
				case 0:
					w.breaks(host, nil)
				case 1:
					w.breaks(host, unreachable)
				case 2:
					refuse := refusing(t, rapid.SampledFrom(reasons).Draw(rt, "reason"))
					w.breaks(host, func(r *http.Request) (*http.Response, error) {
						return handled(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { refuse(w, r) }), r), nil
					})
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rapid.IntRange(1, 3000).Draw(rt, "deadline"))*time.Millisecond)
				end, _ := ctx.Deadline()
				var group sync.WaitGroup
				for range rapid.IntRange(1, 6).Draw(rt, "calls") {
					calls++
					group.Go(func() {
						answer, err := c.Retrieve(ctx, query("user-019", 1))
						if time.Now().After(end) {
							t.Errorf("a call has ended %s after its deadline", time.Since(end))
						}
						if err == nil {
							if got := ids(answer); len(got) != 1 || got[0] != "app-019" {
								t.Errorf("the answer is %v", got)
							}
						} else if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason == "" || e.Message == "" {
							t.Errorf("the error is %#v", err)
						}
					})
				}
				group.Wait()
				cancel()
			}
			tries := 0
			for _, n := range w.counts() {
				tries += n
			}
			most := float64(calls)
			for _, share := range []float64{retries, hedges} {
				if share > 0 {
					most += 10 + share*float64(calls) + 0.5*time.Since(started).Seconds()
				}
			}
			if float64(tries) > most {
				t.Errorf("%d calls have asked %d times, want %g at most", calls, tries, most)
			}
		})
	})
}

// TestRetryHint has the only server be overloaded: it is asked again once it has said so, if there is time.
func TestRetryHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.client(t)
		defer c.Close()
		over := true
		w.server.Before(func(context.Context, string, proto) error {
			if over {
				over = false
				return clienttest.Refuse(client.Overloaded, "too much")
			}
			return nil
		})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := c.Retrieve(ctx, query("user-001", 1))
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(start), time.Second)
		require.Less(t, time.Since(start), 1200*time.Millisecond)

		over, start = true, time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = c.Retrieve(ctx, query("user-001", 1))
		require.ErrorIs(t, err, client.Overloaded)
		require.Zero(t, time.Since(start), "it does not wait for what comes too late")
	})
}

// ask makes n calls, one each 5 ms, and fails for an error.
func ask(t *testing.T, c *client.Client, n int) {
	for range n {
		_, err := c.Retrieve(t.Context(), query("user-001", 1))
		require.NoError(t, err)
		time.Sleep(5 * time.Millisecond)
	}
}

// TestEjection has a server fail, and come back: it is left alone, and then given a growing share.
func TestEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		c := w.client(t)
		defer c.Close()
		ask(t, c, 300)
		for host, n := range w.counts() {
			require.InDelta(t, 100, n, 60, host)
		}
		var waits []time.Duration // between calls of the server, from the third on
		last := time.Now()
		w.breaks("127.0.0.2", func(r *http.Request) (*http.Response, error) {
			if r.URL.Path != "/readyz" {
				waits = append(waits, time.Since(last))
				last = time.Now()
			}
			return unreachable(r)
		})
		// The others have much to do, so that one that fails at once would be asked most.
		w.slow(100*time.Millisecond, "127.0.0.1")
		w.slow(100*time.Millisecond, "127.0.0.3")
		var group sync.WaitGroup
		for range 2000 { // 10 s
			group.Go(func() {
				if _, err := c.Retrieve(t.Context(), query("user-001", 1)); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(5 * time.Millisecond)
		}
		group.Wait()
		w.slow(0, "127.0.0.1")
		w.slow(0, "127.0.0.3")
		require.Greater(t, len(waits), 5)
		require.Less(t, len(waits), 10)
		for i, wait := range waits[3:] {
			require.GreaterOrEqual(t, wait, 375*time.Millisecond<<i)
		}
		w.breaks("127.0.0.2", nil)
		for w.counts(); w.counts()["127.0.0.2"] == 0; { // it is left alone for some seconds more
			ask(t, c, 1)
		}
		ask(t, c, 200) // a second
		require.Less(t, w.counts()["127.0.0.2"], 30)
		time.Sleep(10 * time.Second)
		ask(t, c, 600)
		require.InDelta(t, 200, w.counts()["127.0.0.2"], 80)
	})
}

// TestAllFail has all servers be left alone: one of them is asked all the same.
func TestAllFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		c := w.client(t)
		defer c.Close()
		w.breaks("127.0.0.1", unreachable)
		w.breaks("127.0.0.2", unreachable)
		for range 20 {
			_, err := c.Retrieve(t.Context(), query("user-001", 1))
			require.ErrorIs(t, err, client.Unreachable)
		}
		w.breaks("127.0.0.1", nil)
		w.breaks("127.0.0.2", nil)
		_, err := c.Retrieve(t.Context(), query("user-001", 1))
		require.NoError(t, err)
	})
}

// TestSlowServer has one server be ten times as slow: it is asked less, and a refusal, which is quick,
// does not draw calls.
func TestSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.slow(20*time.Millisecond, "127.0.0.1")
		w.slow(2*time.Millisecond, "127.0.0.2")
		c := w.client(t, client.WithRetries(1))
		defer c.Close()
		ask(t, c, 500)
		n := w.counts()
		require.Less(t, 4*n["127.0.0.1"], n["127.0.0.2"], "%v", n)

		time.Sleep(time.Minute) // it is forgotten who was slow
		w.slow(0, "127.0.0.1")
		w.slow(2*time.Millisecond, "127.0.0.2")
		refuse := refusing(t, client.Overloaded)
		w.breaks("127.0.0.1", func(r *http.Request) (*http.Response, error) {
			return handled(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { refuse(w, r) }), r), nil
		})
		ask(t, c, 500)
		n = w.counts()
		require.Less(t, 2*n["127.0.0.1"], n["127.0.0.2"], "%v", n)
	})
}

// TestDrain has a server say that it is not ready: no call goes there any more, and none fails.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		c := w.client(t, client.WithRetries(0))
		defer c.Close()
		ask(t, c, 100)
		w.breaks("127.0.0.1", func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/readyz" {
				return &http.Response{StatusCode: 503, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
			}
			return nil, nil
		})
		time.Sleep(1100 * time.Millisecond)
		w.counts()
		ask(t, c, 100)
		require.Equal(t, map[string]int{"127.0.0.2": 100}, w.counts())
		w.breaks("127.0.0.1", nil)
		time.Sleep(1100 * time.Millisecond)
		ask(t, c, 100)
		require.Greater(t, w.counts()["127.0.0.1"], 20)
	})
}

// TestServersChange has servers come and go, and the source fail.
func TestServersChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		all := memorySource(3).list
		w.set(nil, errors.New("no such host"))
		c := w.client(t)
		defer c.Close()
		_, err := c.Retrieve(t.Context(), query("user-001", 1))
		require.ErrorIs(t, err, client.Unreachable)
		require.ErrorContains(t, err, "no such host")
		w.set(all[:1], nil)
		time.Sleep(300 * time.Millisecond)
		ask(t, c, 50)
		require.Equal(t, map[string]int{"127.0.0.1": 50}, w.counts())
		w.set(all[1:], nil)
		time.Sleep(6 * time.Second)
		ask(t, c, 50)
		require.NotContains(t, w.counts(), "127.0.0.1")
		for _, last := range []struct {
			list []client.Server
			err  error
		}{{nil, nil}, {nil, errors.New("a time-out")}, {[]client.Server{{URL: "no URL"}}, nil}} {
			w.set(last.list, last.err)
			time.Sleep(6 * time.Second)
			ask(t, c, 50) // those that are known go on
		}
	})
}

// TestStale has answers be too old: those of a server that is told to answer all the same, and one
// that a process has when it goes on after it stood still.
func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.client(t, client.WithRetries(0))
		defer c.Close()
		w.server.Staleness = 5900 * time.Millisecond
		_, err := c.Retrieve(t.Context(), query("user-001", 1))
		require.NoError(t, err, "the fence and the default deadline are 6 s")
		w.server.Staleness = 6100 * time.Millisecond
		_, err = c.Retrieve(t.Context(), query("user-001", 1))
		require.ErrorIs(t, err, client.AnswerStale)
		_, err = c.BatchRetrieve(t.Context(), []*tandemv1.RetrieveRequest{query("user-001", 1)})
		require.ErrorIs(t, err, client.AnswerStale)
		_, err = c.GetEmbeddings(t.Context(), &tandemv1.GetEmbeddingsRequest{Ids: []string{"app-001"}})
		require.ErrorIs(t, err, client.AnswerStale)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err = c.Retrieve(ctx, query("user-001", 1))
		require.NoError(t, err, "the caller's deadline counts")

		lax := w.client(t, client.WithFence(0))
		defer lax.Close()
		w.server.Staleness = time.Hour
		_, err = lax.Retrieve(t.Context(), query("user-001", 1))
		require.NoError(t, err)
		w.server.Staleness = -1
		_, err = c.Retrieve(t.Context(), query("user-001", 1))
		require.NoError(t, err, "a server without a log has no staleness")

		// What arrives in spite of the deadline, as where the process stood still meanwhile.
		w.server.Staleness = 4 * time.Second
		w.breaks("127.0.0.1", func(*http.Request) (*http.Response, error) { time.Sleep(3 * time.Second); return nil, nil })
		_, err = c.Retrieve(t.Context(), query("user-001", 1))
		require.Error(t, err)
	})
}

// TestHedge has a server stand still: another one answers, without the budget for retries.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.slow(time.Millisecond, "127.0.0.1")
		w.slow(time.Millisecond, "127.0.0.2")
		var hedges int
		c := w.client(t, client.WithHedges(1), client.WithRetries(0), client.WithDeadline(10*time.Second),
			client.WithObserver(func(k client.Call) { hedges += k.Hedges }))
		defer c.Close()
		ask(t, c, 100)
		require.Zero(t, hedges)
		w.breaks("127.0.0.1", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		for range 50 {
			start := time.Now()
			_, err := c.Retrieve(t.Context(), query("user-001", 1))
			require.NoError(t, err)
			require.Less(t, time.Since(start), 10*time.Millisecond)
		}
		require.Positive(t, hedges)
	})
}

// TestBatching collects calls, each of which gets its own answer or error.
func TestBatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.client(t, client.WithBatching(2*time.Millisecond, 8))
		defer c.Close()
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() {
				id := fmt.Sprintf("user-%03d", i)
				r := &tandemv1.RetrieveRequest{UserId: id, K: 1, RequestId: id}
				if i == 7 {
					r.K = 0
				}
				answer, err := c.Retrieve(t.Context(), r)
				r.UserId = "changed"
				if i == 7 {
					require.ErrorIs(t, err, client.RuleBroken)
					return
				}
				require.NoError(t, err)
				require.Equal(t, id, answer.RequestId)
			})
		}
		group.Wait()
		require.Equal(t, map[string]int{"127.0.0.1": 3}, w.counts())

		// Too little time, a name of its own, another deadline: these go by themselves.
		short, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
		defer cancel()
		long, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for _, ctx := range []context.Context{t.Context(), short, long, client.WithRequestID(t.Context(), "own")} {
			group.Go(func() {
				if ctx != t.Context() {
					time.Sleep(time.Microsecond)
				}
				_, err := c.Retrieve(ctx, query("user-001", 1))
				require.NoError(t, err)
			})
		}
		group.Wait()
		require.Equal(t, map[string]int{"127.0.0.1": 4}, w.counts())

		// A caller that gives up has its request back, and the others their answers.
		w.slow(50*time.Millisecond, "127.0.0.1")
		gone, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		for i, ctx := range []context.Context{gone, t.Context()} {
			group.Go(func() {
				_, err := c.Retrieve(ctx, query("user-001", 1))
				if i == 0 {
					require.ErrorIs(t, err, client.CallerGone)
				} else {
					require.NoError(t, err)
				}
			})
		}
		group.Wait()

		// What is too long together may not be alone.
		w.server.Before(func(_ context.Context, procedure string, _ proto) error {
			if procedure == "BatchRetrieve" {
				return clienttest.Refuse(client.MessageTooLarge, "too long")
			}
			return nil
		})
		for range 3 {
			group.Go(func() {
				_, err := c.Retrieve(t.Context(), query("user-001", 1))
				require.NoError(t, err)
			})
		}
		group.Wait()
	})
}
