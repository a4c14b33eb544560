package server

import (
	"regexp"
	"strconv"

	rules "buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// Lists are checked for their length before anything is done for each of their elements:
// before rules are evaluated, and where a message is large, before it is decoded. An
// empty element takes two bytes of a message and a hundred of memory.

// maxElements is how many elements the lists of a message may have in all. What keeps the
// contract's own rules has fewer, unless its elements are of a few bytes.
const maxElements = 1 << 20

// maxDepth is how many messages, lists and objects may be within one another.
const maxDepth = 64

// countStep is how many elements are counted before others are given way to.
const countStep = 4096

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
var listRules = readListRules(tandemv1.File_tandem_v1_retrieval_proto.Messages())

// listExpression is the form of a rule on a number of elements.
var listExpression = regexp.MustCompile(
	`^this\.size\(\) (?:>= \d+ && this\.size\(\) )?<= (\d+) \? '' : '([^']*)' \+ string\(this\.size\(\)\) \+ '([^']*)'$`)

func readListRules(messages protoreflect.MessageDescriptors) map[protoreflect.FullName][]listRule {
	out := map[protoreflect.FullName][]listRule{}
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
	return out
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
	rules  []listRule // of the message, not of those in it: each of a batch fails alone
	counts []int      // of the lists with rules
	total  int        // of all lists
	deep   bool       // whether messages are too deep within one another
}

func newCounter(m protoreflect.MessageDescriptor) *counter {
	c := &counter{rules: listRules[m.FullName()]}
	c.counts = make([]int, len(c.rules))
	return c
}

// add counts an element of a field, at the top of the message or deeper, and reports
// whether to go on.
func (c *counter) add(field protoreflect.FieldDescriptor, depth int) bool {
	if depth == 0 {
		for i := range c.rules {
			if c.rules[i].field == field {
				c.counts[i]++
			}
		}
	}
	c.total++
	if c.total%countStep == 0 {
		index.GiveWay()
	}
	return c.total <= maxElements
}

// broken returns an error if there are too many.
func (c *counter) broken() error {
	var list []*rules.Violation
	for i := range c.rules {
		if c.counts[i] > c.rules[i].most {
			list = append(list, c.rules[i].violation(c.counts[i]))
		}
	}
	switch {
	case c.deep:
		return invalidf(reasonMessage, "", "more than %d messages, lists or objects are within one another; accepted: up to %d", maxDepth, maxDepth)
	case c.total > maxElements:
		return invalidf(reasonMessage, "", "the lists of the message have more than %d elements in all; accepted: up to %d", maxElements, maxElements)
	case len(list) > 0:
		return violationsError(list)
	}
	return nil
}

// checkWire returns an error if the lists of a message in protobuf are too long. It says
// nothing of one that is malformed.
func checkWire(data []byte, m protoreflect.MessageDescriptor) error {
	if len(data) <= smallMessage {
		return nil
	}
	c := newCounter(m)
	c.wire(data, m, 0)
	return c.broken()
}

// wire counts, and reports whether to go on.
func (c *counter) wire(data []byte, m protoreflect.MessageDescriptor, depth int) bool {
	if c.deep = depth > maxDepth; c.deep {
		return false
	}
	var field protoreflect.FieldDescriptor
	for len(data) > 0 {
		number, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		value := data
		if typ == protowire.BytesType {
			value, n = protowire.ConsumeBytes(data)
		} else {
			n = protowire.ConsumeFieldValue(number, typ, data)
		}
		if n < 0 {
			return false
		}
		data = data[n:]
		if field == nil || field.Number() != number {
			field = m.Fields().ByNumber(number)
		}
		if field == nil || typ != protowire.BytesType {
			continue // numbers take no more memory than in the message
		}
		isMessage := field.Message() != nil
		if field.IsMap() || field.IsList() && (isMessage || !field.IsPacked()) {
			if !c.add(field, depth) {
				return false
			}
		}
		if isMessage && !c.wire(value, field.Message(), depth+1) {
			return false
		}
	}
	return true
}

// checkJSON does the same for a message in JSON.
func checkJSON(data []byte, m protoreflect.MessageDescriptor) error {
	if len(data) <= smallMessage {
		return nil
	}
	s := jsonScanner{data: data, counter: newCounter(m)}
	s.value(m, 0)
	return s.counter.broken()
}

// jsonScanner counts the elements of a message in JSON. It looks at the names of the
// message's own fields only, and takes each list, and each entry of an object, for an
// element.
type jsonScanner struct {
	data    []byte
	counter *counter
}

// value reads a value, the message itself if m is not nil. It reports whether to go on.
func (s *jsonScanner) value(m protoreflect.MessageDescriptor, depth int) bool {
	s.space()
	if s.counter.deep = depth > maxDepth; s.counter.deep || len(s.data) == 0 {
		return false
	}
	switch s.data[0] {
	case '{':
		return s.list('}', func() bool { return s.member(m, depth) })
	case '[':
		return s.list(']', func() bool { return s.counter.add(nil, depth) && s.value(nil, depth+1) })
	case '"':
		_, ok := s.text()
		return ok
	}
	for i, c := range s.data {
		switch c {
		case ',', ']', '}', ' ', '\t', '\r', '\n':
			s.data = s.data[i:]
			return i > 0
		}
	}
	s.data = nil
	return true
}

// member reads a member of an object.
func (s *jsonScanner) member(m protoreflect.MessageDescriptor, depth int) bool {
	s.space()
	name, ok := s.text()
	if !ok || !s.skip(':') {
		return false
	}
	var field protoreflect.FieldDescriptor
	if m != nil {
		if field = m.Fields().ByJSONName(string(name)); field == nil {
			field = m.Fields().ByTextName(string(name))
		}
	}
	s.space()
	if field == nil || len(s.data) == 0 || !field.IsList() && !field.IsMap() {
		return (m != nil || s.counter.add(nil, depth)) && s.value(nil, depth+1)
	}
	switch s.data[0] {
	case '{':
		return s.list('}', func() bool {
			s.space()
			_, ok := s.text()
			return ok && s.skip(':') && s.counter.add(field, 0) && s.value(nil, depth+2)
		})
	case '[':
		return s.list(']', func() bool { return s.counter.add(field, 0) && s.value(nil, depth+2) })
	}
	return s.value(nil, depth+1)
}

// list reads what stands between brackets, with commas between.
func (s *jsonScanner) list(end byte, element func() bool) bool {
	s.data = s.data[1:]
	if s.skip(end) {
		return true
	}
	for element() {
		if s.skip(end) {
			return true
		}
		if !s.skip(',') {
			return false
		}
	}
	return false
}

// text reads a string and returns it as it is written.
func (s *jsonScanner) text() ([]byte, bool) {
	if len(s.data) == 0 || s.data[0] != '"' {
		return nil, false
	}
	for i := 1; i < len(s.data); i++ {
		switch s.data[i] {
		case '\\':
			i++
		case '"':
			text := s.data[1:i]
			s.data = s.data[i+1:]
			return text, true
		}
	}
	return nil, false
}

func (s *jsonScanner) space() {
	for len(s.data) > 0 {
		switch s.data[0] {
		case ' ', '\t', '\r', '\n':
			s.data = s.data[1:]
		default:
			return
		}
	}
}

// skip reads a byte, if it is next.
func (s *jsonScanner) skip(c byte) bool {
	s.space()
	if len(s.data) == 0 || s.data[0] != c {
		return false
	}
	s.data = s.data[1:]
	return true
}
