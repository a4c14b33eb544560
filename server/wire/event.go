package wire

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
)

// Event returns an event of the contract. The error is a [*live.EventError], whose field is
// named within what changes, as that of [live.Event.Check]: see [Path]. The event keeps the
// vector of the message.
func Event(m *tandemv1.LiveEvent) (live.Event, error) {
	e := live.Event{ID: m.GetEventId()}
	var err error
	switch c := m.GetChange().(type) {
	case *tandemv1.LiveEvent_Takedown:
		e.Kind, e.Tower, e.Entity, e.Reason = live.Takedown, shard.Apps, c.Takedown.GetApp(), c.Takedown.GetReason()
	case *tandemv1.LiveEvent_Restore:
		e.Kind, e.Tower, e.Entity, e.Reason = live.Restore, shard.Apps, c.Restore.GetApp(), c.Restore.GetReason()
	case *tandemv1.LiveEvent_Upsert:
		err = upsert(&e, c.Upsert)
	case *tandemv1.LiveEvent_SetAttributes:
		err = setAttributes(&e, c.SetAttributes)
	case *tandemv1.LiveEvent_Remove:
		e.Kind, e.Entity, e.Reason = live.Remove, c.Remove.GetId(), c.Remove.GetReason()
		e.Tower, err = tower(c.Remove.GetTower())
	case *tandemv1.LiveEvent_ForgetUser:
		e.Kind, e.Tower, e.Entity = live.Forget, shard.Users, c.ForgetUser.GetUser()
	default:
		err = &live.EventError{Field: "change", Err: errors.New("none is set; accepted: takedown, restore, upsert, set_attributes, remove or forget_user")}
	}
	return e, err
}

// Path returns the path of a field of what an event changes, such as upsert.vector.
func Path(m *tandemv1.LiveEvent, field string) string {
	change := m.ProtoReflect().WhichOneof(m.ProtoReflect().Descriptor().Oneofs().ByName("change"))
	if change == nil || field == "event_id" || field == "author" {
		return field
	}
	return string(change.Name()) + "." + field
}

func upsert(e *live.Event, m *tandemv1.Upsert) (err error) {
	e.Kind, e.Entity, e.Model, e.ModelVersion, e.Vector = live.Upsert, m.GetId(), m.GetModel(), m.GetModelVersion(), m.GetVector()
	if e.Tower, err = tower(m.GetTower()); err != nil {
		return err
	}
	if e.Attributes, err = attributes(m.GetAttributes()); err != nil {
		return err
	}
	e.Window, err = window(m.GetWindow())
	return err
}

func setAttributes(e *live.Event, m *tandemv1.SetAttributes) (err error) {
	e.Kind, e.Entity = live.SetAttributes, m.GetId()
	if e.Tower, err = tower(m.GetTower()); err != nil {
		return err
	}
	if e.Attributes, err = attributes(m.GetAttributes()); err != nil {
		return err
	}
	for _, name := range m.GetClear() {
		if _, set := e.Attributes[name]; set {
			return &live.EventError{Field: "clear", Err: fmt.Errorf("%.64q is set by attributes, too, or named twice; accepted: each name once", name)}
		}
		if e.Attributes == nil {
			e.Attributes = map[string]attribute.Value{}
		}
		e.Attributes[name] = attribute.Value{}
	}
	e.Window, err = window(m.GetWindow())
	return err
}

func tower(t tandemv1.Tower) (shard.Kind, error) {
	switch t {
	case tandemv1.Tower_TOWER_UNSPECIFIED, tandemv1.Tower_TOWER_APPS:
		return shard.Apps, nil
	case tandemv1.Tower_TOWER_USERS:
		return shard.Users, nil
	}
	return "", &live.EventError{Field: "tower", Err: fmt.Errorf("%d; accepted: TOWER_APPS (1), TOWER_USERS (2)", t)}
}

