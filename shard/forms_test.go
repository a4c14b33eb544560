package shard

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// TestFormedIsBounded: a tower keeps some ids aside, however many have no form.
func TestFormedIsBounded(t *testing.T) {
	shards := make([]*Shard, 3)
	for i := range shards {
		shards[i] = &Shard{}
		for row := range uint32(maxForms / 2) {
			shards[i].ids.formed = append(shards[i].ids.formed, formed{hash: uint64(row)*3 + uint64(i), row: row})
		}
	}
	list := takeFormed(shards)
	require.Len(t, list, maxForms)
	for i := range list[1:] {
		require.Less(t, list[i].hash, list[i+1].hash)
	}
	for _, s := range shards {
		require.Empty(t, s.ids.formed, "it is held once")
	}
}

// TestIDsInNoForm: what is not kept aside is one of the forms of each text that is equal to
// it by normalisation, so that it is found by them.
func TestIDsInNoForm(t *testing.T) {
	letters := []rune("aA\u00e9\u0301\ufb01\uff21\u00b5\u03bc\u212b\u00c5\uac00\u1100\u1161\u0323\u1e9b")
	rapid.Check(t, func(rt *rapid.T) {
		id := rapid.StringOfN(rapid.SampledFrom(letters), 1, 5, -1).Draw(rt, "id")
		if inNoForm(id) {
			return
		}
		for _, asked := range forms {
			asked := asked.String(id)
			found := asked == id
			for _, f := range forms {
				found = found || f.String(asked) == id
			}
			require.True(rt, found, "%+q for %+q", asked, id)
		}
		require.True(rt, norm.NFKC.String(id) == id || norm.NFKD.String(id) == id)
	})
}
