package appendlog

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// However fast others write, a proof is a poll and a few requests old at most, and nothing is
// left behind, in a log so long that listing it takes many requests.
func TestWatchProvesWhileOthersWrite(t *testing.T) {
	const (
		request = 100 * time.Millisecond
		poll    = 300 * time.Millisecond
		last    = 20 * time.Second
	)
	for _, every := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 90 * time.Millisecond, 450 * time.Millisecond, time.Second} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := objectstest.NewFaults()
				store.SetPageSize(10)
				store.Inject(objectstest.Rule{Fault: objectstest.Slow, Delay: request})
				l := New(store.Bucket(watched), Options{Prefix: "r", Links: linksOf, Poll: poll, Whole: true})
				written, previous := uint64(0), Hash{}
				write := func() {
					data, err := json.Marshal(record{Previous: previous, Text: "more"})
					require.NoError(t, err)
					written, previous = written+1, HashOf(data)
					store.Put(l.entryKey(written), data, time.Now())
				}
				for range 200 {
					write()
				}
				rest := watch(t, l)
				rest(10 * time.Second)
				oldest, furthest := time.Duration(0), 0
				for begun := time.Now(); time.Since(begun) < last; {
					write()
					now := rest(every)
					require.NoError(t, now.failed)
					oldest, furthest = max(oldest, time.Since(now.proof)), max(furthest, int(written)-len(now.texts))
				}
				assert.LessOrEqual(t, oldest, poll*11/10+12*request)
				assert.LessOrEqual(t, furthest, 1+int((poll*11/10+8*request)/every))
			})
		})
	}
}
