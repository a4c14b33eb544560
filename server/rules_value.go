package server

import (
	"fmt"
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// celValue returns the value of a field as rules see it. Of lists and maps they see how many
// elements there are.
func celValue(f protoreflect.FieldDescriptor, v protoreflect.Value) ref.Val {
	switch {
	case f.IsMap():
		return sizedValue{n: v.Map().Len()}
	case f.IsList():
		return sizedValue{n: v.List().Len()}
	}
	return celScalar(f, v)
}

// celScalar returns a value of the type of a field, or of its elements, as rules see it.
func celScalar(f protoreflect.FieldDescriptor, v protoreflect.Value) ref.Val {
	switch v := v.Interface().(type) {
	case bool:
		return types.Bool(v)
	case int32:
		return types.Int(v)
	case int64:
		return types.Int(v)
	case uint32:
		return types.Uint(v)
	case uint64:
		return types.Uint(v)
	case float32:
		return types.Double(v)
	case float64:
		return types.Double(v)
	case string:
		return types.String(v)
	case []byte:
		return types.Bytes(v)
	case protoreflect.EnumNumber:
		return types.Int(v)
	case protoreflect.Message:
		return messageValue{message: v}
	}
	return types.NewErr("field %s has a type that no rule takes", f.FullName())
}

// foreignValue has what no rule asks of a value that is not one of CEL's own.
type foreignValue struct{}

// ConvertToNative implements [ref.Val].
func (foreignValue) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("no rule makes a %s of a message or a list", t)
}

// ConvertToType implements [ref.Val].
func (foreignValue) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("no rule makes a %s of a message or a list", t.TypeName())
}

// Equal implements [ref.Val].
func (foreignValue) Equal(ref.Val) ref.Val {
	return types.NewErr("no rule compares messages or lists")
}

// sizedValue is a list or a map with so many elements.
type sizedValue struct {
	foreignValue
	n int
}

// Type implements [ref.Val].
func (sizedValue) Type() ref.Type { return types.ListType }

// Value implements [ref.Val].
func (v sizedValue) Value() any { return v.n }

// Size implements [traits.Sizer].
func (v sizedValue) Size() ref.Val { return types.Int(v.n) }

// messageValue is a message whose fields rules look at.
type messageValue struct {
	foreignValue
	message protoreflect.Message
}

var messageType = types.NewObjectType("tandem.message", traits.IndexerType, traits.FieldTesterType)

// Type implements [ref.Val].
func (messageValue) Type() ref.Type { return messageType }

// Value implements [ref.Val].
func (v messageValue) Value() any { return v.message }

// Get implements [traits.Indexer].
func (v messageValue) Get(name ref.Val) ref.Val {
	f, err := v.field(name)
	if err != nil {
		return err
	}
	return celValue(f, v.message.Get(f))
}

// IsSet implements [traits.FieldTester].
func (v messageValue) IsSet(name ref.Val) ref.Val {
	f, err := v.field(name)
	if err != nil {
		return err
	}
	return types.Bool(v.message.Has(f))
}

func (v messageValue) field(name ref.Val) (protoreflect.FieldDescriptor, ref.Val) {
	text, _ := name.Value().(string)
	f := v.message.Descriptor().Fields().ByName(protoreflect.Name(text))
	if f == nil {
		return nil, types.NewErr("message %s has no field %q", v.message.Descriptor().FullName(), text)
	}
	return f, nil
}
