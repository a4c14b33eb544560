package wire_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
)

// value draws a value of an attribute that the contract can have.
func value(t *rapid.T) attribute.Value {
	switch rapid.IntRange(0, 5).Draw(t, "type") {
	case 0:
		return attribute.OfKeyword(rapid.String().Draw(t, "keyword"))
	case 1:
		return attribute.OfKeywords(rapid.SliceOfN(rapid.String(), 1, 4).Draw(t, "keywords"))
	case 2:
		return attribute.OfBool(rapid.Bool().Draw(t, "bool"))
	case 3:
		return attribute.OfInt(rapid.Int64().Draw(t, "int"))
	case 4:
		return attribute.OfFloat(rapid.Float64().Draw(t, "float"))
	}
	return attribute.OfTimestamp(moment(t))
}

func moment(t *rapid.T) time.Time {
	return attribute.ClampTime(time.Unix(rapid.Int64Range(-62135596799, 253402300799).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanos")))
}

// event draws an event as a caller of the contract can send one.
func event(t *rapid.T) live.Event {
	e := live.Event{
		ID:     rapid.StringMatching("[a-z0-9-]{0,12}").Draw(t, "event id"),
		Kind:   live.Kind(rapid.IntRange(int(live.Takedown), int(live.Forget)).Draw(t, "kind")),
		Tower:  shard.Apps,
		Entity: rapid.String().Draw(t, "entity"),
	}
	if e.Kind == live.Forget || e.Kind > live.Restore && rapid.Bool().Draw(t, "of a user") {
		e.Tower = shard.Users
	}
	if e.Kind == live.Takedown || e.Kind == live.Restore || e.Kind == live.Remove {
		e.Reason = rapid.String().Draw(t, "reason")
	}
	if e.Kind != live.Upsert && e.Kind != live.SetAttributes {
		return e
	}
	for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching("[a-z]{1,6}"), 0, 4, rapid.ID).Draw(t, "names") {
		if e.Attributes == nil {
			e.Attributes = map[string]attribute.Value{}
		}
		if e.Kind == live.SetAttributes && rapid.Bool().Draw(t, "cleared") {
			e.Attributes[name] = attribute.Value{}
		} else {
			e.Attributes[name] = value(t)
		}
	}
	if rapid.Bool().Draw(t, "has a window") {
		e.Window = &live.Window{}
		if rapid.Bool().Draw(t, "has a first moment") {
			e.Window.From = moment(t)
		}
		if rapid.Bool().Draw(t, "has an end") {
			e.Window.Until = moment(t)
		}
	}
	if e.Kind == live.Upsert {
		e.Model, e.ModelVersion = rapid.String().Draw(t, "model"), rapid.String().Draw(t, "version")
		e.Vector = rapid.SliceOfN(rapid.Float32(), 1, 8).Draw(t, "vector")
	}
	return e
}

// An event is the same once it was on the wire, in protobuf and in JSON.
func TestEventsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := event(t)
		m, err := wire.LiveEvent(&want)
		require.NoError(t, err)
		data, err := proto.Marshal(m)
		require.NoError(t, err)
		text, err := protojson.Marshal(m)
		require.NoError(t, err)
		for name, decode := range map[string]func(*tandemv1.LiveEvent) error{
			"protobuf": func(m *tandemv1.LiveEvent) error { return proto.Unmarshal(data, m) },
			"JSON":     func(m *tandemv1.LiveEvent) error { return protojson.Unmarshal(text, m) },
		} {
			there := &tandemv1.LiveEvent{}
			require.NoError(t, decode(there), name)
			got, err := wire.Event(there)
			require.NoError(t, err, name)
			require.Equal(t, want, got, name)
		}
	})
}

func TestPositions(t *testing.T) {
	p := shard.Position{Log: "later", Sequence: 17}
	assert.Equal(t, p, wire.Position(wire.LivePosition(p)))
	assert.Equal(t, shard.Position{}, wire.Position(nil))
}

// What has no form is named by its path.
func TestEventsWithoutForm(t *testing.T) {
	set := func(s *tandemv1.SetAttributes) *tandemv1.LiveEvent {
		return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_SetAttributes{SetAttributes: s}}
	}
	values := func(v *tandemv1.AttributeValue) map[string]*tandemv1.AttributeValue {
		return map[string]*tandemv1.AttributeValue{"b": {Value: &tandemv1.AttributeValue_Bool{}}, "a": v}
	}
	for path, c := range map[string]struct {
		event *tandemv1.LiveEvent
		text  string
	}{
		"change":                    {&tandemv1.LiveEvent{}, "none is set; accepted: takedown, restore, upsert, set_attributes, remove or forget_user"},
		"remove.tower":              {&tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Remove{Remove: &tandemv1.Remove{Tower: 3}}}, "3; accepted: TOWER_APPS (1), TOWER_USERS (2)"},
		"upsert.tower":              {&tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Upsert{Upsert: &tandemv1.Upsert{Tower: -1}}}, "-1; accepted: "},
		"set_attributes.tower":      {set(&tandemv1.SetAttributes{Tower: 3}), "3; accepted: "},
		"set_attributes.attributes": {set(&tandemv1.SetAttributes{Attributes: values(nil)}), `attribute "a": it has no value; accepted: keyword, `},
		"set_attributes.clear":      {set(&tandemv1.SetAttributes{Attributes: values(wire.AttributeValue(attribute.OfInt(1))), Clear: []string{"c", "a"}}), `"a" is set by attributes, too, or named twice`},
		"set_attributes.window.from": {set(&tandemv1.SetAttributes{Window: &tandemv1.Window{From: &timestamppb.Timestamp{Nanos: -1}}}),
			"accepted: a time of the years 1 to 9999"},
	} {
		_, err := wire.Event(c.event)
		refused := (*live.EventError)(nil)
		require.ErrorAs(t, err, &refused, path)
		assert.Equal(t, path, wire.Path(c.event, refused.Field))
		assert.Contains(t, refused.Err.Error(), c.text, path)
		assert.ErrorIs(t, err, live.ErrEvent)
	}
	_, err := wire.LiveEvent(&live.Event{Kind: 99})
	assert.ErrorContains(t, err, "kind 99 has no form in the contract")
}

func TestValuesWithoutForm(t *testing.T) {
	for text, v := range map[string]*tandemv1.AttributeValue{
		"it has no value":        {},
		"keywords has no values": {Value: &tandemv1.AttributeValue_Keywords{Keywords: &tandemv1.Keywords{}}},
		"float is NaN":           {Value: &tandemv1.AttributeValue_Float{Float: math.NaN()}},
		"timestamp: ":            {Value: &tandemv1.AttributeValue_Timestamp{Timestamp: &timestamppb.Timestamp{Seconds: math.MaxInt64}}},
	} {
		_, err := wire.Attribute(v)
		require.Error(t, err)
		assert.True(t, strings.HasPrefix(err.Error(), text), "%q", err)
		assert.Contains(t, err.Error(), "accepted: ")
	}
	assert.Nil(t, wire.AttributeValue(attribute.Value{}))
	f := wire.AttributeValue(attribute.OfFloat32(9.99))
	assert.Equal(t, 9.99, f.GetFloat(), "a float32 is what it is written as")
}
