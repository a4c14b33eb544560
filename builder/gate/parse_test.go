package gate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
)

func TestParseThresholds(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want func(*gates.Thresholds)
	}{
		"nothing": {"{}", func(*gates.Thresholds) {}},
		"on":      {"structure: on\nrecall: on", func(*gates.Thresholds) {}},
		"off": {"structure: off\nlatency: 'off'", func(t *gates.Thresholds) {
			t.Off[gates.Structure], t.Off[gates.Latency] = true, true
		}},
		"some": {"rows: {fewer: 0.5, more: 3}\nnorms:\n  drift: 1e1\nlatency: {p99_ms: 20}", func(t *gates.Thresholds) {
			t.Rows.Fewer, t.Rows.More, t.NormDrift, t.Latency.P99 = 0.5, 3, 10, 20
		}},
		"segments": {"recall:\n  segments:\n    a: {at_10: 0.5}\n    b: off\n    c: on\n  at_100: 0.9\n  found: 0", func(t *gates.Thresholds) {
			t.Recall.At100, t.Recall.Found = 0.9, 0
			a := t.Recall
			a.At10 = 0.5
			t.Segments["a"] = gates.SegmentLimits{RecallLimits: a}
			t.Segments["b"] = gates.SegmentLimits{Off: true, RecallLimits: t.Recall}
			t.Segments["c"] = gates.SegmentLimits{RecallLimits: t.Recall}
		}},
		"defaults, written out": {`
structure: on
recall: {at_10: 0.97, at_100: 0.97, worst: 0.5, found: 0.9}
concentration: {spread: 0.005, drop: 0.5}
contract: {attributes: 0, segments: 0}
rows: {fewer: 0.2, more: 1, removed_apps: 0.2, removed_users: 0.5, segment_fewer: 0.5}
coverage: {drop: 0.2}
norms: {drift: 2}
overlap: {at_10: 0.2, at_100: 0.2}
placement: {apps: 0.02, segment_apps: 0.1, users: 0.02}
alignment: {ratio: 1.5, drop: 0.2, known: 0.5}
filters: {share: 0}
fresh: {missing: 0}
latency: {p50_ms: 50, p99_ms: 250}
`, func(*gates.Thresholds) {}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseThresholds([]byte(tt.text))
			require.NoError(t, err)
			want := gates.DefaultThresholds()
			tt.want(&want)
			assert.Equal(t, want, got)
		})
	}
}

func TestBadThresholds(t *testing.T) {
	var many strings.Builder
	many.WriteString("recall:\n  segments:\n")
	for i := range shard.MaxSegments + 1 {
		fmt.Fprintf(&many, "    s%d: off\n", i)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"empty":           {"", "it is empty: want a mapping of gates"},
		"null":            {"~", "line 1: it is nothing: want a mapping of gates"},
		"list":            {"- recall", "line 1: it is a list: want a mapping"},
		"text":            {"recall", `line 1: it is "recall": want a mapping`},
		"no YAML":         {"a: [", "yaml: line"},
		"two documents":   {"rows: on\n---\nrows: off", "more than one document"},
		"unknown gate":    {"rows: on\nrecal: off", `line 2: gate "recal" is unknown: want one of structure, recall, `},
		"number gate":     {"1: on", `key "1", which is "1": want a string`},
		"twice":           {"rows: on\nrecall: on\nrows: off", "line 3: rows is there already, in line 1"},
		"switch":          {"rows: true", `line 1: rows is "true": want on, off, or a mapping with any of fewer, more, removed_apps`},
		"null gate":       {"rows:", "line 1: rows is nothing: want on, off, or a mapping"},
		"anchor":          {"rows: &x on", "rows is marked by an anchor"},
		"alias":           {"rows: &x {fewer: 1}\nnorms: *x", "rows is marked by an anchor"},
		"merge":           {"rows: {<<: {fewer: 1}}", "is a mapping with the key"},
		"structure limit": {"structure: {faults: 1}", "line 1: structure is a mapping: want on or off"},
		"unknown limit":   {"norms:\n  drifts: 2", "line 2: norms.drifts is unknown: want one of drift"},
		"unknown recall":  {"recall: {at_1: 0.5}", "recall.at_1 is unknown: want one of at_10, at_100, worst, found, segments"},
		"text limit":      {"norms: {drift: much}", `line 1: norms.drift is "much": want a number from 1 to 1e+06`},
		"quoted limit":    {"norms: {drift: '2'}", `line 1: norms.drift is "2": want a number`},
		"list limit":      {"norms: {drift: [2]}", "norms.drift is a list: want a number"},
		"null limit":      {"norms: {drift: }", "norms.drift is nothing: want a number"},
		"high":            {"recall:\n\n  at_10: 97", `line 3: recall.at_10 is "97": want a number from 0 to 1`},
		"low":             {"norms: {drift: 0.5}", `norms.drift is "0.5": want a number from 1 to`},
		"negative":        {"rows: {fewer: -1}", `rows.fewer is "-1": want a number from 0 to 1`},
		"NaN":             {"rows: {fewer: .nan}", `rows.fewer is ".nan": want a number from 0 to 1`},
		"infinity":        {"rows: {more: .inf}", `rows.more is ".inf": want a number`},
		"hexadecimal":     {"rows: {fewer: 0x1}", `rows.fewer is "0x1": want a number`},
		"tagged":          {"rows: {fewer: !!float 1}", "rows.fewer is tagged !!float"},
		"segments":        {"recall: {segments: off}", `line 1: recall.segments is "off": want a mapping of segment names to off or limits`},
		"segment name":    {"recall: {segments: {A: off}}", `line 1: recall.segments: segment name "A": want 1 to 64 of`},
		"segment value":   {"recall: {segments: {a: 0.5}}", `line 1: recall.segments.a is "0.5": want on, off, or a mapping with any of at_10`},
		"segment limit":   {"recall: {segments: {a: {at_10: x}}}", `recall.segments.a.at_10 is "x": want a number from 0 to 1`},
		"segment key":     {"recall: {segments: {a: {segments: {}}}}", "recall.segments.a.segments is unknown: want one of at_10, at_100, worst, found"},
		"segment twice":   {"recall: {segments: {a: off, a: on}}", "a is there already"},
		"many segments":   {many.String(), "recall.segments has 257 segments, at most 256 are accepted"},
		"not UTF-8":       {"rows: \xff", "yaml: "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseThresholds([]byte(tt.text))
			require.ErrorContains(t, err, tt.want)
		})
	}
}

