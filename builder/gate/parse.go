package gate

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/strictyaml"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// maxFile is the largest file of gates that is read, in bytes.
const maxFile = 1 << 20

// ReadThresholds reads a file of gates, and describes it as an input of a build. Every
// error is a [gates.ThresholdsError]. See [ParseThresholds].
func ReadThresholds(path string) (gates.Thresholds, manifest.Input, error) {
	t, input, err := readThresholds(path)
	if err != nil {
		return t, input, gates.ThresholdsError{Err: err}
	}
	return t, input, nil
}

func readThresholds(path string) (gates.Thresholds, manifest.Input, error) {
	data, err := ReadFile(path)
	if err != nil {
		return gates.Thresholds{}, manifest.Input{}, err
	}
	return Thresholds(path, data)
}

// ReadFile reads a file of gates, which it does not parse.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read gates: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read gates: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read gates %s: more than %d bytes", path, maxFile)
	}
	return data, nil
}

// Thresholds is [ReadThresholds] of what a file has.
func Thresholds(path string, data []byte) (gates.Thresholds, manifest.Input, error) {
	t, err := ParseThresholds(data)
	if err != nil {
		return t, manifest.Input{}, fmt.Errorf("read gates %s: %w", path, err)
	}
	return t, manifest.Input{Role: "gates", Name: input.RecordedName(path), Size: int64(len(data)), Digest: manifest.Sum(data)}, nil
}

const wantGates = "want a mapping of gates to on, off or their limits"

// ParseThresholds reads a YAML mapping of gates to off, on, or a mapping of limits to
// numbers. What it does not mention has its default; under recall, segments maps names
// of segments to limits of their own, or off. Whatever else YAML can say is an error,
// which names the line, the key, the value and what is accepted, so that no limit is
// other than it looks.
func ParseThresholds(data []byte) (gates.Thresholds, error) {
	t := gates.DefaultThresholds()
	root, err := strictyaml.Document(data, wantGates)
	if err != nil {
		return t, err
	}
	entries, err := pairs(root, "", wantGates)
	if err != nil {
		return t, err
	}
	var segments *entry
	for _, g := range entries {
		if !slices.Contains(gates.Names(), g.key) {
			return t, fmt.Errorf("line %d: gate %.80q is unknown: want one of %s", g.line, g.key, strings.Join(gates.Names(), ", "))
		}
		on, isSwitch := switched(g.value)
		if isSwitch {
			if !on {
				t.Off[g.key] = true
			}
			continue
		}
		limits := t.Limits(g.key)
		if len(limits) == 0 {
			return t, fmt.Errorf("line %d: %s is %s: want on or off", g.value.Line, g.key, describe(g.value))
		}
		list, err := pairs(g.value, g.key, "want on, off, or a mapping with any of "+keys(limits))
		if err != nil {
			return t, err
		}
		if g.key == gates.Recall {
			if i := slices.IndexFunc(list, func(e entry) bool { return e.key == "segments" }); i >= 0 {
				segments = &list[i]
				list = slices.Concat(list[:i], list[i+1:])
			}
		}
		if err := set(list, g.key, limits); err != nil {
			return t, err
		}
	}
	if segments != nil { // last, for what they do not mention is as recall says
		return t, parseSegments(&t, segments.value)
	}
	return t, nil
}

func parseSegments(t *gates.Thresholds, n *yaml.Node) error {
	const path = "recall.segments"
	list, err := pairs(n, path, "want a mapping of segment names to off or limits")
	if err != nil {
		return err
	}
	if len(list) > shard.MaxSegments {
		return fmt.Errorf("line %d: %s has %d segments, at most %d are accepted", n.Line, path, len(list), shard.MaxSegments)
	}
	for _, e := range list {
		if err := (shard.Segment{Name: e.key}).CheckName(); err != nil {
			return fmt.Errorf("line %d: %s: %w", e.line, path, err)
		}
		s := gates.SegmentLimits{RecallLimits: t.Recall}
		name := path + "." + e.key
		if on, isSwitch := switched(e.value); isSwitch {
			s.Off = !on
		} else {
			limits := s.Limits()
			own, err := pairs(e.value, name, "want on, off, or a mapping with any of "+keys(limits))
			if err != nil {
				return err
			}
			if err := set(own, name, limits); err != nil {
				return err
			}
		}
		t.Segments[e.key] = s
	}
	return nil
}

// keys lists the keys of limits.
func keys(list []gates.Limit) string {
	names := make([]string, len(list))
	for i, l := range list {
		names[i] = l.Key
	}
	return strings.Join(names, ", ")
}

// set sets limits to what a mapping says.
func set(list []entry, path string, limits []gates.Limit) error {
	for _, e := range list {
		i := slices.IndexFunc(limits, func(l gates.Limit) bool { return l.Key == e.key })
		if i < 0 {
			also := ""
			if path == gates.Recall {
				also = ", segments"
			}
			return fmt.Errorf("line %d: %s.%.80s is unknown: want one of %s%s", e.line, path, e.key, keys(limits), also)
		}
		l := limits[i]
		x, err := number(e.value)
		if err != nil || !(x >= l.Low && x <= l.High) {
			return fmt.Errorf("line %d: %s.%s is %.80s: want a number from %v to %v", e.value.Line, path, e.key, describe(e.value), l.Low, l.High)
		}
		*l.Value = x
	}
	return nil
}

// entry is one key of a mapping.
type entry struct {
	key   string
	line  int
	value *yaml.Node
}

// pairs returns the entries of a mapping; path names it in an error.
func pairs(n *yaml.Node, path, want string) ([]entry, error) {
	is := "it is"
	if path != "" {
		is = path + " is"
	}
	if n.Kind != yaml.MappingNode || n.Style&yaml.TaggedStyle != 0 || n.Anchor != "" {
		return nil, fmt.Errorf("line %d: %s %s: %s", n.Line, is, describe(n), want)
	}
	first := map[string]int{}
	var list []entry
	for pair := range slices.Chunk(n.Content, 2) {
		key := pair[0]
		if !strictyaml.Is(key, "!!str") {
			return nil, fmt.Errorf("line %d: %s a mapping with the key %.80q, which is %s: want a string", key.Line, is, key.Value, describe(key))
		}
		if line, twice := first[key.Value]; twice {
			return nil, fmt.Errorf("line %d: %.80s is there already, in line %d", key.Line, key.Value, line)
		}
		first[key.Value] = key.Line
		list = append(list, entry{key.Value, key.Line, pair[1]})
	}
	return list, nil
}

// switched returns whether a node says on, and whether it says on or off at all. Some
// versions of YAML take both for booleans, which is what they are here, too.
func switched(n *yaml.Node) (on, is bool) {
	if !strictyaml.Is(n, "!!str") && !strictyaml.Is(n, "!!bool") {
		return false, false
	}
	return n.Value == "on", n.Value == "on" || n.Value == "off"
}

// number returns a decimal number.
func number(n *yaml.Node) (float64, error) {
	if !strictyaml.Is(n, "!!int") && !strictyaml.Is(n, "!!float") {
		return 0, errors.New("not a number")
	}
	x, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, errors.New("not a decimal number")
	}
	return x, nil
}

// describe says what a node is: a scalar is its text.
func describe(n *yaml.Node) string {
	return strictyaml.Describe(n, func(n *yaml.Node) string { return strconv.Quote(n.Value) })
}
