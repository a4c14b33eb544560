package server

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	rules "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// TestRulesAreProtovalidates compares which rules a request of any method breaks, and what is
// said of that, with protovalidate, which is what the contract is written for.
func TestRulesAreProtovalidates(t *testing.T) {
	names := make([]protoreflect.FullName, 0, len(contractRules()))
	for name := range contractRules() {
		names = append(names, name)
	}
	slices.Sort(names)
	require.Contains(t, names, (&tandemv1.ImportRequest{}).ProtoReflect().Descriptor().FullName())
	rapid.Check(t, func(t *rapid.T) {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(rapid.SampledFrom(names).Draw(t, "message"))
		require.NoError(t, err)
		m := kind.New()
		drawMessage(t, m, 0)

		theirs := []*rules.Violation{}
		if err := protovalidate.Validate(m.Interface()); err != nil {
			invalid, ok := errors.AsType[*protovalidate.ValidationError](err)
			require.True(t, ok, "%v", err)
			for _, v := range invalid.Violations {
				theirs = append(theirs, v.Proto)
			}
		}
		ours, err := brokenRules(m.Interface())
		require.NoError(t, err)
		require.Equal(t, encodedInOrder(t, theirs), encodedInOrder(t, ours))
	})
}

// BenchmarkBrokenRule is what it takes to find what is wrong with a small request.
func BenchmarkBrokenRule(b *testing.B) {
	m := &tandemv1.RetrieveRequest{UserId: "u1", K: 20_000}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			broken, err := brokenRules(m)
			require.True(b, err == nil && len(broken) == 1)
		}
	})
	b.Run("protovalidate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			require.Error(b, protovalidate.Validate(m))
		}
	})
}

// encodedInOrder returns violations as bytes, those of maps, which have no order, in one.
func encodedInOrder(t require.TestingT, list []*rules.Violation) []string {
	out := make([]string, len(list))
	for i, v := range list {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(v)
		require.NoError(t, err)
		out[i] = string(data)
	}
	// What breaks a rule in a map comes in one run.
	for from := 0; from < len(list); {
		to := from
		for to < len(list) && slices.ContainsFunc(list[to].GetField().GetElements(), hasKey) {
			to++
		}
		slices.Sort(out[from:to])
		from = to + 1
	}
	return out
}

func hasKey(e *rules.FieldPathElement) bool {
	_, ok := e.GetSubscript().(*rules.FieldPathElement_StringKey)
	return ok
}

// drawMessage sets fields of a message to values about the bounds of the contract.
func drawMessage(t *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if depth > 3 || rapid.IntRange(0, 2).Draw(t, "set") == 0 {
			continue
		}
		sizes := []int{0, 1, 2, 3}
		if rapid.IntRange(0, 30).Draw(t, "many") == 0 {
			sizes = []int{8, 9, 16, 17, 32, 33, 100, 101, 256, 257, 1000, 1001, 16384, 16385}
		}
		switch n := rapid.SampledFrom(sizes).Draw(t, "size"); {
		case f.IsMap():
			for range n {
				key := protoreflect.ValueOfString(rapid.StringN(0, 5, -1).Draw(t, "key")).MapKey()
				m.Mutable(f).Map().Set(key, drawValue(t, f.MapValue(), m.Mutable(f).Map().NewValue, depth))
			}
		case f.IsList():
			for j := range n {
				if j < 3 {
					m.Mutable(f).List().Append(drawValue(t, f, m.Mutable(f).List().NewElement, depth))
				} else { // the same again: it is their number that counts
					m.Mutable(f).List().Append(m.Get(f).List().Get(j % 3))
				}
			}
		default:
			m.Set(f, drawValue(t, f, func() protoreflect.Value { return m.NewField(f) }, depth))
		}
	}
}

