package members

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/tandem-ann/tandem/server/filewatch"
)

const (
	// MaxFileBytes bounds a file of members.
	MaxFileBytes = 1 << 20
	// maxName bounds names, in bytes: the longest address is one.
	maxName = maxHost + len(":65535")
	// maxWeight bounds weights, in bytes, so that sums of them do not overflow.
	maxWeight = 1 << 50
)

// fileFields are what a member has in a file.
var fileFields = []string{"name", "address", "zone", "weight"}

// file is a list in a file.
type file struct{ text, path string }

// String implements [Source].
func (f *file) String() string { return f.text }

// Watch implements [Source].
func (f *file) Watch(ctx context.Context, told func(Members)) {
	k := keeper{source: f.text, told: told}
	var list []Member // of the last file that could be used
	good := false     // so could the file that is there now
	files := filewatch.New("members", MaxFileBytes, func(contents [][]byte) (err error) {
		list, err = ParseFile(contents[0])
		good = err == nil
		return err
	}, f.path)
	for ctx.Err() == nil {
		switch err := files.LookContext(ctx); { // it tells of each error once
		case ctx.Err() != nil:
		case err != nil:
			good = false
			k.failed(err)
		case good:
			k.heard(slices.Clone(list), nil)
		}
		sleep(ctx, poll)
	}
}

// ParseFile reads a file of members, a list in YAML:
//
//   - name: node-0             # the address if it is left out
//     address: 10.0.0.1:7070   # of its shard RPC
//     zone: eu-1a              # may be left out
//     weight: 64GiB            # memory that it may map, in bytes or with KiB to TiB; likewise
//
// Errors name the line and the field. Nothing is taken in another way than it looks: there are
// no anchors, aliases and tags. A list without members is an error, too.
func ParseFile(data []byte) ([]Member, error) {
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("it has %d bytes, want up to %d", len(data), MaxFileBytes)
	}
	root, err := document(data)
	if err != nil {
		return nil, err
	}
	if root.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: it is no list of members", root.Line)
	}
	if len(root.Content) > MaxMembers {
		return nil, fmt.Errorf("it has %d members, want up to %d", len(root.Content), MaxMembers)
	}
	var list []Member
	names, addresses := map[string]int{}, map[string]int{} // and the lines that they are on
	for _, node := range root.Content {
		m, err := parseMember(node)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", node.Line, err)
		}
		if line, ok := addresses[m.Address]; ok {
			return nil, fmt.Errorf("line %d: address is %.100q, as that of the member on line %d", node.Line, m.Address, line)
		}
		if line, ok := names[m.Name]; ok {
			return nil, fmt.Errorf("line %d: name is %.100q, as that of the member on line %d", node.Line, m.Name, line)
		}
		names[m.Name], addresses[m.Address] = node.Line, node.Line
		list = append(list, m)
	}
	return list, arrange(list)
}

// document returns the root of the one document in data.
func document(data []byte) (*yaml.Node, error) {
	documents := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	err := documents.Decode(&root)
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty, want a list of members")
	}
	if err == nil {
		if err = documents.Decode(new(yaml.Node)); err == nil {
			return nil, errors.New("it has more than one document, want a list of members")
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("it is no YAML: %.200s", err.Error())
	}
	return root.Content[0], nil
}

// parseMember reads one entry of a file.
func parseMember(node *yaml.Node) (m Member, err error) {
	want := strings.Join(fileFields, ", ")
	if node.Kind != yaml.MappingNode || node.Anchor != "" || node.Style&yaml.TaggedStyle != 0 {
		return m, fmt.Errorf("a member is not a mapping with some of the fields %s", want)
	}
	values := map[string]string{}
	for i := 0; i < len(node.Content); i += 2 {
		name, value := node.Content[i].Value, node.Content[i+1]
		if !slices.Contains(fileFields, name) || node.Content[i].Kind != yaml.ScalarNode {
			return m, fmt.Errorf("field is %.100q, want one of %s", name, want)
		}
		if _, ok := values[name]; ok {
			return m, fmt.Errorf("%s is there twice", name)
		}
		if value.Kind != yaml.ScalarNode || value.Tag == "!!null" || value.Anchor != "" || value.Style&yaml.TaggedStyle != 0 || value.Value == "" {
			return m, fmt.Errorf("%s is no text; leave it out if there is none", name)
		}
		values[name] = value.Value
	}
	m.Condition = ready
	if _, ok := values["address"]; !ok {
		return m, errors.New("address is missing")
	}
	if m.Address, err = canonicalAddress(values["address"]); err != nil {
		return m, fmt.Errorf("address: %w", err)
	}
	m.Name, m.Zone = m.Address, values["zone"]
	if name, ok := values["name"]; ok {
		m.Name = name
	}
	for _, field := range []struct{ what, text string }{{"name", m.Name}, {"zone", m.Zone}} {
		if !isName(field.text) {
			return m, fmt.Errorf("%s is %.100q, want up to %d visible characters", field.what, field.text, maxName)
		}
	}
	if text, ok := values["weight"]; ok {
		if m.Weight, err = parseWeight(text); err != nil {
			return m, err
		}
	}
	return m, nil
}

// isName reports whether a text may be a name or a zone.
func isName(text string) bool {
	return len(text) <= maxName && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' })
}

// parseWeight reads a number of bytes, such as 64GiB.
func parseWeight(text string) (int64, error) {
	digits, unit := text, int64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			digits, unit = number, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n == 0 || n > uint64(maxWeight/unit) {
		return 0, fmt.Errorf("weight is %.100q, want bytes, from 1 to %d, such as 64GiB", text, int64(maxWeight))
	}
	return int64(n) * unit, nil
}
