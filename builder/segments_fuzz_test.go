package builder

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
)

// FuzzParseSegments reads any bytes. What is accepted has good names, in order, each
// from a line of the file.
func FuzzParseSegments(f *testing.F) {
	for _, text := range []string{
		"a: free\nb: |\n  x &&\n  y\n'c': \"\\\"ios\\\" in platforms\"\n", "{a: 'x', b: y}", "", "#", "a: &x y\nb: *x", "<<: {a: b}",
		"? a\n: b", "- a", "a: true", "a: !!str b", "---\na: b\n...\n---\n", "%YAML 1.1\n---\na: yes", "a:\n  b: c",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &segmentsFile{lines: map[string]int{}}
		if err := s.parse(data); err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.NotEmpty(t, s.list)
		require.LessOrEqual(t, len(s.list), shard.MaxSegments)
		for i, segment := range s.list {
			require.NoError(t, segment.CheckName())
			require.Contains(t, s.lines, segment.Name)
			require.Greater(t, s.lines[segment.Name], 0)
			if i > 0 {
				require.Less(t, s.list[i-1].Name, segment.Name)
			}
		}
	})
}
