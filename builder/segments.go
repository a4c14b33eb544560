package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/strictyaml"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// maxSegmentsFile is the largest file of segments that is read, in bytes: that of
// as many segments as there may be, with the longest expressions, and as much again.
const maxSegmentsFile = 2 * shard.MaxSegments * eligibility.MaxLength

// segmentsFile is what a file of segments says.
type segmentsFile struct {
	path  string
	data  []byte
	input manifest.Input
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
	return parseSegments(path, data)
}

// parseSegments is [readSegments] of what a file has.
func parseSegments(path string, data []byte) (*segmentsFile, error) {
	s := &segmentsFile{path: path, data: data, lines: map[string]int{}, input: manifest.Input{
		Role: "app-segments", Name: input.RecordedName(path), Size: int64(len(data)), Digest: manifest.Sum(data),
	}}
	if err := s.parse(data); err != nil {
		return nil, fmt.Errorf("read segments %s: %w", path, err)
	}
	return s, nil
}

const wantSegments = "want a mapping of segment names to expressions"

func (s *segmentsFile) parse(data []byte) error {
	root, err := strictyaml.Document(data, wantSegments)
	if err != nil {
		return err
	}
	if root.Kind != yaml.MappingNode || root.Style&yaml.TaggedStyle != 0 {
		return fmt.Errorf("line %d: it is %s: %s", root.Line, describe(root), wantSegments)
	}
	if len(root.Content) == 0 {
		return errors.New("it has no segment: " + wantSegments)
	}
	first := map[string]int{}
	for pair := range slices.Chunk(root.Content, 2) {
		key, value := pair[0], pair[1]
		if !strictyaml.Is(key, "!!str") {
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
		if !strictyaml.Is(value, "!!str") {
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

// describe says what a node is: a scalar is of its type.
func describe(n *yaml.Node) string {
	return strictyaml.Describe(n, func(n *yaml.Node) string {
		if n.Tag == "!!str" {
			return "a string"
		}
		return "of the type " + strings.TrimPrefix(n.Tag, "!!")
	})
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
func (j *job) listSegments(m *manifest.Manifest) {
	if j.segments == nil {
		return
	}
	for _, s := range j.segments.list {
		m.Apps.Segments = append(m.Apps.Segments, manifest.Segment{Segment: s})
	}
}

// checkSegments compiles the segments, so that a build fails before it has spent
// time on a graph.
func (j *job) checkSegments() error {
	if j.segments == nil {
		return nil
	}
	compiler, err := eligibility.NewCompiler(j.terms[shard.Apps].Schema)
	if err != nil {
		return err
	}
	return j.segments.check(compiler)
}

// measureSegments counts the eligible apps of each segment and measures the recall
// among them.
func (b *build) measureSegments(ctx context.Context, queries *index.Matrix) (err error) {
	list := b.manifest.Apps.Segments
	if len(list) == 0 {
		return nil
	}
	t, err := snapshots.OpenTower(ctx, b.staged, b.manifest, shard.Apps)
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
