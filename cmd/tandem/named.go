package main

import (
	"bytes"
	"encoding/json"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/tandem-ann/tandem/shard/wording"
)

// named is a message as JSON has it: each field by its name in the contract, and values of enums
// by theirs. A value that only a later server knows stays a number.
type named struct{ proto.Message }

// IsZero reports whether there is no message.
func (n named) IsZero() bool { return !n.ProtoReflect().IsValid() }

// MarshalJSON implements [json.Marshaler].
func (n named) MarshalJSON() ([]byte, error) {
	data, err := json.Marshal(n.Message)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	nameEnums(tree, n.ProtoReflect())
	return encoded(tree)
}

func nameEnums(tree map[string]any, m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		key := string(f.Name())
		_, there := tree[key]
		switch {
		case !there || f.IsMap():
		case f.Enum() != nil && !f.IsList():
			if value := f.Enum().Values().ByNumber(v.Enum()); value != nil {
				tree[key] = string(value.Name())
			}
		case f.Message() != nil && f.IsList():
			list, _ := tree[key].([]any)
			for i, item := range list {
				if child, ok := item.(map[string]any); ok {
					nameEnums(child, v.List().Get(i).Message())
				}
			}
		case f.Message() != nil:
			if child, ok := tree[key].(map[string]any); ok {
				nameEnums(child, v.Message())
			}
		}
		return true
	})
}

// encoded returns a value as [wording.WriteJSON] writes it.
func encoded(v any) ([]byte, error) {
	var b bytes.Buffer
	err := wording.WriteJSON(&b, v)
	return b.Bytes(), err
}

// MarshalJSON implements [json.Marshaler].
func (s serverStatus) MarshalJSON() ([]byte, error) {
	type plain serverStatus
	return encoded(struct {
		plain
		Status named `json:"status,omitzero"`
		Live   named `json:"live,omitzero"`
	}{plain(s), named{s.Status}, named{s.Live}})
}

// MarshalJSON implements [json.Marshaler].
func (s serverInfo) MarshalJSON() ([]byte, error) {
	type plain serverInfo
	return encoded(struct {
		plain
		Status named `json:"status,omitzero"`
	}{plain(s), named{s.Status}})
}

// MarshalJSON implements [json.Marshaler].
func (s liveServerInfo) MarshalJSON() ([]byte, error) {
	type plain liveServerInfo
	return encoded(struct {
		plain
		Status named `json:"status,omitzero"`
	}{plain(s), named{s.Status}})
}
