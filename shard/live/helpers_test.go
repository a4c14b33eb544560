package live

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

// testKey is the key of tests.
var testKey = []byte("0123456789abcdef0123456789abcdef")

// noon is when entries of tests are accepted.
var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// writer makes entries.
type writer struct {
	at     Position
	nonces byte
}

// entry returns the entry that follows, with events of a time.
func (w *writer) entry(t require.TestingT, at time.Time, events ...Event) appendlog.Entry {
	return w.commit(t, Commit{Log: w.at.Log, Time: at, Author: "tester", Events: events})
}

func (w *writer) commit(t require.TestingT, c Commit) appendlog.Entry {
	w.nonces++
	c.Previous, c.nonce = w.at.Hash, [4]byte{w.nonces}
	for i := range c.Events {
		e := &c.Events[i]
		if e.Kind == Forget && e.Entity != "" {
			e.User, e.Key = HashUser(testKey, e.Entity), newHashKeys(testKey).name()
		}
		if e.Author == "" {
			e.Author = c.Author
		}
		change, err := e.encode()
		require.NoError(t, err)
		c.changes = append(c.changes, change)
	}
	data, err := c.encode()
	require.NoError(t, err)
	entry := appendlog.Entry{Sequence: w.at.Sequence + 1, Data: data}
	w.at = Position{c.Log, entry.Sequence, appendlog.HashOf(data)}
	return entry
}

var ids atomic.Int64

// newEventID returns another id each time.
func newEventID() string {
	return fmt.Sprint("event ", ids.Add(1))
}

func takedown(app string) Event {
	return Event{ID: newEventID(), Kind: Takedown, Tower: shard.Apps, Entity: app, Reason: "malware"}
}

func restore(app string) Event {
	return Event{ID: newEventID(), Kind: Restore, Tower: shard.Apps, Entity: app}
}

func forget(user string) Event {
	return Event{ID: newEventID(), Kind: Forget, Tower: shard.Users, Entity: user}
}

func upsert(tower shard.Kind, id, version string, vector ...float32) Event {
	return Event{ID: newEventID(), Kind: Upsert, Tower: tower, Entity: id, Model: "feed", ModelVersion: version, Vector: vector}
}

func setTo(tower shard.Kind, id, name string, value attribute.Value) Event {
	return Event{ID: newEventID(), Kind: SetAttributes, Tower: tower, Entity: id, Attributes: map[string]attribute.Value{name: value}}
}

func remove(tower shard.Kind, id string) Event {
	return Event{ID: newEventID(), Kind: Remove, Tower: tower, Entity: id}
}

// keyed returns a state with the key of tests.
func keyed(t require.TestingT) *State {
	s := NewState()
	require.NoError(t, s.SetKey(testKey))
	return s
}

func apply(t require.TestingT, s *State, e appendlog.Entry) []Change {
	changes, err := s.Apply(e)
	require.NoError(t, err)
	return changes
}
