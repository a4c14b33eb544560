package live

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// A log with gaps is not read as if it ended there. A person may accept it without what is
// missing, and all go on, those who have followed it before, too.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		follower, stop := start(t, store.Bucket("follower"), Options{})
		defer stop()
		w, stopWriter := start(t, store.Bucket("writer"), Options{})
		var events []Event
		for i := range 10 {
			events = append(events, takedown(fmt.Sprint(i+1)))
			appendTo(t, w, events[i])
		}
		stopWriter()
		time.Sleep(5 * time.Second)
		behind, stopBehind := start(t, store.Bucket("behind"), Options{})
		defer stopBehind()
		for _, missing := range []int{3, 6, 7} {
			store.Remove(fmt.Sprintf("live/%012d.log", missing))
		}
		_, err := Read(t.Context(), store.Bucket(""))
		assert.ErrorIs(t, err, appendlog.ErrGap)
		assert.ErrorContains(t, err, "read the live log: the log has a gap: entry 3 is missing, and the log goes on to entry 10")
		time.Sleep(5 * time.Minute)
		assert.Greater(t, follower.View().Proof.Age(), time.Minute, "now and then it looks at the whole log")

		person, err := Open(t.Context(), store.Bucket("person"), Options{PassGaps: true})
		require.NoError(t, err)
		assert.Equal(t, []Gap{{3, 3}, {6, 7}}, person.Lost())
		store.Inject(objectstest.Rule{Client: "person", Key: "live/checkpoints/0", Fault: objectstest.Fail})
		_, err = person.Accept(t.Context(), "the rest is lost", ^uint64(0))
		require.Error(t, err, "it was not summed up")
		store.Heal()
		_, err = Read(t.Context(), store.Bucket(""))
		require.ErrorIs(t, err, appendlog.ErrGap)
		person, err = Open(t.Context(), store.Bucket("person"), Options{PassGaps: true})
		require.NoError(t, err)
		assert.Equal(t, []Gap{{3, 3}, {6, 7}}, person.Lost())
		p, err := person.Accept(t.Context(), "the rest is lost", ^uint64(0))
		require.NoError(t, err)
		assert.EqualValues(t, 12, p.Sequence)

		s, err := Read(t.Context(), store.Bucket(""))
		require.NoError(t, err)
		for i := range 10 {
			assert.Equal(t, i != 2 && i != 5 && i != 6, s.TakenDown().Has(fmt.Sprint(i+1)), i)
		}
		common, ok := s.Lineage().Common("")
		assert.True(t, ok)
		assert.EqualValues(t, 2, common, "later positions may lack what is lost")
		time.Sleep(2 * time.Minute)
		for _, r := range []*Replica{follower, behind} {
			assert.Equal(t, p, r.View().Position.Shard())
			assert.Equal(t, s.Digest(), r.View().Digest)
			assert.Less(t, r.View().Proof.Age(), 5*time.Second)
		}
		// What was written is known, and what is lost can be written again.
		w, stopWriter = start(t, store.Bucket("writer"), Options{})
		defer stopWriter()
		assert.Equal(t, Receipt{shard.Position{Log: p.Log, Sequence: 2}, 1}, appendTo(t, w, events[1]))
		assert.Equal(t, Receipt{shard.Position{Log: p.Log, Sequence: 13}, 7}, appendTo(t, w, events...))
		assert.Equal(t, 10, w.View().Down.Len())
	})
}

// A name that is far ahead of all others is not taken for an entry.
func TestGapThatIsNone(t *testing.T) {
	store := objectstest.NewFaults()
	r, stop := start(t, store.Bucket(""), Options{})
	appendTo(t, r, takedown("a"))
	stop()
	data, _ := store.Data("live/000000000001.log")
	store.Put("live/999999999999.log", data, time.Now())
	_, err := Open(t.Context(), store.Bucket(""), Options{PassGaps: true})
	require.ErrorIs(t, err, appendlog.ErrGap)
	assert.ErrorContains(t, err, "entries 2 to 999999999998 are missing")
}
