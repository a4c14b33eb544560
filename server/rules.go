package server

import (
	"fmt"
	"slices"
	"sync"

	rules "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// The rules of the contract are CEL, as protovalidate has it, and its violations are what is
// answered: a test compares the two. Its validator itself knows each message that the binary
// has, those of the stores' clients too: 6.5 MiB, half of the heap of a server, which Go
// marks each time that it collects. These are the rules of the contract alone.

// messageRules are the rules of one message, nil if neither it nor what is in it has any.
type messageRules struct {
	own    []celRule
	fields []*fieldRules
}

// fieldRules are the rules of one field.
type fieldRules struct {
	field    protoreflect.FieldDescriptor
	required bool
	unset    bool // they hold for a field that is not set, too
	own      []celRule
	each     []celRule     // of the elements of a list, or the values of a map
	message  *messageRules // of the message that the field is, or its elements are
}

// celRule is a rule, and where the contract has it.
type celRule struct {
	id      string
	path    *rules.FieldPath // within the options of its field, nil for one of a message
	program cel.Program
}

// contractRules returns the rules of all requests of the contract, by their names. It
// panics if one of them is no CEL, or of a kind that is not known here.
var contractRules = sync.OnceValue(func() map[protoreflect.FullName]*messageRules {
	env, err := cel.NewCustomEnv(cel.StdLib(), ext.Strings(), cel.Variable("this", cel.DynType))
	if err != nil {
		panic(err)
	}
	r := ruleReader{env: env, known: map[protoreflect.FullName]*messageRules{}}
	for _, file := range []protoreflect.FileDescriptor{tandemv1.File_tandem_v1_retrieval_proto, tandemv1.File_tandem_v1_live_proto, tandemv1.File_tandem_v1_release_proto, tandemv1.File_tandem_v1_admin_proto} {
		services := file.Services()
		for i := range services.Len() {
			methods := services.Get(i).Methods()
			for j := range methods.Len() {
				r.message(methods.Get(j).Input())
			}
		}
	}
	return r.known
})

// ruleReader reads the rules of messages.
type ruleReader struct {
	env   *cel.Env
	known map[protoreflect.FullName]*messageRules
}

// message returns the rules of a message, nil if there are none. No message of the contract
// is within itself.
func (r *ruleReader) message(m protoreflect.MessageDescriptor) *messageRules {
	if known, ok := r.known[m.FullName()]; ok || m.ParentFile().Package() != tandemv1.File_tandem_v1_retrieval_proto.Package() {
		return known
	}
	declared, _ := proto.GetExtension(m.Options(), rules.E_Message).(*rules.MessageRules)
	out := &messageRules{own: r.compile(declared.GetCel(), nil)}
	for i := range m.Fields().Len() {
		if f := r.field(m.Fields().Get(i)); f != nil {
			out.fields = append(out.fields, f)
		}
	}
	if len(out.own)+len(out.fields) == 0 {
		out = nil
	}
	r.known[m.FullName()] = out
	return out
}

// field returns the rules of a field, nil if there are none.
func (r *ruleReader) field(f protoreflect.FieldDescriptor) *fieldRules {
	declared, _ := proto.GetExtension(f.Options(), rules.E_Field).(*rules.FieldRules)
	if declared.GetIgnore() == rules.Ignore_IGNORE_ALWAYS {
		return nil
	}
	out := &fieldRules{
		field: f, required: declared.GetRequired(),
		unset: !f.HasPresence() && declared.GetIgnore() != rules.Ignore_IGNORE_IF_ZERO_VALUE,
		own:   r.compile(declared.GetCel(), []*rules.FieldPathElement{}),
	}
	each, within := declared.GetRepeated().GetItems(), []string{"repeated", "items"}
	value := f
	if f.IsMap() {
		each, within, value = declared.GetMap().GetValues(), []string{"map", "values"}, f.MapValue()
	}
	if each.GetIgnore() == rules.Ignore_IGNORE_ALWAYS {
		value = nil
	}
	if value != nil {
		out.each = r.compile(each.GetCel(), rulePath(within))
		if value.Message() != nil {
			out.message = r.message(value.Message())
		}
	}
	if !out.required && len(out.own)+len(out.each) == 0 && out.message == nil {
		return nil
	}
	return out
}

// rulePath is the path of fields of the options of a field.
func rulePath(names []string) (path []*rules.FieldPathElement) {
	m := (*rules.FieldRules)(nil).ProtoReflect().Descriptor()
	for _, name := range names {
		field := m.Fields().ByName(protoreflect.Name(name))
		path, m = append(path, pathElement(field)), field.Message()
	}
	return path
}

// compile compiles rules that are within the path; nil for those of a message.
func (r *ruleReader) compile(list []*rules.Rule, within []*rules.FieldPathElement) []celRule {
	var out []celRule
	for i, rule := range list {
		ast, issues := r.env.Compile(rule.GetExpression())
		err := issues.Err()
		var program cel.Program
		if err == nil {
			program, err = r.env.Program(ast)
		}
		if err != nil {
			panic(fmt.Errorf("compile rule %s: %w", rule.GetId(), err))
		}
		compiled := celRule{id: rule.GetId(), program: program}
		if within != nil {
			last := rulePath([]string{"cel"})[0]
			last.Subscript = &rules.FieldPathElement_Index{Index: uint64(i)}
			compiled.path = &rules.FieldPath{Elements: append(slices.Clone(within), last)}
		}
		out = append(out, compiled)
	}
	return out
}

// pathElement is the step of a path to a field.
func pathElement(f protoreflect.FieldDescriptor) *rules.FieldPathElement {
	number, name, kind := int32(f.Number()), string(f.Name()), descriptorpb.FieldDescriptorProto_Type(f.Kind())
	return &rules.FieldPathElement{FieldNumber: &number, FieldName: &name, FieldType: &kind}
}

// checker finds which rules a message breaks.
type checker struct {
	path   []*rules.FieldPathElement // to what is looked at
	broken []*rules.Violation
	err    error // of a rule that could not be evaluated
}

// message checks a message.
func (c *checker) message(m protoreflect.Message, of *messageRules) {
	if of == nil {
		return
	}
	c.all(of.own, messageValue{message: m})
	for _, f := range of.fields {
		c.field(m, f)
	}
}

// field checks a field of a message.
func (c *checker) field(m protoreflect.Message, f *fieldRules) {
	switch set := m.Has(f.field); {
	case set:
	case f.required:
		c.within(pathElement(f.field), func() {
			c.add("required", "value is required", &rules.FieldPath{Elements: rulePath([]string{"required"})})
		})
		return
	case !f.unset:
		return
	}
	value := m.Get(f.field)
	if len(f.own) > 0 {
		c.within(pathElement(f.field), func() { c.all(f.own, celValue(f.field, value)) })
	}
	switch {
	case len(f.each) == 0 && f.message == nil:
	case f.field.IsMap():
		value.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			c.each(mapElement(f.field, key), f, f.field.MapValue(), value)
			return true
		})
	case f.field.IsList():
		for i := range value.List().Len() {
			element := pathElement(f.field)
			element.Subscript = &rules.FieldPathElement_Index{Index: uint64(i)}
			c.each(element, f, f.field, value.List().Get(i))
		}
	default:
		c.within(pathElement(f.field), func() { c.message(value.Message(), f.message) })
	}
}

