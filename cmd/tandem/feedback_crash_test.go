package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/shard/outcomes"
)

// A server that is killed, whenever that is, has lost no outcome that it acknowledged, and its
// store has all of a message or nothing. What is sent again is there in the end.
func TestKilledServersLoseNoOutcome(t *testing.T) {
	const kills = 4
	random := rand.New(rand.NewPCG(*trialSeed, 22))
	s := newLiveSite(t, filepath.Join(t.TempDir(), "store"), 1, 2*time.Second)
	p := s.servers[0]
	acknowledged := map[string]bool{} // of each message
	var mu sync.Mutex
	log := func(ctx context.Context, name string) {
		r := &tandemv1.LogOutcomesRequest{}
		for i := range 5 {
			r.Outcomes = append(r.Outcomes, &tandemv1.Outcome{Id: fmt.Sprintf("%s/%d", name, i), UserId: "u", AppId: "a", Kind: "open"})
		}
		limited, cancel := context.WithTimeout(ctx, catchUp)
		defer cancel()
		_, err := tandemv1connect.NewFeedbackServiceClient(http.DefaultClient, p.now().url).LogOutcomes(limited, connect.NewRequest(r))
		mu.Lock()
		defer mu.Unlock()
		acknowledged[name] = acknowledged[name] || err == nil
	}
	for kill := range kills {
		p.start(t, "--outcomes", "--outcome-interval", "10ms")
		ctx, stop := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for caller := range 4 {
			callers.Go(func() {
				for n := 0; ctx.Err() == nil && !p.now().ended(); n++ {
					log(ctx, fmt.Sprintf("%d-%d-%d", kill, caller, n))
				}
			})
		}
		time.Sleep(time.Duration(random.Float64() * float64(300*time.Millisecond)))
		p.kill()
		stop()
		callers.Wait()
	}
	count := func() map[string]int {
		got := map[string]int{}
		for o, err := range outcomes.Of(s.bucket).Outcomes(t.Context(), time.Time{}, time.Time{}) {
			require.NoError(t, err)
			got[o.ID]++
		}
		return got
	}
	got := count()
	for name, is := range acknowledged {
		for i := range 5 {
			id := fmt.Sprintf("%s/%d", name, i)
			require.Equal(t, got[name+"/0"], got[id], "a message is whole or absent: %s", id)
			if is {
				require.Equal(t, 1, got[id], "%s was acknowledged", id)
			}
		}
	}
	p.start(t, "--outcomes", "--outcome-interval", "10ms")
	for name, is := range acknowledged {
		if !is {
			log(t.Context(), name)
			require.True(t, acknowledged[name])
		}
	}
	p.stop(t)
	got = count()
	for name := range acknowledged {
		require.Positive(t, got[name+"/0"], name)
	}
}
