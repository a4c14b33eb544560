package builder_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// segmentsFile writes a file of segments.
func segmentsFile(t testing.TB, text string) string {
	path := filepath.Join(t.TempDir(), "segments.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const segmentsYAML = `# Who is served what.
linux_teen: '"linux" in platforms && min_age < 18'
cheap: price < 0.5   # a plain string
puzzles: |
  genre == "puzzle" ||
  genre == "strategy"
nobody: min_age > 100
everybody: "true"
`

// teen reports whether an app is in the segment linux_teen.
func teen(r row) bool {
	return slices.Contains(r.values[3].Keywords(), "linux") && !r.values[2].Absent() && r.values[2].Int() < 18
}

func TestSegments(t *testing.T) {
	apps, users := rows("app", 1200, 12, 21), rows("user", 200, 12, 22)
	o := options(t, index.Dot, apps, users)
	_, plain := build(t, o)
	require.Equal(t, manifest.EvidenceVersion, plain.Manifest.Version)
	o.Segments = segmentsFile(t, segmentsYAML)
	notes := &recorder{}
	o.Progress = notes
	store, report := build(t, o)
	m := report.Manifest
	require.Equal(t, manifest.EvidenceVersion, m.Version)
	require.Equal(t, plain.Manifest.Apps.Recall, m.Apps.Recall, "segments change nothing else")
	require.Equal(t, plain.Manifest.Users, m.Users)
	last := m.Inputs[len(m.Inputs)-1]
	require.Equal(t, manifest.Input{Role: "app-segments", Name: "segments.yaml", Size: int64(len(segmentsYAML)), Digest: manifest.Sum([]byte(segmentsYAML))}, last)
	require.Contains(t, notes.notes, "segment nobody: no app is eligible")
	require.NoError(t, snapshots.Verify(context.Background(), store, report.Digest, func(string) {}))

	cheap := func(r row) bool { return !r.values[4].Absent() && r.values[4].Float() < 0.5 }
	want := map[string]func(row) bool{
		"cheap": cheap, "everybody": func(row) bool { return true }, "linux_teen": teen, "nobody": func(row) bool { return false },
		"puzzles": func(r row) bool {
			return r.values[1].Equal(attribute.OfKeyword("puzzle")) || r.values[1].Equal(attribute.OfKeyword("strategy"))
		},
	}
	var names []string
	tw := open(t, store, report.Digest).Tower(shard.Apps)
	for _, s := range m.Apps.Segments {
		names = append(names, s.Name)
		eligible := map[string]bool{}
		for _, r := range apps {
			if want[s.Name](r) {
				eligible[r.id] = true
			}
		}
		require.Equal(t, len(eligible), s.Eligible, s.Name)
		a, err := tw.Search(context.Background(), &shard.Query{Vectors: [][]float32{users[0].vector}, K: 2000, Target: 1, MinCoverage: 1, Segment: s.Name})
		require.NoError(t, err)
		require.Len(t, a.Candidates, len(eligible))
		for _, c := range a.Candidates {
			require.True(t, eligible[c.ID], "%s is not in %s", c.ID, s.Name)
		}
		if s.Eligible == 0 {
			require.Empty(t, s.Recall)
			continue
		}
		require.Len(t, s.Recall, 2)
		for i, r := range s.Recall {
			require.Equal(t, []int{10, 100}[i], r.K)
			require.Equal(t, 0.99, r.Target)
			require.Equal(t, 50, r.Queries)
			require.GreaterOrEqual(t, r.Recall, 0.97, "%s at %d", s.Name, r.K)
			require.Len(t, r.Ef, 3)
		}
	}
	require.Equal(t, []string{"cheap", "everybody", "linux_teen", "nobody", "puzzles"}, names)
	require.Less(t, m.Apps.Segments[0].Eligible, 100, "fewer than k are measured at what there is")
	require.Equal(t, "genre == \"puzzle\" ||\ngenre == \"strategy\"\n", m.Apps.Segments[4].Expression)
}

// The order of the file does not matter to anything but its digest, and neither does
// the number of threads.
func TestSameSegmentsSameSnapshot(t *testing.T) {
	o := options(t, index.Dot, rows("app", 600, 8, 23), rows("user", 100, 8, 24))
	o.Segments = segmentsFile(t, segmentsYAML)
	_, one := build(t, o)
	o.Threads = 1
	_, again := build(t, o)
	require.Equal(t, one.Digest, again.Digest)

	o.Segments = segmentsFile(t, "cheap: price < 2\na: price < 1\n")
	_, ab := build(t, o)
	o.Segments = segmentsFile(t, "a: price < 1\ncheap: price < 2\n")
	_, ba := build(t, o)
	require.Equal(t, ab.Manifest.Apps, ba.Manifest.Apps)
	require.NotEqual(t, ab.Digest, ba.Digest)
}

func TestSegmentsOfUnmeasuredApps(t *testing.T) {
	o := options(t, index.Dot, rows("app", 20, 8, 23), rows("user", 1, 8, 24))
	o.Segments = segmentsFile(t, "all: 'true'")
	store, report := build(t, o)
	require.Equal(t, 20, report.Manifest.Apps.Segments[0].Eligible)
	require.Empty(t, report.Manifest.Apps.Segments[0].Recall)
	open(t, store, report.Digest)
}

func TestBadSegments(t *testing.T) {
	o := options(t, index.Dot, rows("app", 5, 8, 1), rows("user", 5, 8, 2))
	many := strings.Builder{}
	for i := range 257 {
		fmt.Fprintf(&many, "s%d: free\n", i)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"empty":           {"", "it is empty: want a mapping of segment names to expressions"},
		"comments":        {"# nothing\n", "it is empty: want a mapping"},
		"null":            {"~", "line 1: it is nothing: want a mapping"},
		"no segment":      {"{}", "it has no segment"},
		"list":            {"- a: free", "line 1: it is a list: want a mapping"},
		"text":            {"free", "line 1: it is a string: want a mapping"},
		"tagged":          {"!x {a: free}", "line 1: it is tagged !x: want a mapping"},
		"two documents":   {"a: free\n---\nb: free", "more than one document"},
		"no YAML":         {"a: [", "yaml: line"},
		"bad second":      {"a: free\n---\nb: [", "yaml: line"},
		"duplicate":       {"a: free\nb: free\n\na: '!free'", "line 4: segment a is there already, in line 1"},
		"upper case":      {"a: free\nTeen: free", `line 2: segment name "Teen": want 1 to 64 of a-z, 0-9 and _`},
		"long name":       {strings.Repeat("a", 65) + ": free", "want 1 to 64 of"},
		"empty name":      {"'': free", `segment name "": want 1 to 64`},
		"number name":     {"18: free", `line 1: segment name "18" is of the type int: want a string; quotes make it one`},
		"merged":          {"a: &x free\n<<: {b: free}", "line 1: segment a: the expression is marked by an anchor"},
		"merge key":       {"<<: {b: free}", `segment name "<<" is of the type merge`},
		"alias":           {"a: free\nb: *a", "unknown anchor"},
		"complex key":     {"? [a]\n: free", "is a list: want a string"},
		"bool":            {"a: true", "line 1: segment a: the expression is of the type bool: want a string; quotes make it one"},
		"null expression": {"a:", "line 1: segment a: the expression is nothing: want a string"},
		"shape":           {"a: free\nb: {filter: free}", "line 2: segment b: the expression is a mapping: want a string"},
		"tagged value":    {"a: !!str free", "the expression is tagged !!str"},
		"too many":        {many.String(), "257 segments, at most 256 are accepted"},
		"too large":       {strings.Repeat("# much\n", 2_000_000), "more than 8388608 bytes"},
		"not UTF-8":       {"a: \xff", "yaml: "},
		"empty filter":    {"a: ''", "segments.yaml:1: segment a: filter: line 1, column 1: empty"},
		"unknown":         {"ok: free\na: |\n  free &&\n    agee > 3", "segments.yaml:2: segment a: filter: line 2, column 3: unknown attribute agee"},
		"binding":         {"a: min_age <= user.age", "segments.yaml:1: segment a: filter: line 1, column 12: it reads user.age; a segment is the same for every query, so it has no bindings"},
		"binding below":   {"a: |\n  free &&\n    (user.old < user.new || min_age < user.age)", "segments.yaml:1: segment a: filter: line 2, column 4: it reads user.old; "},
		"all at once":     {"a: x\nb: free\nc: y", "segments.yaml:3: segment c: filter: line 1, column 1: unknown attribute y"},
	} {
		t.Run(name, func(t *testing.T) {
			o.Segments = segmentsFile(t, tt.text)
			store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
			require.NoError(t, err)
			_, err = builder.Build(context.Background(), store, o)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, o.Segments)
		})
	}
	o.Segments = "nowhere.yaml"
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	_, err = builder.Build(context.Background(), store, o)
	require.EqualError(t, err, "read segments: open nowhere.yaml: no such file or directory")
}
