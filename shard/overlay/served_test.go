package overlay_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/overlay"
)

// While several arms serve, an attribute counts in those that have it; one that none has, and a
// value that one cannot have, are refused by the name of an arm.
func TestFitsServed(t *testing.T) {
	shape := func(version string, fields ...attribute.Field) *overlay.Shape {
		schema, err := attribute.NewSchema(fields)
		require.NoError(t, err)
		return &overlay.Shape{Model: "feed", ModelVersion: version, Dim: 2, Metric: index.Dot, Apps: schema, Users: schema}
	}
	served := []overlay.Served{
		{Name: "arm control", Shape: shape("1", attribute.Field{Name: "age", Type: attribute.Int}, attribute.Field{Name: "was", Type: attribute.Bool})},
		{Name: "arm candidate", Shape: shape("2", attribute.Field{Name: "age", Type: attribute.Int}, attribute.Field{Name: "rated", Type: attribute.Int})},
	}
	set := func(values map[string]attribute.Value) *live.Event {
		return &live.Event{Kind: live.SetAttributes, Tower: shard.Apps, Entity: "a", Attributes: values}
	}
	one, yes := attribute.OfInt(1), attribute.OfBool(true)
	for _, values := range []map[string]attribute.Value{{"age": one}, {"was": yes}, {"rated": one}, {"was": yes, "rated": one, "age": one}} {
		require.NoError(t, overlay.FitsServed(served, set(values)), "%v", values)
	}
	require.NoError(t, overlay.FitsServed(nil, set(map[string]attribute.Value{"what": one})), "nothing serves")
	for text, values := range map[string]map[string]attribute.Value{
		`attributes["what"]: the snapshot has no such attribute; accepted: age, was (arm control)`: {"age": one, "what": one},
		`(arm candidate)`: {"rated": yes, "was": yes},
	} {
		err := overlay.FitsServed(served, set(values))
		require.ErrorIs(t, err, live.ErrEvent)
		assert.ErrorContains(t, err, text)
	}

	upsert := set(map[string]attribute.Value{"rated": one})
	upsert.Kind, upsert.Model, upsert.ModelVersion, upsert.Vector = live.Upsert, "feed", "2", []float32{1, 2}
	require.NoError(t, overlay.FitsServed(served, upsert))
	upsert.ModelVersion = "1"
	require.ErrorContains(t, overlay.FitsServed(served, upsert), "(arm control)", "it is for that one alone")
	upsert.ModelVersion = "3"
	require.NoError(t, overlay.FitsServed(served, upsert), "it is kept for what will serve")
}
