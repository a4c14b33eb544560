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
// has, those of the stores' clients too, which would be half of the heap of a server that Go
// marks each time that it collects. Here are the rules of the contract alone.

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
	r, err := newRuleReader()
	if err != nil {
		panic(err)
	}
	for _, file := range []protoreflect.FileDescriptor{tandemv1.File_tandem_v1_retrieval_proto, tandemv1.File_tandem_v1_live_proto, tandemv1.File_tandem_v1_feedback_proto, tandemv1.File_tandem_v1_release_proto, tandemv1.File_tandem_v1_admin_proto} {
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

func newRuleReader() (*ruleReader, error) {
	env, err := cel.NewCustomEnv(cel.StdLib(), ext.Strings(), cel.Variable("this", cel.DynType))
	return &ruleReader{env: env, known: map[protoreflect.FullName]*messageRules{}}, err
}

// message returns the rules of a message, nil if there are none. No message of the contract
// is within itself.
func (r *ruleReader) message(m protoreflect.MessageDescriptor) *messageRules {
	if known, ok := r.known[m.FullName()]; ok || m.ParentFile().Package() != tandemv1.File_tandem_v1_retrieval_proto.Package() {
		return known
	}
	declared, _ := proto.GetExtension(m.Options(), rules.E_Message).(*rules.MessageRules)
	mustBeOf(m, declared.ProtoReflect(), "cel")
	for i := range m.Oneofs().Len() {
		oneof, _ := proto.GetExtension(m.Oneofs().Get(i).Options(), rules.E_Oneof).(*rules.OneofRules)
		mustBeOf(m.Oneofs().Get(i), oneof.ProtoReflect())
	}
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
	mustBeOf(f, declared.ProtoReflect(), "cel", "ignore", "required", "repeated", "map")
	mustBeOf(f, declared.GetRepeated().ProtoReflect(), "items")
	mustBeOf(f, declared.GetMap().ProtoReflect(), "values")
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
	mustBeOf(f, each.ProtoReflect(), "cel", "ignore")
	if each.GetIgnore() == rules.Ignore_IGNORE_ALWAYS {
		value = nil
	}
	if value != nil {
		out.each = r.compile(each.GetCel(), rulePath(within...))
		if value.Message() != nil {
			out.message = r.message(value.Message())
		}
	}
	if !out.required && len(out.own)+len(out.each) == 0 && out.message == nil {
		return nil
	}
	return out
}

// mustBeOf panics unless what the contract declares of something are rules of some kinds: one that
// was added and is not known here would hold for nobody.
func mustBeOf(of protoreflect.Descriptor, declared protoreflect.Message, kinds ...protoreflect.Name) {
	declared.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(kinds, f.Name()) {
			panic(fmt.Errorf("rules of %s: there is a rule %s, want one of %v", of.FullName(), f.Name(), kinds))
		}
		return true
	})
}

// rulePath is the path of fields of the options of a field.
func rulePath(names ...string) (path []*rules.FieldPathElement) {
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
			last := rulePath("cel")[0]
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

// brokenRules returns which rules a request breaks, in the order of the contract. The error is of
// a rule that could not be evaluated.
func brokenRules(m proto.Message) ([]*rules.Violation, error) {
	c, r := checker{}, m.ProtoReflect()
	c.message(r, contractRules()[r.Descriptor().FullName()])
	return c.broken, c.err
}

// checker finds which rules a message breaks.
type checker struct {
	path   []ruleStep // to what is looked at
	this   map[string]any
	broken []*rules.Violation
	err    error // of a rule that could not be evaluated
}

// ruleStep is a step of a path: to a field, or to an element of it.
type ruleStep struct {
	field   protoreflect.FieldDescriptor
	element bool
	index   int                 // of an element of a list
	key     protoreflect.MapKey // of a value of a map, whose keys are strings
}

// pathElement returns the step as violations have it.
func (s *ruleStep) pathElement() *rules.FieldPathElement {
	e := pathElement(s.field)
	switch {
	case !s.element:
	case s.field.IsMap():
		keys, values := descriptorpb.FieldDescriptorProto_Type(s.field.MapKey().Kind()), descriptorpb.FieldDescriptorProto_Type(s.field.MapValue().Kind())
		e.KeyType, e.ValueType = &keys, &values
		e.Subscript = &rules.FieldPathElement_StringKey{StringKey: s.key.String()}
	default:
		e.Subscript = &rules.FieldPathElement_Index{Index: uint64(s.index)}
	}
	return e
}

func (c *checker) push(s ruleStep) { c.path = append(c.path, s) }

func (c *checker) pop() { c.path = c.path[:len(c.path)-1] }

// message checks a message.
func (c *checker) message(m protoreflect.Message, of *messageRules) {
	if of == nil {
		return
	}
	if len(of.own) > 0 {
		c.all(of.own, messageValue{message: m})
	}
	for _, f := range of.fields {
		c.push(ruleStep{field: f.field})
		c.field(m, f)
		c.pop()
	}
}

// field checks a field of a message, which the path leads to.
func (c *checker) field(m protoreflect.Message, f *fieldRules) {
	switch set := m.Has(f.field); {
	case set:
	case f.required:
		c.add("required", "value is required", &rules.FieldPath{Elements: rulePath("required")})
		return
	case !f.unset:
		return
	}
	value := m.Get(f.field)
	if len(f.own) > 0 {
		c.all(f.own, celValue(f.field, value))
	}
	at := &c.path[len(c.path)-1]
	switch {
	case len(f.each) == 0 && f.message == nil:
	case f.field.IsMap():
		at.element = true
		value.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			c.path[len(c.path)-1].key = key
			c.element(f, f.field.MapValue(), value)
			return true
		})
	case f.field.IsList():
		at.element = true
		for i, list := 0, value.List(); i < list.Len(); i++ {
			c.path[len(c.path)-1].index = i
			c.element(f, f.field, list.Get(i))
		}
	default:
		c.message(value.Message(), f.message)
	}
}

// element checks an element of a list, or a value of a map, which the path leads to.
func (c *checker) element(f *fieldRules, kind protoreflect.FieldDescriptor, value protoreflect.Value) {
	if len(f.each) > 0 {
		c.all(f.each, celScalar(kind, value))
	}
	if f.message != nil {
		c.message(value.Message(), f.message)
	}
}

// all checks rules on a value.
func (c *checker) all(list []celRule, this any) {
	if c.this == nil {
		c.this = map[string]any{}
	}
	c.this["this"] = this
	for i := range list {
		result, _, err := list[i].program.Eval(c.this)
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
		v.Field = &rules.FieldPath{}
		for i := range c.path {
			v.Field.Elements = append(v.Field.Elements, c.path[i].pathElement())
		}
	}
	c.broken = append(c.broken, v)
}
