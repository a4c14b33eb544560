package overload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/bench"
)

const (
	// connections is how many a caller has, over which its queries are dealt.
	connections = 16
	// closedClients is how many clients find the capacity: enough for one to wait always.
	closedClients = 32
	// mostUnderWay bounds what waits for answers.
	mostUnderWay = 20_000
	// maxLatency is what longer ones count as, in nanoseconds.
	maxLatency = int64(time.Minute)
)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxLatency, 3) }

// sender sends queries that were encoded beforehand.
type sender struct {
	url      string
	pid      int // of the server
	bodies   [][]byte
	deadline time.Duration
	seed     uint64
	tokens   map[string]string
	clients  map[string][]*http.Client // by caller
}

func newSender(o *Options, url string, pid int, tokens map[string]string) (*sender, error) {
	s := &sender{
		url: url + tandemv1connect.RetrievalServiceRetrieveProcedure, pid: pid, deadline: o.Deadline, seed: o.Seed, tokens: tokens, clients: map[string][]*http.Client{},
	}
	for _, user := range o.Users {
		r := &tandemv1.RetrieveRequest{UserId: user, K: uint32(o.K)}
		if o.RecallTarget > 0 {
			r.RecallTarget = proto.Float64(o.RecallTarget)
		}
		body, err := proto.Marshal(r)
		if err != nil {
			return nil, err
		}
		s.bodies = append(s.bodies, body)
	}
	for name := range tokens {
		for range connections {
			t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
			t.Protocols.SetUnencryptedHTTP2(true)
			s.clients[name] = append(s.clients[name], &http.Client{Transport: t})
		}
	}
	return s, nil
}

func (s *sender) close() {
	for _, list := range s.clients {
		for _, c := range list {
			c.CloseIdleConnections()
		}
	}
}

// ask sends the i-th query of a caller and returns the status of the answer, 0 for none in time.
func (s *sender) ask(ctx context.Context, caller string, i int) int {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(s.bodies[i*7919%len(s.bodies)]))
	if err != nil {
		return 0
	}
	r.Header.Set("Content-Type", "application/proto")
	r.Header.Set("Authorization", "Bearer "+s.tokens[caller])
	response, err := s.clients[caller][i%connections].Do(r)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0
	}
	return response.StatusCode
}

// capacity returns how many queries a second are answered to clients that ask again once they
// are answered, and how many seconds of its processor the server takes for one.
func (s *sender) capacity(ctx context.Context, d time.Duration) (rate, cpu float64, err error) {
	before, err := bench.ProcessCPU(s.pid)
	if err != nil {
		return 0, 0, err
	}
	var answered, failed atomic.Int64
	var status atomic.Int64
	start := time.Now()
	var asking sync.WaitGroup
	for client := range closedClients {
		asking.Go(func() {
			for i := client; ctx.Err() == nil && time.Since(start) < d; i += closedClients {
				if got := s.ask(ctx, steady, i); got == http.StatusOK {
					answered.Add(1)
				} else {
					failed.Add(1)
					status.Store(int64(got))
				}
			}
		})
	}
	asking.Wait()
	took := time.Since(start)
	after, err := bench.ProcessCPU(s.pid)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return 0, 0, err
	}
	if n := failed.Load(); n*100 > answered.Load() {
		return 0, 0, fmt.Errorf("%d of %d queries failed, one with status %d, while the capacity was measured", n, n+answered.Load(), status.Load())
	}
	n := float64(max(answered.Load(), 1))
	return n / took.Seconds(), max((after-before).Seconds(), 1e-6) / n, nil
}

// send sends queries at a rate, at times that are drawn, and waits for all answers.
func (s *sender) send(ctx context.Context, caller string, rate float64, d time.Duration) Sent {
	out := Sent{Rate: rate, Statuses: map[int]int64{}}
	random := rand.New(rand.NewPCG(s.seed, uint64(len(caller))))
	answered, refused, lag := newHistogram(), newHistogram(), newHistogram()
	var mu sync.Mutex // of all of them
	var asking sync.WaitGroup
	var underWay atomic.Int64
	before, _ := bench.ProcessCPU(s.pid) // capacity could read it
	start := time.Now()
	at := start
	for i := 0; ctx.Err() == nil; i++ {
		at = at.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		if at.Sub(start) >= d {
			break
		}
		if wait := time.Until(at); wait > 0 {
			time.Sleep(wait)
		}
		if underWay.Add(1) > mostUnderWay {
			underWay.Add(-1)
			out.Unsent++
			continue
		}
		due, behind := at, time.Since(at)
		asking.Go(func() {
			defer underWay.Add(-1)
			limited, cancel := context.WithDeadline(ctx, due.Add(s.deadline))
			defer cancel()
			status := s.ask(limited, caller, i)
			took := min(max(int64(time.Since(due)), 1), maxLatency)
			mu.Lock()
			defer mu.Unlock()
			_ = lag.RecordValue(min(max(int64(behind), 1), maxLatency)) // in bounds, as the others
			out.Statuses[status]++
			switch status {
			case http.StatusOK:
				_ = answered.RecordValue(took)
			case http.StatusTooManyRequests:
				_ = refused.RecordValue(took)
			}
		})
	}
	after, _ := bench.ProcessCPU(s.pid)
	out.Busy = (after - before).Seconds() / time.Since(start).Seconds()
	asking.Wait()
	out.Seconds = d.Seconds()
	out.Times, out.Refused, out.Lag = timesOf(answered), timesOf(refused), timesOf(lag)
	return out
}