// each checks an element of a list, or a value of a map.
func (c *checker) each(at *rules.FieldPathElement, f *fieldRules, kind protoreflect.FieldDescriptor, value protoreflect.Value) {
	c.within(at, func() {
		if len(f.each) > 0 {
			c.all(f.each, celScalar(kind, value))
		}
		if f.message != nil {
			c.message(value.Message(), f.message)
		}
	})
}

// mapElement is the step of a path to a value of a map, whose keys are strings.
func mapElement(f protoreflect.FieldDescriptor, key protoreflect.MapKey) *rules.FieldPathElement {
	element := pathElement(f)
	keys, values := descriptorpb.FieldDescriptorProto_Type(f.MapKey().Kind()), descriptorpb.FieldDescriptorProto_Type(f.MapValue().Kind())
	element.KeyType, element.ValueType = &keys, &values
	element.Subscript = &rules.FieldPathElement_StringKey{StringKey: key.String()}
	return element
}

// within has a call look at what is one step further.
func (c *checker) within(step *rules.FieldPathElement, look func()) {
	c.path = append(c.path, step)
	look()
	c.path = c.path[:len(c.path)-1]
}

// all checks rules on a value.
func (c *checker) all(list []celRule, this any) {
	for i := range list {
		result, _, err := list[i].program.Eval(map[string]any{"this": this})
		if err != nil {
			c.err = fmt.Errorf("evaluate rule %s: %w", list[i].id, err)
			return
		}
		text, ok := result.Value().(string)
		if !ok {
			c.err = fmt.Errorf("evaluate rule %s: it is a %s, want a string", list[i].id, result.Type().TypeName())
			return
		}
		if text != "" {
			c.add(list[i].id, text, list[i].path)
		}
	}
}

// add notes that what is looked at breaks a rule.
func (c *checker) add(id, text string, rule *rules.FieldPath) {
	v := &rules.Violation{RuleId: &id, Message: &text, Rule: rule}
	if len(c.path) > 0 {
		v.Field = &rules.FieldPath{Elements: slices.Clone(c.path)}
	}
	c.broken = append(c.broken, v)
}
