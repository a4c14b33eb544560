package shard_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
)

var update = flag.Bool("update", false, "write the golden files")

// partitionsPath has ids with the shards that they belong to. Other engines hash ids too, so
// the tests of deploy/spark read it as well.
const partitionsPath = "testdata/partition.json"

// partition is an id, in hexadecimal digits since not every one is text, its hash as a decimal
// without a sign, and its shard by the number of shards.
type partition struct {
	ID     string         `json:"id"`
	Key    string         `json:"key"`
	Shards map[string]int `json:"shards"`
}

// TestPartition holds that ids belong to the shards that they always have: what is in stores
// was made by that, and what other engines make is.
func TestPartition(t *testing.T) {
	ids := []string{
		"", "0", "-1", "42", "9223372036854775807", "18446744073709551615", "app-2999",
		"123e4567-e89b-12d3-a456-426614174000", "a.b/c d", "é", "e\u0301", "ключ", "应用", "😀", "\ufeff",
		"\x00", "a\x00b", "a\x00", "\xff\xfe", "\n",
	}
	for _, n := range []int{3, 4, 7, 8, 31, 32, 33, 63, 64, 65, shard.MaxIDLen, shard.MaxIDLen + 1} { // where xxh64 goes another way
		ids = append(ids, strings.Repeat("x", n))
	}
	var got []partition
	high := 0
	for _, id := range ids {
		p := partition{hex.EncodeToString([]byte(id)), strconv.FormatUint(shard.Key(id), 10), map[string]int{}}
		for _, n := range []int{1, 2, 3, 7, 64, 1000, shard.MaxShards} {
			p.Shards[strconv.Itoa(n)] = shard.Partition(id, n)
		}
		if shard.Key(id) >= 1<<63 {
			high++
		}
		got = append(got, p)
	}
	require.Greater(t, high, len(ids)/4, "hashes that are negative where they have a sign")
	data, err := json.MarshalIndent(got, "", "  ")
	require.NoError(t, err)
	data = append(data, '\n')
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(partitionsPath, data, 0o644))
	}
	want, err := os.ReadFile(partitionsPath)
	require.NoError(t, err)
	require.Equal(t, string(want), string(data))
}