// attributes returns values by name; of several that are wrong the first by its name is told.
func attributes(m map[string]*tandemv1.AttributeValue) (map[string]attribute.Value, error) {
	if len(m) == 0 {
		return nil, nil
	}
	out := make(map[string]attribute.Value, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		v, err := Attribute(m[name])
		if err != nil {
			return nil, &live.EventError{Field: "attributes", Err: fmt.Errorf("attribute %.64q: %w", name, err)}
		}
		out[name] = v
	}
	return out, nil
}

func window(m *tandemv1.Window) (*live.Window, error) {
	if m == nil {
		return nil, nil
	}
	w := &live.Window{}
	for _, bound := range []struct {
		name string
		in   *timestamppb.Timestamp
		out  *time.Time
	}{{"from", m.From, &w.From}, {"until", m.Until, &w.Until}} {
		if bound.in == nil {
			continue
		}
		at := bound.in.AsTime()
		if err := bound.in.CheckValid(); err != nil || at.IsZero() {
			return nil, &live.EventError{Field: "window." + bound.name, Err: fmt.Errorf("%s; accepted: a time of the years 1 to 9999, later than 0001-01-01T00:00:00Z", at.Format(time.RFC3339Nano))}
		}
		*bound.out = at
	}
	return w, nil
}

// LiveEvent returns an event in the contract's form. When it was accepted and by whom have
// no place there. It keeps the vector of the event.
func LiveEvent(e *live.Event) (*tandemv1.LiveEvent, error) {
	m := &tandemv1.LiveEvent{EventId: e.ID}
	onWire := tandemv1.Tower_TOWER_APPS
	if e.Tower == shard.Users {
		onWire = tandemv1.Tower_TOWER_USERS
	}
	switch e.Kind {
	case live.Takedown:
		m.Change = &tandemv1.LiveEvent_Takedown{Takedown: &tandemv1.Takedown{App: e.Entity, Reason: e.Reason}}
	case live.Restore:
		m.Change = &tandemv1.LiveEvent_Restore{Restore: &tandemv1.Restore{App: e.Entity, Reason: e.Reason}}
	case live.Upsert:
		u := &tandemv1.Upsert{Tower: onWire, Id: e.Entity, Model: e.Model, ModelVersion: e.ModelVersion, Vector: e.Vector, Window: windowOnWire(e.Window)}
		u.Attributes, _ = attributesOnWire(e.Attributes)
		m.Change = &tandemv1.LiveEvent_Upsert{Upsert: u}
	case live.SetAttributes:
		s := &tandemv1.SetAttributes{Tower: onWire, Id: e.Entity, Window: windowOnWire(e.Window)}
		s.Attributes, s.Clear = attributesOnWire(e.Attributes)
		m.Change = &tandemv1.LiveEvent_SetAttributes{SetAttributes: s}
	case live.Remove:
		m.Change = &tandemv1.LiveEvent_Remove{Remove: &tandemv1.Remove{Tower: onWire, Id: e.Entity, Reason: e.Reason}}
	case live.Forget:
		m.Change = &tandemv1.LiveEvent_ForgetUser{ForgetUser: &tandemv1.ForgetUser{User: e.Entity}}
	default:
		return nil, &live.EventError{Field: "change", Err: fmt.Errorf("kind %d has no form in the contract", e.Kind)}
	}
	return m, nil
}

// attributesOnWire returns values, and the names of those that are absent.
func attributesOnWire(values map[string]attribute.Value) (set map[string]*tandemv1.AttributeValue, absent []string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := AttributeValue(values[name])
		if v == nil {
			absent = append(absent, name)
			continue
		}
		if set == nil {
			set = make(map[string]*tandemv1.AttributeValue, len(values))
		}
		set[name] = v
	}
	return set, absent
}

func windowOnWire(w *live.Window) *tandemv1.Window {
	if w == nil {
		return nil
	}
	m := &tandemv1.Window{}
	if !w.From.IsZero() {
		m.From = timestamppb.New(w.From)
	}
	if !w.Until.IsZero() {
		m.Until = timestamppb.New(w.Until)
	}
	return m
}
