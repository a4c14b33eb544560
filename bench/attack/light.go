package attack

import (
	"context"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/HdrHistogram/hdrhistogram-go"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// What light queries ask for, and how long they wait at most.
const (
	lightK       = 10
	lightTimeout = 10 * time.Second
)

// Light is what those saw who asked light queries. Times are in microseconds, of the
// queries that were answered.
type Light struct {
	Seconds float64 `json:"seconds"`
	Queries int64   `json:"queries"`
	// Errors counts those that failed, by code.
	Errors     map[string]int64 `json:"errors,omitempty"`
	FirstError string           `json:"first_error,omitempty"` // of one that was not for overload
	P50        float64          `json:"p50_us"`
	P99        float64          `json:"p99_us"`
	Max        float64          `json:"max_us"`
}

// failed returns how many queries failed but for overload.
func (l *Light) failed() int64 {
	n := int64(0)
	for code, count := range l.Errors {
		if code != connect.CodeResourceExhausted.String() {
			n += count
		}
	}
	return n
}

// light asks light queries at fixed times, by HTTP/1.1 and HTTP/2 in turn.
type light struct {
	users   []string
	rate    int // a second
	clients [2]tandemv1connect.RetrievalServiceClient
	idle    [2]*http.Transport
}

func newLight(url string, users []string, rate int) *light {
	l := &light{users: users, rate: rate}
	for i := range l.idle {
		t := &http.Transport{MaxIdleConnsPerHost: 64, Protocols: new(http.Protocols)}
		if i == 0 {
			t.Protocols.SetHTTP1(true)
		} else {
			t.Protocols.SetUnencryptedHTTP2(true)
		}
		l.idle[i] = t
		l.clients[i] = tandemv1connect.NewRetrievalServiceClient(&http.Client{Transport: t}, url)
	}
	return l
}

func (l *light) close() {
	for _, t := range l.idle {
		t.CloseIdleConnections()
	}
}

// ask asks until the time is over or ctx ends, and waits for all answers.
func (l *light) ask(ctx context.Context, d time.Duration) *Light {
	report := &Light{Errors: map[string]int64{}}
	times := hdrhistogram.New(1, int64(time.Minute), 3)
	var mu sync.Mutex // of both
	var asked sync.WaitGroup
	start := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		at := start.Add(time.Duration(i) * time.Second / time.Duration(l.rate))
		if at.Sub(start) >= d {
			break
		}
		hold(ctx, time.Until(at))
		asked.Go(func() {
			limited, cancel := context.WithTimeout(ctx, lightTimeout)
			defer cancel()
			request := &tandemv1.RetrieveRequest{UserId: l.users[i*7919%len(l.users)], K: lightK}
			_, err := l.clients[i%2].Retrieve(limited, connect.NewRequest(request))
			took := time.Since(at)
			if ctx.Err() != nil {
				return // stopped by us
			}
			mu.Lock()
			defer mu.Unlock()
			report.Queries++
			if err == nil {
				_ = times.RecordValue(min(max(int64(took), 1), int64(time.Minute))) // in bounds
				return
			}
			code := connect.CodeOf(err)
			report.Errors[code.String()]++
			if report.FirstError == "" && code != connect.CodeResourceExhausted {
				report.FirstError = err.Error()
			}
		})
	}
	asked.Wait()
	report.Seconds = time.Since(start).Seconds()
	us := func(percentile float64) float64 { return float64(times.ValueAtPercentile(percentile)) / 1e3 }
	report.P50, report.P99, report.Max = us(50), us(99), float64(times.Max())/1e3
	return report
}
