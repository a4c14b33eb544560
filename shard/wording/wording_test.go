package wording_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/wording"
)

func TestCounts(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		assert.Equal(t, want, wording.Count(n))
	}
	for n, want := range map[int]string{0: "0 shards", 1: "1 shard", 2: "2 shards", 1200: "1,200 shards"} {
		assert.Equal(t, want, wording.Plural(n, "shard"))
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "teen", 4}, {"teen", "teen", 0}, {"teen", "tenn", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2}} {
		assert.Equal(t, tt.want, wording.Distance(tt.a, tt.b), "%s to %s", tt.a, tt.b)
		assert.Equal(t, tt.want, wording.Distance(tt.b, tt.a), "%s to %s", tt.b, tt.a)
	}
}

// It is a distance: none but to itself, and no way round is shorter.
func TestDistanceIsAMetric(t *testing.T) {
	name := rapid.StringMatching("[abc]{0,8}")
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := name.Draw(t, "a"), name.Draw(t, "b"), name.Draw(t, "c")
		require.Equal(t, a == b, wording.Distance(a, b) == 0)
		require.Equal(t, wording.Distance(a, b), wording.Distance(b, a))
		require.LessOrEqual(t, wording.Distance(a, c), wording.Distance(a, b)+wording.Distance(b, c))
	})
}

func TestWriteJSON(t *testing.T) {
	var out strings.Builder
	require.NoError(t, wording.WriteJSON(&out, map[string]string{"filter": "a < b && c"}))
	assert.Equal(t, "{\n  \"filter\": \"a < b && c\"\n}\n", out.String())
}
