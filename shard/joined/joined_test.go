package joined_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 25, 12, 0, 0, 123456000, time.UTC)

// rows are of each role, with and without what need not be there.
func rows() []joined.Row {
	blank := joined.Row{
		Time: noon, Day: "2026-11-25", RequestID: "r1", UserID: "u1", K: 3, Arm: "control", Generation: 2, Model: "feed",
		ModelVersion: "7", Snapshot: "abc", Plan: "PLAN_GRAPH_WALK", Eligible: 40, Coverage: 0.5, Segment: "teen", Tower: "apps",
	}
	opened, played, next, empty := blank, blank, blank, blank
	opened.Role, opened.AppID, opened.Rank, opened.Score, opened.Propensity, opened.Explored = joined.RoleShown, "a1", 1, 0.5, 0.25, true
	opened.Opens, opened.FirstOpen, opened.Impressions, opened.FirstImpression = 2, noon.Add(time.Minute), 1, noon.Add(time.Second)
	opened.Own = []joined.Own{{Kind: "liked", Count: 1, Value: 0}, {Kind: "shared", Count: 2, Value: 3.5}}
	played.Role, played.AppID, played.Rank, played.Score, played.Team = joined.RoleShown, "a2", 2, 0.25, "challenger"
	played.PlayTimes, played.PlayTime, played.FirstPlayTime = 2, 64.5, noon.Add(time.Hour)
	next.Role, next.AppID, next.Rank, next.Score = joined.RoleNext, "a3", 3, -0.5
	empty.Role, empty.RequestID = joined.RoleEmpty, "r2"
	return []joined.Row{opened, played, next, empty}
}

// TestGolden has parts of version 1 read and written as ever. Readers of other languages are tried
// on the same file (api/python/tests/test_joined.py).
func TestGolden(t *testing.T) {
	path := filepath.Join("testdata", "part-v1.parquet")
	data, err := joined.Encode(rows())
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, data), "the bytes of a part have changed")
	require.Equal(t, rows(), decode(t, want))
}

func decode(t require.TestingT, data []byte) (list []joined.Row) {
	for r, err := range joined.Decode(data) {
		require.NoError(t, err)
		list = append(list, *r)
	}
	return list
}

// TestDamage has each byte of a part, changed, be an error of the class or no change of form.
func TestDamage(t *testing.T) {
	data, err := joined.Encode(rows())
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		cut := bytes.Clone(data)
		at := rapid.IntRange(0, len(cut)-1).Draw(t, "at")
		cut[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		for _, err := range joined.Decode(cut) {
			if err != nil {
				require.ErrorIs(t, err, joined.ErrDamaged)
			}
		}
	})
	for name, change := range map[string]func(*joined.Row){
		"row 0: column role: \"seen\"":                    func(r *joined.Row) { r.Role = "seen" },
		"row 0: column rank: 0 of the role shown":         func(r *joined.Row) { r.Rank = 0 },
		"row 0: column propensity: 2":                     func(r *joined.Row) { r.Propensity = 2 },
		"row 0: column day: \"2026-11-24\" of the time 2": func(r *joined.Row) { r.Day = "2026-11-24" },
	} {
		list := rows()
		change(&list[0])
		data, err := joined.Encode(list)
		require.NoError(t, err)
		var last error
		for _, err := range joined.Decode(data) {
			last = err
			if err != nil {
				break
			}
		}
		require.ErrorIs(t, last, joined.ErrDamaged)
		require.ErrorContains(t, last, name)
	}
}

// TestSet has what a set says of itself be checked before anything is made of it.
func TestSet(t *testing.T) {
	store := objectstest.NewFaults()
	bucket := store.Bucket("x")
	_, err := joined.Read(t.Context(), bucket, "2026-11-25")
	require.ErrorIs(t, err, objects.ErrNotFound)
	for text, want := range map[string]string{
		`{`:                                  "damaged joined set",
		`{"format": 2}`:                      "it is of format 2; this program reads 1",
		`{"format": 1, "day": "2026-11-24"}`: `it is of the day "2026-11-24", not of 2026-11-25`,
		`{"format": 1, "day": "2026-11-25"}`: "generation is 0; accepted: at least 1",
		`{"format": 1, "day": "2026-11-25", "generation": 1}`: "inputs is \"\"",
		`{"format": 1, "day": "2026-11-25", "generation": 1, "inputs": "inputs-0123456789abcdef.txt", "parts": [{"name": "../../x", "rows": 1, "size": 1}]}`: `a part "../../x"`,
	} {
		store.Put(joined.SetKey("2026-11-25"), []byte(text), noon)
		_, err := joined.Read(t.Context(), bucket, "2026-11-25")
		require.ErrorIs(t, err, joined.ErrDamaged, text)
		require.ErrorContains(t, err, want)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := joined.Encode(rows())
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, err := range joined.Decode(data) {
			if err != nil {
				require.ErrorIs(t, err, joined.ErrDamaged)
			}
		}
	})
}
