package live

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Every bad input gets an error that names the field, the value and what is accepted.
func TestCheck(t *testing.T) {
	of := func(e Event, change func(*Event)) Event {
		change(&e)
		return e
	}
	up := upsert(shard.Apps, "a", "1", 1, 2)
	one := setTo(shard.Apps, "a", "x", attribute.OfInt(1))
	many := map[string]attribute.Value{}
	for i := range MaxValues + 1 {
		many[fmt.Sprint("x", i)] = attribute.OfInt(1)
	}
	for _, good := range []Event{
		takedown("a"), restore("a"), forget("u"), up, one, remove(shard.Users, "u"),
		of(up, func(e *Event) {
			e.Window, e.Attributes = &Window{noon, noon.Add(1)}, map[string]attribute.Value{"x": {}}
		}),
		of(one, func(e *Event) { e.Attributes, e.Window = nil, &Window{} }),
		of(restore("a"), func(e *Event) { e.ID, e.Reason = "", strings.Repeat("r", MaxReason) }),
		{Kind: Settle, Through: 1}, {Kind: Settle, Model: "feed", ModelVersion: "1", Through: 1},
	} {
		assert.NoError(t, good.Check(), good)
	}
	for _, c := range []struct {
		event       Event
		field, text string
	}{
		{Event{}, "kind", "0; accepted: 1 to 7"},
		{Event{Kind: 8}, "kind", "8; accepted: 1 to 7"},
		{of(takedown("a"), func(e *Event) { e.ID = strings.Repeat("x", 129) }), "event_id", "it has 129 bytes; accepted: 1 to 128"},
		{of(takedown("a"), func(e *Event) { e.ID = "\xff" }), "event_id", `"\xff" is not UTF-8`},
		{of(takedown("a"), func(e *Event) { e.ID = "a\nb" }), "event_id", `"a\nb" has the character U+000A; accepted: those that can be printed`},
		{of(takedown("a"), func(e *Event) { e.Author = strings.Repeat("x", 257) }), "author", "it has 257 bytes; accepted: up to 256"},
		{of(takedown("a"), func(e *Event) { e.Author = "\xff" }), "author", "is not UTF-8"},
		{takedown(""), "app", "id is empty, want 1 to 256 bytes"},
		{takedown(strings.Repeat("a", 257)), "app", "id has 257 bytes, want 1 to 256"},
		{forget("\xff"), "user", `id "\xff" is not UTF-8`},
		{upsert(shard.Apps, "", "1", 1), "id", "id is empty"},
		{of(takedown("a"), func(e *Event) { e.Tower = shard.Users }), "tower", `"users"; accepted for takedown: ["apps"]`},
		{of(forget("u"), func(e *Event) { e.Tower = "" }), "tower", `""; accepted for forget_user: ["users"]`},
		{of(up, func(e *Event) { e.Tower = "x" }), "tower", `"x"; accepted for upsert: ["apps" "users"]`},
		{of(takedown("a"), func(e *Event) { e.Reason = "" }), "reason", "it is empty; accepted: 1 to 1024 bytes"},
		{of(takedown("a"), func(e *Event) { e.Reason = strings.Repeat("x", 1025) }), "reason", "it has 1025 bytes; accepted: up to 1024"},
		{of(restore("a"), func(e *Event) { e.Reason = "\xff" }), "reason", "is not UTF-8"},
		{of(up, func(e *Event) { e.Reason = "x" }), "reason", "upsert has none"},
		{of(takedown("a"), func(e *Event) { e.Vector = []float32{1} }), "vector", "takedown has none"},
		{of(takedown("a"), func(e *Event) { e.ModelVersion = "1" }), "model_version", "takedown has none"},
		{of(takedown("a"), func(e *Event) { e.Attributes = one.Attributes }), "attributes", "takedown has none"},
		{of(takedown("a"), func(e *Event) { e.Window = &Window{} }), "window", "takedown has none"},
		{of(takedown("a"), func(e *Event) { e.User[0] = 1 }), "user", "takedown has no hash of one"},
		{of(takedown("a"), func(e *Event) { e.Through = 1 }), "through", "takedown has none"},
		{of(up, func(e *Event) { e.Model = "" }), "model", "it has 0 bytes; accepted: 1 to 256"},
		{of(up, func(e *Event) { e.ModelVersion = strings.Repeat("x", 257) }), "model_version", "it has 257 bytes; accepted: 1 to 256"},
		{of(up, func(e *Event) { e.ModelVersion = "\xff" }), "model_version", `"\xff" is not UTF-8`},
		{of(up, func(e *Event) { e.Vector = nil }), "vector", "it has 0 numbers; accepted: 1 to 16384"},
		{of(up, func(e *Event) { e.Vector = make([]float32, MaxDim+1) }), "vector", "it has 16385 numbers; accepted: 1 to 16384"},
		{of(up, func(e *Event) { e.Vector = []float32{1, float32(math.Inf(1))} }), "vector", "component 1 is +Inf, want a finite number"},
		{of(up, func(e *Event) { e.Vector = []float32{1e30} }), "vector", "norm is 1e+30, want at most 1e+18"},
		{of(one, func(e *Event) { e.Attributes = nil }), "attributes", "there are none, and no window; accepted: at least one of them"},
		{of(one, func(e *Event) { e.Attributes = many }), "attributes", "there are 257; accepted: up to 256"},
		{setTo(shard.Apps, "a", "a-b", attribute.OfInt(1)), "attributes", `attribute name "a-b": want a letter or _`},
		{setTo(shard.Apps, "a", "in", attribute.Value{}), "attributes", `attribute name "in": reserved`},
		{setTo(shard.Apps, "a", "x", attribute.OfKeyword("\xff")), "attributes", `attribute x: "\xff" is not valid UTF-8`},
		{setTo(shard.Apps, "a", "x", attribute.OfFloat(math.Inf(-1))), "attributes", "attribute x: value -Inf, want a finite number"},
		{setTo(shard.Apps, "a", "x", attribute.OfTimestamp(time.Unix(1<<60, 0))), "attributes", "want a time of the years 1 to 9999"},
		{setTo(shard.Apps, "a", "x", attribute.OfKeyword(strings.Repeat("x", MaxEvent))), "event", "bytes, encoded; accepted: up to 262144"},
		{of(up, func(e *Event) { e.Window = &Window{noon, noon} }), "window", "accepted: until after from"},
		{of(up, func(e *Event) { e.Window = &Window{Until: time.Unix(1<<60, 0)} }), "window.until", "accepted: a time of the years 1 to 9999"},
		{of(up, func(e *Event) { e.Tower, e.Window = shard.Users, &Window{} }), "window", "a user has none"},
		{Event{Kind: Settle}, "through", "0; accepted: the number of an entry"},
		{Event{Kind: Settle, Through: 1, Model: "feed"}, "model_version", `model is "feed" and model_version ""; accepted: both, or neither`},
		{Event{Kind: Settle, Through: 1, Entity: "a"}, "id", "settle has neither tower nor id"},
	} {
		err := c.event.Check()
		require.ErrorIs(t, err, ErrEvent, c.text)
		var e *EventError
		require.True(t, errors.As(err, &e))
		assert.Equal(t, c.field, e.Field, c.text)
		assert.ErrorContains(t, err, c.field+": ")
		assert.ErrorContains(t, err, c.text)
		assert.Less(t, len(err.Error()), 400)
	}
}

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		window Window
		hour   time.Duration
		want   bool
	}{
		{Window{}, 0, true}, {Window{From: noon}, -1, false}, {Window{From: noon}, 0, true},
		{Window{Until: noon}, -1, true}, {Window{Until: noon}, 0, false}, {Window{noon, noon.Add(2)}, 1, true}, {Window{noon, noon.Add(2)}, 2, false},
	} {
		assert.Equal(t, c.want, c.window.Contains(noon.Add(c.hour)), c)
	}
}

// TestContent tells apart what events change, and nothing else of them.
func TestContent(t *testing.T) {
	content := func(e Event) uint64 {
		h, err := e.Content()
		require.NoError(t, err)
		return h
	}
	a := takedown("a")
	named := a
	named.ID, named.Author, named.Time = "x", "ann", noon
	assert.Equal(t, content(a), content(named))
	seen := map[uint64]bool{}
	for _, e := range []Event{a, takedown("b"), restore("a"), forget("u"), forget("v"), upsert(shard.Apps, "a", "1", 1, 2), upsert(shard.Users, "a", "1", 1, 2)} {
		assert.False(t, seen[content(e)], e)
		seen[content(e)] = true
	}
	_, err := (&Event{}).Content()
	require.ErrorIs(t, err, ErrEvent)
}