func TestReadThresholds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gates.yaml")
	text := []byte("norms: off\n")
	require.NoError(t, os.WriteFile(path, text, 0o644))
	got, input, err := ReadThresholds(path)
	require.NoError(t, err)
	assert.True(t, got.Off[gates.Norms])
	assert.Equal(t, manifest.Input{Role: "gates", Name: "gates.yaml", Size: int64(len(text)), Digest: manifest.Sum(text)}, input)

	require.NoError(t, os.WriteFile(path, []byte("norm: off\n"), 0o644))
	_, _, err = ReadThresholds(path)
	require.ErrorContains(t, err, "read gates "+path+": line 1: gate \"norm\"")
	require.NoError(t, os.WriteFile(path, make([]byte, maxFile+1), 0o644))
	_, _, err = ReadThresholds(path)
	require.ErrorContains(t, err, "more than 1048576 bytes")
	_, _, err = ReadThresholds("nowhere.yaml")
	require.EqualError(t, err, "read gates: open nowhere.yaml: no such file or directory")
}

// FuzzParseThresholds reads any bytes. What is accepted has limits within bounds.
func FuzzParseThresholds(f *testing.F) {
	for _, text := range []string{
		"{}", "rows: off", "recall: {at_10: 0.5, segments: {a: off, b: {found: 1}}}", "norms:\n  drift: 1e300", "latency: {p50_ms: .nan}",
		"rows: &x {fewer: 1}\nnorms: *x", "? [a]\n: b", "overlap: !!map {}", "%YAML 1.1\n---\nplacement: no",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseThresholds(data)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.LessOrEqual(t, len(got.Segments), shard.MaxSegments)
		for _, name := range gates.Names() {
			for _, l := range got.Limits(name) {
				require.True(t, *l.Value >= l.Low && *l.Value <= l.High, "%s.%s is %v", name, l.Key, *l.Value)
			}
		}
		for name, s := range got.Segments {
			require.NoError(t, shard.Segment{Name: name}.CheckName())
			for _, l := range s.Limits() {
				require.True(t, *l.Value >= l.Low && *l.Value <= l.High)
			}
		}
	})
}

// Limits that were loosened are told, those that were tightened are not.
func TestLoosened(t *testing.T) {
	thresholds, err := ParseThresholds([]byte(`
placement: {apps: 0.5, users: 0.01}
overlap: {at_10: 0.1, at_100: 0.9}
norms: off
recall:
  at_10: 0.9
  segments:
    kids: {at_100: 0.5}
    none: off
    same: on
`))
	require.NoError(t, err)
	assert.Equal(t, []string{
		"recall.at_10: 0.9, by default 0.97", "overlap.at_10: 0.1, by default 0.2", "placement.apps: 0.5, by default 0.02",
		"recall.segments.kids.at_10: 0.9, by default 0.97", "recall.segments.kids.at_100: 0.5, by default 0.97", "recall.segments.none: off",
	}, thresholds.Loosened())
	usual := gates.DefaultThresholds()
	assert.Empty(t, usual.Loosened())
}
