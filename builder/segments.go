package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// maxSegmentsFile is the largest file of segments that is read, in bytes: that of
// as many segments as there may be, with the longest expressions, and as much again.
const maxSegmentsFile = 2 * shard.MaxSegments * eligibility.MaxLength

// segmentsFile is what a file of segments says.
type segmentsFile struct {
	path  string
	input shard.Input
	list  []shard.Segment // names ascending
	lines map[string]int  // where each expression begins, by name
}

// readSegments reads a file of segments: a YAML mapping of names to expressions.
// Whatever else YAML can say is an error, so that no segment is other than it looks.
func readSegments(path string) (*segmentsFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read segments: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSegmentsFile+1))
	if err != nil {
		return nil, fmt.Errorf("read segments: %w", err)
	}
	if len(data) > maxSegmentsFile {
		return nil, fmt.Errorf("read segments %s: more than %d bytes", path, maxSegmentsFile)
	}
	s := &segmentsFile{path: path, lines: map[string]int{}, input: shard.Input{
		Role: "app-segments", Name: input.RecordedName(path), Size: int64(len(data)), Digest: shard.Sum(data),
	}}
	if err := s.parse(data); err != nil {
		return nil, fmt.Errorf("read segments %s: %w", path, err)
	}
	return s, nil
}

const wantSegments = "want a mapping of segment names to expressions"

func (s *segmentsFile) parse(data []byte) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := d.Decode(&document); errors.Is(err, io.EOF) {
		return errors.New("it is empty: " + wantSegments)
	} else if err != nil {
		return err
	}
	if err := d.Decode(&yaml.Node{}); err == nil {
		return errors.New("it has more than one document: " + wantSegments)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode || root.Style&yaml.TaggedStyle != 0 {
		return fmt.Errorf("line %d: it is %s: %s", root.Line, describe(root), wantSegments)
	}
	if len(root.Content) == 0 {
		return errors.New("it has no segment: " + wantSegments)
	}
	first := map[string]int{}
	for pair := range slices.Chunk(root.Content, 2) {
		key, value := pair[0], pair[1]
		if !isString(key) {
			return fmt.Errorf("line %d: segment name %.80q is %s: want a string; quotes make it one", key.Line, key.Value, describe(key))
		}
		segment := shard.Segment{Name: key.Value, Expression: value.Value}
		if err := segment.CheckName(); err != nil {
			return fmt.Errorf("line %d: %w", key.Line, err)
		}
		if line, twice := first[key.Value]; twice {
			return fmt.Errorf("line %d: segment %s is there already, in line %d", key.Line, key.Value, line)
		}
		first[key.Value] = key.Line
		if !isString(value) {
			return fmt.Errorf("line %d: segment %s: the expression is %s: want a string; quotes make it one", value.Line, key.Value, describe(value))
		}
		s.list = append(s.list, segment)
		s.lines[segment.Name] = value.Line
	}
	if n := len(s.list); n > shard.MaxSegments {
		return fmt.Errorf("%d segments, at most %d are accepted", n, shard.MaxSegments)
	}
	slices.SortFunc(s.list, func(a, b shard.Segment) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// isString reports whether a node is a string in every version of YAML, and not by
// an anchor, an alias or a tag.
func isString(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!str" && n.Anchor == "" && n.Style&yaml.TaggedStyle == 0
}

// describe says what a node is.
func describe(n *yaml.Node) string {
	switch {
	case n.Anchor != "":
		return "marked by an anchor"
	case n.Style&yaml.TaggedStyle != 0:
		return "tagged " + n.Tag
	}
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!str":
		return "a string"
	}
	return "of the type " + strings.TrimPrefix(n.Tag, "!!")
}

// check compiles every expression against the attributes of the app tower, and
// returns an error that names the segment and the place.
func (s *segmentsFile) check(compiler *eligibility.Compiler) error {
	var all []error
	for _, segment := range s.list {
		if _, err := segment.Compile(compiler); err != nil {
			all = append(all, fmt.Errorf("%s:%d: %w", s.path, s.lines[segment.Name], err))
		}
	}
	return errors.Join(all...)
}

// listSegments records the segments, if there are any.
func (b *build) listSegments() {
	if b.segments = b.Opened.segments; b.segments == nil {
		return
	}
	for _, s := range b.segments.list {
		b.manifest.Apps.Segments = append(b.manifest.Apps.Segments, shard.SegmentManifest{Segment: s})
	}
}

// checkSegments compiles the segments, so that a build fails before it has spent
// time on a graph.
func (b *build) checkSegments() error {
	if b.segments == nil {
		return nil
	}
	compiler, err := eligibility.NewCompiler(b.apps.schema)
	if err != nil {
		return err
	}
	return b.segments.check(compiler)
}

// measureSegments counts the eligible apps of each segment and measures the recall
// among them.
func (b *build) measureSegments(ctx context.Context, queries *index.Matrix) (err error) {
	list := b.manifest.Apps.Segments
	if len(list) == 0 {
		return nil
	}
	t, err := shard.OpenTower(ctx, b.staged, b.manifest, shard.Apps)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	b.Progress.Stage("measure recall of segments", int64(len(list)))
	for i, rows := range t.SegmentRows() {
		s := &list[i]
		s.Eligible = rows
		if rows == 0 {
			b.Progress.Note(fmt.Sprintf("segment %s: no app is eligible", s.Name))
		} else if s.Recall, err = measureRecall(ctx, t, queries, s.Name, []float64{index.DefaultTarget}, func(int) {}); err != nil {
			return fmt.Errorf("segment %s: %w", s.Name, err)
		}
		b.Progress.Step(int64(i + 1))
	}
	return nil
}
