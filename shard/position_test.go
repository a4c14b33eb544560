package shard_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
)

// Positions are in order by their logs, and then by their numbers; as texts and as JSON
// they are read as they are written.
func TestPosition(t *testing.T) {
	const later = "20261130T075000.000Z-0123456789abcdef"
	ascending := []shard.Position{{}, {Sequence: 9}, {Sequence: 10}, {Log: later}, {Log: later, Sequence: 3}, {Log: later + "0", Sequence: 1}}
	require.True(t, slices.IsSortedFunc(ascending, shard.Position.Compare))
	texts := []string{"0", "9", "10", later + ":0", later + ":3", later + "0:1"}
	for i, p := range ascending {
		require.Zero(t, p.Compare(ascending[i]))
		require.Equal(t, texts[i], p.String())
		parsed, err := shard.ParsePosition(p.String())
		require.NoError(t, err)
		require.Equal(t, p, parsed)
		data, err := json.Marshal(p)
		require.NoError(t, err)
		var read shard.Position
		require.NoError(t, json.Unmarshal(data, &read))
		require.Equal(t, p, read)
	}
	data, err := json.Marshal(ascending[1])
	require.NoError(t, err)
	require.JSONEq(t, `{"sequence": 9}`, string(data))
	for _, text := range []string{"", ":", "log:", "-1", "log:-1", "1.5", "now", "18446744073709551616", "\xff:1", strings.Repeat("x", 65) + ":1"} {
		_, err := shard.ParsePosition(text)
		require.Error(t, err, text)
		require.Less(t, len(err.Error()), 300)
	}
}
