package server

import (
	"cmp"
	"context"
	"regexp"
	"strconv"
	"strings"

	rules "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// Lists are checked for their length before anything is done for each of their elements:
// before rules are evaluated, and where a message is large, before it is decoded. An
// empty element takes two bytes of a message and a hundred of memory.

// maxElements is how many elements the lists of a message may have in all. What keeps the
// contract's own rules has fewer, unless its elements are of a few bytes.
const maxElements = 1 << 20

// maxDepth is how many messages, lists and objects may be within one another.
const maxDepth = 64

// maxNumber is how many characters a number in JSON may have: each double there is has one
// of less than 1100, and to round 8 MiB of digits takes long.
const maxNumber = smallMessage

// smallMessage is how many bytes of a message cannot become much memory.
const smallMessage = 4 << 10

// listRule is what the contract says on the number of elements of a list or a map.
type listRule struct {
	field         protoreflect.FieldDescriptor
	id            string
	most          int
	before, after string // what the rule's text has around the number
}

// listRules has the rules of the messages of the contract by their names.
var listRules = readListRules(tandemv1.File_tandem_v1_retrieval_proto.Messages(), tandemv1.File_tandem_v1_live_proto.Messages(), tandemv1.File_tandem_v1_feedback_proto.Messages(), tandemv1.File_tandem_v1_release_proto.Messages())

// listExpression is the form of a rule on a number of elements.
var listExpression = regexp.MustCompile(
	`^this\.size\(\) (?:>= \d+ && this\.size\(\) )?<= (\d+) \? '' : '([^']*)' \+ string\(this\.size\(\)\) \+ '([^']*)'$`)

func readListRules(files ...protoreflect.MessageDescriptors) map[protoreflect.FullName][]listRule {
	out := map[protoreflect.FullName][]listRule{}
	for _, messages := range files {
		addListRules(messages, out)
	}
	return out
}

func addListRules(messages protoreflect.MessageDescriptors, out map[protoreflect.FullName][]listRule) {
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for j := range fields.Len() {
			field := fields.Get(j)
			if !field.IsList() && !field.IsMap() {
				continue
			}
			declared, _ := proto.GetExtension(field.Options(), rules.E_Field).(*rules.FieldRules)
			for _, rule := range declared.GetCel() {
				if parts := listExpression.FindStringSubmatch(rule.GetExpression()); parts != nil {
					most, _ := strconv.Atoi(parts[1]) // digits
					name := messages.Get(i).FullName()
					out[name] = append(out[name], listRule{field: field, id: rule.GetId(), most: most, before: parts[2], after: parts[3]})
				}
			}
		}
	}
}

// violation says that a list has n elements.
func (r *listRule) violation(n int) *rules.Violation {
	number, name, kind := int32(r.field.Number()), string(r.field.Name()), descriptorpb.FieldDescriptorProto_Type(r.field.Kind())
	id, text := r.id, r.before+strconv.Itoa(n)+r.after
	return &rules.Violation{
		Field:  &rules.FieldPath{Elements: []*rules.FieldPathElement{{FieldNumber: &number, FieldName: &name, FieldType: &kind}}},
		RuleId: &id, Message: &text,
	}
}

// longLists returns which lists of a message have more elements than the contract
// accepts.
func longLists(m proto.Message) (broken []*rules.Violation) {
	r := m.ProtoReflect()
	for _, rule := range listRules[r.Descriptor().FullName()] {
		n := 0
		if v := r.Get(rule.field); rule.field.IsMap() {
			n = v.Map().Len()
		} else {
			n = v.List().Len()
		}
		if n > rule.most {
			broken = append(broken, rule.violation(n))
		}
	}
	return broken
}

// counter counts the elements of a message that is not decoded yet.
type counter struct {
	rules   []listRule // of the message, not of those in it: each of a batch fails alone
	counts  []int      // of the lists with rules
	total   int        // of all lists
	pace    pace       // of the counting
	long    valuePath  // of a number in JSON that has too many characters
	deep    bool       // whether messages are too deep within one another
	path    valuePath  // of what is looked at
	longest string     // path of the list with the most elements
	most    int        // how many those are
}

// valuePath leads to a value of a message.
type valuePath []step

// step is a step of a path: to a field, to a value of a map, or to an element of a list.
type step struct {
	field protoreflect.FieldDescriptor // nil for the others
	key   []byte                       // nil for an element of a list
	index int
}

// text is the path as errors have it: fields have the names of the contract, or those of
// JSON.
func (p valuePath) text(json bool) string {
	var text strings.Builder
	for _, s := range p {
		switch {
		case s.field != nil:
			if text.Len() > 0 {
				text.WriteByte('.')
			}
			if json {
				text.WriteString(s.field.JSONName())
			} else {
				text.WriteString(string(s.field.Name()))
			}
		case s.key != nil:
			text.WriteString("[" + strconv.Quote(excerpt(string(s.key))) + "]")
		default:
			text.WriteString("[" + strconv.Itoa(s.index) + "]")
		}
	}
	return text.String()
}

func newCounter(ctx context.Context, m protoreflect.MessageDescriptor) *counter {
	c := &counter{rules: listRules[m.FullName()], pace: pace{ctx: ctx}}
	c.counts = make([]int, len(c.rules))
	return c
}

func (c *counter) push(s step) { c.path = append(c.path, s) }

func (c *counter) pop() { c.path = c.path[:len(c.path)-1] }

// add counts an element of a field, at the top of the message or deeper, whose list has n
// elements so far, and reports whether to go on.
func (c *counter) add(field protoreflect.FieldDescriptor, n *int, depth int) bool {
	if depth == 0 {
		for i := range c.rules {
			if c.rules[i].field == field {
				c.counts[i]++
			}
		}
	}
	*n++
	c.total++
	return c.total <= maxElements
}

// counted notes that the list of the path has n elements, if it has no more than are
// counted.
func (c *counter) counted(n int) {
	if n > c.most {
		c.most, c.longest = n, c.path.text(false)
	}
}

// broken returns an error if there are too many, or the context has ended meanwhile.
func (c *counter) broken() error {
	var list []*rules.Violation
	for i := range c.rules {
		if c.counts[i] > c.rules[i].most {
			list = append(list, c.rules[i].violation(c.counts[i]))
		}
	}
	switch {
	case c.pace.err != nil:
		return c.pace.err
	case c.long != nil:
		return invalidf(reasonMalformed, c.long.text(false), "unmarshal message: %s is a number of more than %d characters; accepted: up to %d", cmp.Or(c.long.text(true), "a value"), maxNumber, maxNumber)
	case c.deep:
		return invalidf(reasonMessage, "", "more than %d messages, lists or objects are within one another; accepted: up to %d", maxDepth, maxDepth)
	case c.total > maxElements:
		return invalidf(reasonMessage, c.longest, "the lists of the message have more than %d elements in all, %s has at least %d of them; accepted: up to %d",
			maxElements, c.longest, c.most, maxElements)
	case len(list) > 0:
		return violationsError(list)
	}
	return nil
}

// valueName and listValueName are the names of the messages that bindings are.
const (
	valueName     protoreflect.FullName = "google.protobuf.Value"
	listValueName protoreflect.FullName = "google.protobuf.ListValue"
)

// valueType is what a binding is, and what a list of one has.
var valueType = (*structpb.Value)(nil).ProtoReflect().Descriptor()

// isBinding reports whether a message is the value of a binding or of a list of one.
func isBinding(m protoreflect.MessageDescriptor) bool { return m != nil && m.FullName() == valueName }
