package overlay_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/overlay"
)

// applierOf returns an applier over towers of entities.
func applierOf(t testing.TB, rows map[string]*entity, metric index.Metric) *overlay.Applier {
	apps, err := towerOf(shard.Apps, rows, 1, metric)
	require.NoError(t, err)
	users, err := towerOf(shard.Users, nil, 1, metric)
	require.NoError(t, err)
	a, err := overlay.New(context.Background(), overlay.Snapshot{Apps: apps, Users: users, Model: model, ModelVersion: version}, live.NewState())
	require.NoError(t, err)
	return a
}

// What would not count in a snapshot is told before it is written: the field, the value, and
// what is accepted.
func TestFits(t *testing.T) {
	a := applierOf(t, nil, index.Cosine)
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, test := range []struct {
		name  string
		event live.Event
		err   string
	}{
		{"right", live.Event{Kind: live.Upsert, Vector: []float32{1, 2, 3}, Attributes: values{"genre": attribute.OfKeyword("x")}}, ""},
		{"too short", live.Event{Kind: live.Upsert, Vector: []float32{1, 2}}, "vector: it has 2 numbers; accepted: 3, the dimension of model feed 2026-11-22"},
		{"zero", live.Event{Kind: live.Upsert, Vector: []float32{0, 0, 0}}, "vector: is the zero vector, which has no cosine"},
		{"not a number", live.Event{Kind: live.Upsert, Vector: []float32{0, nan, 0}}, "vector: component 1 is NaN, want a finite number"},
		{"infinite", live.Event{Kind: live.Upsert, Vector: []float32{inf, 0, 0}}, "vector: component 0 is +Inf, want a finite number"},
		{"of another version", live.Event{Kind: live.Upsert, ModelVersion: "2026-11-29", Vector: []float32{1}}, ""},
		{
			"another type", live.Event{Kind: live.SetAttributes, Attributes: values{"year": attribute.OfKeyword("new")}},
			`attributes["year"]: value "new" is of type keyword; accepted: int, or a float that is a whole number below 2^53`,
		},
		{"a whole number", live.Event{Kind: live.SetAttributes, Attributes: values{"year": attribute.OfFloat(2026)}}, ""},
		{
			"a fraction", live.Event{Kind: live.SetAttributes, Attributes: values{"year": attribute.OfFloat(0.5)}},
			`attributes["year"]: value "0.5" is of type float; accepted: int, or a float that is a whole number below 2^53`,
		},
		{
			"too large for a float32", live.Event{Kind: live.SetAttributes, Attributes: values{"cost": attribute.OfFloat(1e300)}},
			`attributes["cost"]: value "1e+300" is of type float; accepted: a finite float32, or an int that it holds exactly`,
		},
		{
			"not exact", live.Event{Kind: live.SetAttributes, Attributes: values{"price": attribute.OfInt(1<<53 + 1)}},
			`attributes["price"]: value "9007199254740993" is of type int; accepted: a finite float, or an int that it holds exactly`,
		},
		{"the largest int", live.Event{Kind: live.SetAttributes, Attributes: values{"price": attribute.OfInt(math.MaxInt64)}}, `attributes["price"]: value`},
		{"the smallest int", live.Event{Kind: live.SetAttributes, Attributes: values{"price": attribute.OfInt(math.MinInt64)}}, ""},
		{"a decimal", live.Event{Kind: live.SetAttributes, Attributes: values{"cost": attribute.OfFloat(9.99)}}, ""},
		{"a time as a text", live.Event{Kind: live.SetAttributes, Attributes: values{"at": attribute.OfKeyword("2026-11-30T12:00:00Z")}}, ""},
		{
			"no time", live.Event{Kind: live.SetAttributes, Attributes: values{"at": attribute.OfKeyword("noon")}},
			`attributes["at"]: value "noon" is of type keyword; accepted: timestamp, or a keyword that is one in RFC 3339`,
		},
		{"nothing", live.Event{Kind: live.SetAttributes, Attributes: values{"at": {}}}, ""},
		{
			"unknown", live.Event{Kind: live.SetAttributes, Attributes: values{"rating": attribute.OfInt(1)}},
			`attributes["rating"]: the snapshot has no such attribute; accepted: at, cost, flag, genre, price, tags, year`,
		},
		{
			"unknown and wrong", live.Event{Kind: live.SetAttributes, Attributes: values{"rating": attribute.OfInt(1), "year": attribute.OfBool(true)}},
			`attributes["year"]: value "true" is of type bool`,
		},
		{"a takedown", live.Event{Kind: live.Takedown}, ""},
	} {
		e := test.event
		e.Tower, e.Entity = shard.Apps, "a"
		if e.Kind == live.Upsert {
			if e.Model = model; e.ModelVersion == "" {
				e.ModelVersion = version
			}
		}
		err := a.Shape().Fits(&e)
		if test.err == "" {
			require.NoError(t, err, test.name)
			continue
		}
		require.ErrorContains(t, err, test.err, test.name)
		var wrong *live.EventError
		require.ErrorAs(t, err, &wrong, test.name)
		require.ErrorIs(t, err, live.ErrEvent)
		if test.name == "unknown" {
			require.ErrorIs(t, err, overlay.ErrNoAttribute)
		} else {
			require.NotErrorIs(t, err, overlay.ErrNoAttribute)
		}
	}
}
