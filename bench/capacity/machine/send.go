package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// pace calls ask at times that are drawn beforehand, so many a second in the mean, for some time,
// and returns how long each took from when it was due, in seconds, and how many were refused by
// servers that are asked more than they can answer. Any other failure is an error.
func pace(ctx context.Context, rate float64, d time.Duration, seed uint64, ask func(i int) error) (took []float64, refused int, err error) {
	random := rand.New(rand.NewPCG(seed, 0x9ace))
	var mu sync.Mutex
	var asking sync.WaitGroup
	start := time.Now()
	at := start
	for i := 0; ctx.Err() == nil; i++ {
		at = at.Add(time.Duration(random.ExpFloat64() / rate * float64(time.Second)))
		if at.Sub(start) >= d {
			break
		}
		if wait := time.Until(at); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
			case <-timer.C:
			}
		}
		due := at
		asking.Go(func() {
			failed := ask(i)
			end := time.Since(due).Seconds()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(failed, errRefused):
				refused++
			case failed != nil:
				err = failed
			default:
				took = append(took, end)
			}
		})
	}
	asking.Wait()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && len(took) == 0 {
		err = fmt.Errorf("nothing was asked within %s at %v a second", d, rate)
	}
	return took, refused, err
}

// errRefused says that a server is asked more than it can answer: by too many, or since a node that it
// asks gets no processor.
var errRefused = errors.New("the server has refused a query")

// asker asks a router.
type asker struct {
	url     string
	bodies  [][]byte
	clients []*http.Client
}

// connections is how many an asker has.
const connections = 8

func newAsker(address string, users []string, k int) (*asker, error) {
	a := &asker{url: "http://" + address + tandemv1connect.RetrievalServiceRetrieveProcedure}
	for _, user := range users {
		body, err := proto.Marshal(&tandemv1.RetrieveRequest{UserId: user, K: uint32(k)})
		if err != nil {
			return nil, err
		}
		a.bodies = append(a.bodies, body)
	}
	for range connections {
		t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
		t.Protocols.SetUnencryptedHTTP2(true)
		a.clients = append(a.clients, &http.Client{Transport: t, Timeout: 30 * time.Second})
	}
	return a, nil
}

func (a *asker) close() {
	for _, c := range a.clients {
		c.CloseIdleConnections()
	}
}

// ask sends the i-th query.
func (a *asker) ask(ctx context.Context, i int) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(a.bodies[i*7919%len(a.bodies)]))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/proto")
	response, err := a.clients[i%connections].Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable {
		_, err := io.Copy(io.Discard, response.Body)
		return errors.Join(errRefused, err)
	}
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 500)) // its status is what counts
		return fmt.Errorf("a query was answered with %s: %q", response.Status, text)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