// drawValue draws a value of the type of a field, or of its elements.
func drawValue(t *rapid.T, f protoreflect.FieldDescriptor, zero func() protoreflect.Value, depth int) protoreflect.Value {
	number := rapid.SampledFrom([]uint32{0, 1, 2, 3, 20, 21, 100, 101, 1000, 1001, 10_000, 10_001, 1_000_000, 1_000_001}).Draw(t, "number")
	real := rapid.SampledFrom([]float64{0, 1, 0.98, 0.981, -0.5, math.Nextafter(1, 2), 1e300, math.NaN(), math.Inf(1), math.Copysign(0, -1)}).Draw(t, "real")
	switch f.Kind() {
	case protoreflect.StringKind:
		n := rapid.SampledFrom([]int{0, 1, 64, 65, 128, 129, 256, 257, 512, 513, 1000, 1001, 1024, 1025, 16384, 16385}).Draw(t, "bytes")
		return protoreflect.ValueOfString(rapid.SampledFrom([]string{"", "a", " ", "x y", "A", "é", "a\nb", "\u0085", strings.Repeat("a", n), strings.Repeat("é", n/2), strings.Repeat(" ", n)}).Draw(t, "text"))
	case protoreflect.MessageKind:
		v := zero()
		if value, ok := v.Message().Interface().(*structpb.Value); ok {
			value.Kind = &structpb.Value_NumberValue{NumberValue: real}
			return v
		}
		drawMessage(t, v.Message(), depth+1)
		return v
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32Range(-1, 4).Draw(t, "enum")))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(number > 1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(number)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(number))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(number) - 1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(number) - 1)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(real))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(real)
	}
	return zero()
}

// TestUnknownRules ends the start where the contract has a rule that would not be checked.
func TestUnknownRules(t *testing.T) {
	read := func(change func(m *descriptorpb.DescriptorProto)) func() {
		m := &descriptorpb.DescriptorProto{
			Name:      proto.String("Thing"),
			Field:     []*descriptorpb.FieldDescriptorProto{{Name: proto.String("name"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), OneofIndex: proto.Int32(0), Options: &descriptorpb.FieldOptions{}}},
			OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: proto.String("what"), Options: &descriptorpb.OneofOptions{}}},
			Options:   &descriptorpb.MessageOptions{},
		}
		change(m)
		file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
			Name: proto.String("thing.proto"), Package: proto.String("tandem.v1"), Syntax: proto.String("proto3"), MessageType: []*descriptorpb.DescriptorProto{m},
		}, nil)
		require.NoError(t, err)
		return func() {
			r, err := newRuleReader()
			require.NoError(t, err)
			r.message(file.Messages().Get(0))
		}
	}
	field := func(r *rules.FieldRules) func(*descriptorpb.DescriptorProto) {
		return func(m *descriptorpb.DescriptorProto) { proto.SetExtension(m.Field[0].Options, rules.E_Field, r) }
	}
	cel := func(text string) []*rules.Rule {
		return []*rules.Rule{{Id: proto.String("thing.name"), Expression: &text}}
	}
	require.NotPanics(t, read(field(&rules.FieldRules{Cel: cel("this == '' ? 'name is empty' : ''")})))
	for name, change := range map[string]func(*descriptorpb.DescriptorProto){
		"no CEL":          field(&rules.FieldRules{Cel: cel("this ==")}),
		"an expression":   field(&rules.FieldRules{CelExpression: []string{"this != ''"}}),
		"a standard rule": field(&rules.FieldRules{Type: &rules.FieldRules_String_{String_: &rules.StringRules{MinLen: proto.Uint64(1)}}}),
		"number of items": field(&rules.FieldRules{Type: &rules.FieldRules_Repeated{Repeated: &rules.RepeatedRules{MinItems: proto.Uint64(1)}}}),
		"keys":            field(&rules.FieldRules{Type: &rules.FieldRules_Map{Map: &rules.MapRules{Keys: &rules.FieldRules{Cel: cel("''")}}}}),
		"items within":    field(&rules.FieldRules{Type: &rules.FieldRules_Repeated{Repeated: &rules.RepeatedRules{Items: &rules.FieldRules{Required: proto.Bool(true)}}}}),
		"one that is to be": func(m *descriptorpb.DescriptorProto) {
			proto.SetExtension(m.OneofDecl[0].Options, rules.E_Oneof, &rules.OneofRules{Required: proto.Bool(true)})
		},
		"one of a message": func(m *descriptorpb.DescriptorProto) {
			proto.SetExtension(m.Options, rules.E_Message, &rules.MessageRules{Oneof: []*rules.MessageOneofRule{{Fields: []string{"name"}}}})
		},
	} {
		require.Panics(t, read(change), name)
	}
}
