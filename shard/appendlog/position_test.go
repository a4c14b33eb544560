package appendlog

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHashText(t *testing.T) {
	h := HashOf([]byte("an entry"))
	data, err := json.Marshal(h)
	require.NoError(t, err)
	var again Hash
	require.NoError(t, json.Unmarshal(data, &again))
	assert.Equal(t, h, again)
	assert.Equal(t, h.String()[:12], h.Short())
	for _, text := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 65), strings.Repeat("0", 66), strings.Repeat("x", 64), strings.Repeat("0", 63) + "x"} {
		assert.ErrorContains(t, again.UnmarshalText([]byte(text)), "want 64 hexadecimal digits", text)
		assert.True(t, again.IsZero())
	}
}
