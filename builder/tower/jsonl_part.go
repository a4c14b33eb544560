package tower

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// AttributeSurvey is what all JSON Lines of a tower amount to: who has it can read some of
// the files alone, in one pass, and finds on each line what it has in the whole input.
type AttributeSurvey struct {
	Keys  []AttributeKey `json:"keys"`
	Lasts []int64        `json:"lasts"` // the last line of each file, counted over all
	Names []string       `json:"names"` // of the files, for people
	// Unknown are the keys that were to be ignored and are not in the input.
	Unknown []string `json:"unknown,omitempty"`
}

// AttributeKey is a key of JSON Lines.
type AttributeKey struct {
	Name    string         `json:"name"`
	Type    attribute.Type `json:"type,omitempty"` // none of a key that is ignored
	Told    bool           `json:"told,omitempty"`
	Reason  string         `json:"reason,omitempty"` // why it is of the type
	Ignored bool           `json:"ignored,omitempty"`
}

// AttributePart says which part of an input files of JSON Lines are.
type AttributePart struct {
	Survey *AttributeSurvey // of the whole input
	First  int              // position of the first file, which the others follow
}

// Survey returns what all files amount to.
func (r *AttributeReader) Survey() *AttributeSurvey {
	s := &AttributeSurvey{Lasts: r.lasts, Names: r.names, Unknown: r.unknown}
	for _, k := range r.keys {
		key := AttributeKey{Name: k.name, Told: k.told, Reason: k.reason, Ignored: k.ignored}
		if !k.ignored {
			if _, is := r.schema.Lookup(k.name); !is {
				continue // it was told of, and is not there
			}
			key.Type = k.typ
		}
		s.Keys = append(s.Keys, key)
	}
	slices.SortFunc(s.Keys, func(a, b AttributeKey) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// Schema returns the attributes that lines have.
func (s *AttributeSurvey) Schema() (attribute.Schema, error) {
	var fields []attribute.Field
	for _, k := range s.Keys {
		if !k.Ignored {
			fields = append(fields, attribute.Field{Name: k.Name, Type: k.Type})
		}
	}
	return attribute.NewSchema(fields)
}

// Place says where a line is, by its number in the whole input.
func (s *AttributeSurvey) Place(line int64) string {
	return (&AttributeReader{names: s.Names, lasts: s.Lasts}).Place(line)
}

// takePart takes over what is known of the whole input.
func (r *AttributeReader) takePart(p *AttributePart) (err error) {
	s := p.Survey
	if p.First < 0 || len(s.Lasts) != len(s.Names) || p.First+len(r.files) > len(s.Names) {
		return fmt.Errorf("open attributes: files %d to %d of an input of %d", p.First, p.First+len(r.files)-1, len(s.Names))
	}
	r.names, r.lasts, r.unknown = s.Names, s.Lasts, s.Unknown
	if p.First > 0 {
		r.before = s.Lasts[p.First-1]
	}
	if r.schema, err = s.Schema(); err != nil {
		return fmt.Errorf("open attributes: %w", err)
	}
	clear(r.keys)
	for _, k := range s.Keys {
		key := &jsonKey{name: k.Name, typ: k.Type, told: k.Told, reason: k.Reason, ignored: k.Ignored}
		key.field, _ = r.schema.Lookup(k.Name)
		r.keys[k.Name] = key
	}
	return nil
}
