package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// On a store whose requests take their time, whoever appends at whatever rate, the proofs of
// who appends and of who follows stay near one poll.
func TestProofsStayYoungWhileOneAppends(t *testing.T) {
	for _, gap := range []time.Duration{0, 50 * time.Millisecond, 450 * time.Millisecond} {
		t.Run(gap.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := objectstest.NewFaults()
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(1, 2))
				store.Inject(objectstest.Rule{Do: func(objectstest.Request) {
					mu.Lock()
					took := 20*time.Millisecond + time.Duration(random.Int64N(int64(80*time.Millisecond)))
					mu.Unlock()
					time.Sleep(took)
				}})
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				open := func(name string) *Replica {
					r, err := Open(ctx, store.Bucket(name), Options{Author: name})
					require.NoError(t, err)
					running.Go(func() { _ = r.Run(ctx) })
					return r
				}
				a, b := open("a"), open("b")
				_, err := a.Append(ctx, []Event{takedown("the first")}) // an empty log is listed each time
				require.NoError(t, err)
				time.Sleep(5 * time.Second)
				oldest := map[*Replica]time.Duration{}
				running.Go(func() {
					for ctx.Err() == nil {
						for _, r := range []*Replica{a, b} {
							oldest[r] = max(oldest[r], r.View().Proof.Age())
						}
						rest(ctx, 10*time.Millisecond)
					}
				})
				for i, begun := 0, time.Now(); time.Since(begun) < time.Minute; i++ {
					_, err := a.Append(ctx, []Event{takedown(fmt.Sprint("app ", i%7))})
					require.NoError(t, err)
					time.Sleep(gap)
				}
				stop()
				running.Wait()
				assert.Less(t, oldest[a], 1100*time.Millisecond, "who appends")
				assert.Less(t, oldest[b], 1100*time.Millisecond, "who follows")
			})
		})
	}
}

// Who begins to read a log while others write to it as fast as it is listed is done with it.
func TestReadingEndsWhileOthersWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		a, err := Open(ctx, store.Bucket("a"), Options{Author: "a"})
		require.NoError(t, err)
		running.Go(func() { _ = a.Run(ctx) })
		_, err = a.Append(ctx, []Event{takedown("the first")})
		require.NoError(t, err)
		store.Inject(objectstest.Rule{Do: func(r objectstest.Request) {
			if r.Op == objectstest.List {
				time.Sleep(2 * time.Second)
			} else {
				time.Sleep(5 * time.Millisecond)
			}
		}})
		running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				_, _ = a.Append(ctx, []Event{takedown(fmt.Sprint("app ", i%7))}) // it ends with ctx
				rest(ctx, 100*time.Millisecond)
			}
		})
		time.Sleep(time.Second)
		begun := time.Now()
		opening, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		_, err = Open(opening, store.Bucket("b"), Options{Author: "b"})
		assert.NoError(t, err)
		assert.Less(t, time.Since(begun), 20*time.Second)
		stop()
		running.Wait()
		time.Sleep(time.Minute) // lists that nobody waits for any more end
	})
}
