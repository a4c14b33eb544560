package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
)

func TestAttributeFlags(t *testing.T) {
	at := time.Date(2026, 11, 25, 8, 15, 0, 0, time.UTC)
	for text, want := range map[string]attribute.Value{
		"12":                        attribute.OfInt(12),
		"-9223372036854775808":      attribute.OfInt(-1 << 63),
		"12.5":                      attribute.OfFloat(12.5),
		"1e3":                       attribute.OfFloat(1000),
		"true":                      attribute.OfBool(true),
		"false":                     attribute.OfBool(false),
		"ios":                       attribute.OfKeyword("ios"),
		"Lucky Summit":              attribute.OfKeyword("Lucky Summit"),
		`"12"`:                      attribute.OfKeyword("12"),
		`""`:                        attribute.OfKeyword(""),
		`["ios", "android", "ios"]`: attribute.OfKeywords([]string{"android", "ios"}),
		"2026-11-25T08:15:00Z":      attribute.OfTimestamp(at),
		"2026-11-25T09:15:00+01:00": attribute.OfTimestamp(at),
		`"2026-11-25T08:15:00Z"`:    attribute.OfKeyword("2026-11-25T08:15:00Z"),
		"2026-11-25":                attribute.OfKeyword("2026-11-25"),
		"NaN":                       attribute.OfKeyword("NaN"),
		"a=b":                       attribute.OfKeyword("a=b"),
	} {
		got, err := attributeOf(text)
		require.NoError(t, err, text)
		assert.True(t, want.Equal(got), "%s is %s %s", text, got.Type(), got)
	}
	for text, want := range map[string]string{
		"":                    "there is no value; ",
		"9223372036854775808": "9223372036854775808 is not from -9223372036854775808 to 9223372036854775807",
		"1e999":               "beyond the float64 range",
		"null":                "null; accepted: a number, ",
		"{}":                  "{}; accepted: a number, ",
		"[]":                  "the list is empty; ",
		`["a", 1]`:            `item 2 of ["a", 1] is no string; `,
	} {
		_, err := attributeOf(text)
		assert.ErrorContains(t, err, want, text)
	}
	_, err := attributeFlags([]string{"=1"})
	assert.ErrorContains(t, err, `--attribute is "=1", want NAME=VALUE`)
}

func TestShortened(t *testing.T) {
	assert.Equal(t, "abc", shortened("abc", 3))
	assert.Equal(t, "ab", shortened("abc", 2))
	assert.Equal(t, "a", shortened("aé", 2), "no half of a letter")
}

// What is exported amounts to the same where it is imported: exported again it is the same.
func TestExportsAmountToTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		first := liveLog(t, rapid.SliceOfN(rapid.Custom(drawnEvent), 1, 40).Draw(t, "events"))
		text := exportedText(t, first)
		var events []live.Event
		for event, err := range exported(first, false) {
			require.NoError(t, err)
			events = append(events, event)
		}
		second := live.NewState()
		if len(events) > 0 {
			second = liveLog(t, events)
		}
		require.Equal(t, text, exportedText(t, second))
		require.Equal(t, first.TakenDown().Len(), second.TakenDown().Len())
		for _, tower := range []shard.Kind{shard.Apps, shard.Users} {
			for id, r := range first.Records(tower) {
				other := second.Record(tower, id)
				require.NotNil(t, other, "%s %s", tower, id)
				require.Equal(t, r.Window, other.Window)
				require.Equal(t, r.Removed > 0, other.Removed > 0)
				for name, v := range r.Set {
					require.True(t, v.Value.Equal(other.Set[name].Value))
				}
				for _, u := range r.Upserts {
					there := other.Upserted(u.Model, u.ModelVersion)
					require.NotNil(t, there)
					require.Equal(t, u.Vector, there.Vector)
					require.Equal(t, len(u.Attributes), len(there.Attributes))
					for name, v := range u.Attributes {
						require.True(t, v.Equal(there.Attributes[name]))
					}
				}
			}
		}
		require.NoError(t, ctx.Err())
	})
}

// drawnEvent draws an event of few apps and users, so that many are of the same ones.
func drawnEvent(t *rapid.T) live.Event {
	e := live.Event{
		Kind:   rapid.SampledFrom([]live.Kind{live.Takedown, live.Restore, live.Upsert, live.Upsert, live.SetAttributes, live.Remove}).Draw(t, "kind"),
		Tower:  rapid.SampledFrom([]shard.Kind{shard.Apps, shard.Users}).Draw(t, "tower"),
		Entity: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "entity"),
	}
	values := func(absent bool) {
		e.Attributes = map[string]attribute.Value{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 1, 3, rapid.ID).Draw(t, "names") {
			e.Attributes[name] = attribute.OfInt(rapid.Int64Range(0, 9).Draw(t, "value"))
			if absent && rapid.Bool().Draw(t, "absent") {
				e.Attributes[name] = attribute.Value{}
			}
		}
	}
	switch e.Kind {
	case live.Takedown:
		e.Tower, e.Reason = shard.Apps, "a reason"
	case live.Restore:
		e.Tower = shard.Apps
	case live.Upsert:
		e.Model, e.ModelVersion = "feed", rapid.SampledFrom([]string{"1", "2"}).Draw(t, "version")
		e.Vector = []float32{rapid.Float32Range(-1, 1).Draw(t, "component")}
		values(false)
	case live.SetAttributes:
		values(true)
	}
	if e.Tower == shard.Apps && (e.Kind == live.Upsert || e.Kind == live.SetAttributes) && rapid.Bool().Draw(t, "has a window") {
		e.Window = &live.Window{}
		if rapid.Bool().Draw(t, "has an end") {
			e.Window.Until = time.Date(2026, 11, rapid.IntRange(1, 30).Draw(t, "day"), 0, 0, 0, 0, time.UTC)
		}
	}
	return e
}

// liveLog returns what events amount to that are appended to a log of their own, some at a
// time.
func liveLog(t *rapid.T, events []live.Event) *live.State {
	ctx, stop := context.WithCancel(context.Background())
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	r, err := live.Open(ctx, bucket, live.Options{Poll: time.Hour})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	for len(events) > 0 {
		n := rapid.IntRange(1, min(len(events), 8)).Draw(t, "appended together")
		_, err := r.Append(ctx, events[:n])
		require.NoError(t, err)
		events = events[n:]
	}
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
	state, err := live.Read(context.Background(), bucket)
	require.NoError(t, errors.Join(err, bucket.Close()))
	return state
}

func exportedText(t *rapid.T, state *live.State) string {
	var out strings.Builder
	for event, err := range exported(state, false) {
		require.NoError(t, err)
		require.NoError(t, writeEvent(&out, &event))
	}
	return out.String()
}
