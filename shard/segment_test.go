package shard_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/index/sections/sectionstest"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// segmentsOf are the filters of the tests as segments f0, f1, ...
func segmentsOf() (list []shard.Segment) {
	for i, f := range filters {
		if f.text != "" {
			list = append(list, shard.Segment{Name: fmt.Sprint("f", i), Expression: f.text})
		}
	}
	return list
}

// segmentedManifest is newManifest with segments.
func segmentedManifest(t shardtest.TB, store *snapshots.Store, apps []shardtest.App, dim, shards int, params index.Params, list ...shard.Segment) *manifest.Manifest {
	m := shardtest.Manifest(t, store, apps, dim, shards, params)
	addSegments(t, store, m, apps, shards, params, list)
	return m
}

// addSegments writes the app tower of a manifest anew, with segments.
func addSegments(t shardtest.TB, store *snapshots.Store, m *manifest.Manifest, apps []shardtest.App, shards int, params index.Params, list []shard.Segment) {
	m.Apps = shardtest.WriteTower(t, store, apps, m.Dim, shards, params, list...)
	for _, s := range list {
		m.Apps.Segments = append(m.Apps.Segments, manifest.Segment{Segment: s})
		m.Version = manifest.SegmentsVersion
	}
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	for i, n := range tw.SegmentRows() {
		m.Apps.Segments[i].Eligible = n
	}
	require.NoError(t, tw.Close())
}

// A segment, alone or with a filter and exclusions, answers as brute force does
// among its rows, on any layout.
func TestSegmentEqualsBruteForce(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		const dim = 3
		apps := drawApps(t, dim, index.Dot)
		params := index.DefaultParams(index.Dot)
		params.M, params.EfConstruction = 4, 20
		store := shardtest.Store(t, dir)
		list := segmentsOf()
		m := &manifest.Manifest{Dim: dim, Metric: index.Dot} // of the app tower alone
		addSegments(t, store, m, apps, rapid.IntRange(1, 5).Draw(t, "shards"), params, list)
		tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
		require.NoError(t, err)
		defer func() { require.NoError(t, tw.Close()) }()
		require.Equal(t, list, tw.Segments())

		which := rapid.IntRange(1, len(filters)-1).Draw(t, "segment")
		inSegment := filters[which].eligible
		q := &shard.Query{
			Vectors: [][]float32{{1, 2, -1}}, K: rapid.IntRange(1, 150).Draw(t, "k"), MinCoverage: 1, Target: 1,
			Segment: fmt.Sprint("f", which),
		}
		require.Equal(t, len(bruteForce(index.Dot, apps, q, inSegment).all), m.Apps.Segments[which-1].Eligible)
		filter := rapid.SampledFrom(filters).Draw(t, "filter")
		if filter.text != "" {
			f, err := tw.Compile(filter.text)
			require.NoError(t, err)
			bound, err := f.Bind(context.Background(), nil)
			require.NoError(t, err)
			q.Filter = &bound
		}
		for _, a := range apps {
			if rapid.IntRange(0, 9).Draw(t, "exclude") == 0 {
				q.Exclude = append(q.Exclude, a.ID)
			}
		}
		if rapid.Bool().Draw(t, "include") {
			for _, a := range apps {
				if a.ID[0] < 'e' {
					q.Include = append(q.Include, a.ID)
				}
			}
		}
		both := func(a shardtest.App) bool { return inSegment(a) && filter.eligible(a) }
		want := bruteForce(index.Dot, apps, q, both)
		exact, err := tw.Search(context.Background(), q)
		require.NoError(t, err)
		require.Equal(t, len(want.all), exact.Eligible)
		require.Equal(t, want.top, ids(exact))
		requireExplained(t, tw, apps, q, both, want, exact)

		q.Target, q.Ef, q.Plan = 0, rapid.IntRange(1, 60).Draw(t, "ef"), index.GraphWalk
		walk, err := tw.Search(context.Background(), q)
		require.NoError(t, err)
		require.Equal(t, len(want.all), walk.Eligible)
		require.Len(t, walk.Candidates, len(want.top))
		for _, id := range ids(walk) {
			require.Contains(t, want.scores, id, "only eligible ids")
		}
	})
}

// What a segment leaves out is explained by its name and its clause, before the
// filter's; what a list leaves out, by the list.
func TestExplainSegment(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	m := segmentedManifest(t, store, shardtest.Grid(40), 1, 2, index.DefaultParams(index.Dot),
		shard.Segment{Name: "teen", Expression: `"ios" in platforms && (min_age > 12 && min_age < 18)`})
	tw, err := snapshots.OpenTower(context.Background(), store, m, shard.Apps)
	require.NoError(t, err)
	defer func() { require.NoError(t, tw.Close()) }()
	filter, err := tw.Compile("min_age != 15 && min_age != 3")
	require.NoError(t, err)
	bound, err := filter.Bind(context.Background(), nil)
	require.NoError(t, err)
	q := &shard.Query{
		Vectors: [][]float32{{1}}, K: 1, Target: 1, MinCoverage: 1, Segment: "teen", Filter: &bound,
		Exclude: []string{"app-002"}, Explain: []string{"app-002", "app-003", "app-018", "app-015", "app-037", "app-016"},
	}
	a, err := tw.Search(context.Background(), q)
	require.NoError(t, err)
	for i, want := range []shard.Explained{
		{Standing: shard.Excluded},
		{Standing: shard.NotEligible, Segment: "teen", Clause: "min_age > 12"},
		{Standing: shard.NotEligible, Segment: "teen", Clause: "min_age < 18"},
		{Standing: shard.NotEligible, Clause: "min_age != 15"},
		{Standing: shard.Returned, Rank: 1},
		{Standing: shard.BelowCut},
	} {
		got := a.Explained[i]
		want.ID, want.Shard, want.Score = got.ID, got.Shard, got.Score
		require.Equal(t, want, got)
	}
}

func ids(a *shard.Answer) []string {
	var list []string
	for _, c := range a.Candidates {
		list = append(list, c.ID)
	}
	return list
}

func TestUnknownSegment(t *testing.T) {
	params := index.DefaultParams(index.Dot)
	ask := func(list []shard.Segment, kind shard.Kind, name string) error {
		store := shardtest.Store(t, t.TempDir())
		m := segmentedManifest(t, store, shardtest.Grid(10), 1, 2, params, list...)
		tw, err := snapshots.OpenTower(context.Background(), store, m, kind)
		require.NoError(t, err)
		defer tw.Close()
		require.NoError(t, tw.CheckSegment(""))
		_, err = tw.Search(context.Background(), &shard.Query{Vectors: [][]float32{{1}}, K: 1, Target: 1, Segment: name})
		return err
	}
	two := []shard.Segment{{Name: "ios_teen", Expression: "min_age < 18"}, {Name: "ios_us", Expression: "true"}}
	require.NoError(t, ask(two, shard.Apps, "ios_us"))
	err := ask(two, shard.Apps, "ios_uss")
	require.ErrorIs(t, err, index.ErrQuery)
	require.EqualError(t, err, `segment "ios_uss" is none of the app tower's; accepted: ios_teen, ios_us`)
	require.EqualError(t, ask(two, shard.Users, "ios_us"), `segment "ios_us" is asked for; accepted: none, the user tower has no segments`)
	require.EqualError(t, ask(nil, shard.Apps, "ios_us"), `segment "ios_us" is asked for; accepted: none, the app tower has no segments`)

	var many []shard.Segment
	for i := range 30 {
		many = append(many, shard.Segment{Name: fmt.Sprintf("s%02d", i), Expression: "true"})
	}
	many = append(many, shard.Segment{Name: "teen_ios", Expression: "true"}, shard.Segment{Name: "teens_ios", Expression: "true"})
	err = ask(many, shard.Apps, "teens_io")
	require.ErrorContains(t, err, `accepted: teens_ios, teen_ios, s00, s01, `)
	require.ErrorContains(t, err, " and 12 more")
}

func TestBadSegmentsAreNotWritten(t *testing.T) {
	vectors, err := index.NewMatrix(1, 1)
	require.NoError(t, err)
	require.NoError(t, vectors.Append([]float32{1}))
	x, err := index.Build(context.Background(), index.Input{Vectors: vectors, Keys: []uint64{1}}, index.DefaultParams(index.Dot))
	require.NoError(t, err)
	for text, list := range map[string][]shard.Segment{
		`segment name "Teen": want 1 to 64 of a-z, 0-9 and _`:                                         {{Name: "Teen", Expression: "true"}},
		`segment name "": want 1 to 64`:                                                               {{Expression: "true"}},
		`segment a: expression has 0 bytes, want 1 to 16384`:                                          {{Name: "a"}},
		`segment a is listed after b, want ascending names`:                                           {{Name: "b", Expression: "true"}, {Name: "a", Expression: "true"}},
		`segment a is listed after a`:                                                                 {{Name: "a", Expression: "true"}, {Name: "a", Expression: "true"}},
		`257 segments, at most 256 are accepted`:                                                      make([]shard.Segment, 257),
		`segment a: filter: line 1, column 9: unknown attribute age`:                                  {{Name: "a", Expression: "true && age > 3"}},
		`segment a: filter: line 1, column 12: it reads user.age; a segment is the same for every qu`: {{Name: "a", Expression: "min_age <= user.age"}},
		`segment a: filter: line 2, column 11: it reads user.a; `:                                     {{Name: "a", Expression: "free &&\n  (\"x\" == user.a) || user.z > user.b"}},
	} {
		dir := t.TempDir()
		err := shard.Write(filepath.Join(dir, "a.shard"), []string{"x"}, x, attribute.NewWriter(shardtest.Schema(), 1), list...)
		require.ErrorContains(t, err, text)
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

// What has no segments is as it was before there were any.
func TestNoSegmentsLeaveNoTrace(t *testing.T) {
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.Manifest(t, store, shardtest.Grid(30), 1, 2, index.DefaultParams(index.Dot))
	data, err := m.Encode()
	require.NoError(t, err)
	require.NotContains(t, string(data), "segment")
	require.Contains(t, string(data), `"version": 1,`)
	f, err := sections.Open(store.ShardPath(m.Apps.Shards[0].Digest))
	require.NoError(t, err)
	defer f.Close()
	for _, e := range f.Entries() {
		require.NotContains(t, e.Name, "segment")
	}
}

func TestManifestWithSegments(t *testing.T) {
	params := index.DefaultParams(index.Dot)
	list := []shard.Segment{{Name: "adult", Expression: "min_age >= 18"}, {Name: "teen", Expression: "min_age < 18"}}
	for text, change := range map[string]func(*manifest.Manifest){
		"":                        func(*manifest.Manifest) {},
		"version is 1, want 2":    func(m *manifest.Manifest) { m.Version = manifest.FirstVersion },
		"version is 2, want 1":    func(m *manifest.Manifest) { m.Apps.Segments = nil },
		"users: 2 segments":       func(m *manifest.Manifest) { m.Users.Segments = m.Apps.Segments },
		"apps: segment adult is":  func(m *manifest.Manifest) { slices.Reverse(m.Apps.Segments) },
		"41 of 40 rows":           func(m *manifest.Manifest) { m.Apps.Segments[0].Eligible = 41 },
		"segment adult: recall@5": func(m *manifest.Manifest) { m.Apps.Segments[0].Recall = []manifest.Recall{{K: 5, Recall: 2}} },
		"the shards have 4 eligible rows, the manifest says 3": func(m *manifest.Manifest) { m.Apps.Segments[0].Eligible = 3 },
		"segments are [{adult min_age >= 18}": func(m *manifest.Manifest) {
			m.Apps.Segments[1].Expression = "min_age < 17"
		},
		"the manifest says [{adult min_age >= 18}]": func(m *manifest.Manifest) { m.Apps.Segments = m.Apps.Segments[:1] },
	} {
		t.Run(text, func(t *testing.T) {
			store := shardtest.Store(t, t.TempDir())
			m := segmentedManifest(t, store, shardtest.Grid(40), 1, 2, params, list...)
			require.Equal(t, 4, m.Apps.Segments[0].Eligible)
			change(m)
			d, err := store.Publish(t.Context(), m)
			if err == nil {
				var s *snapshots.Snapshot
				if s, err = snapshots.Open(context.Background(), store, d); err == nil {
					require.Equal(t, m.Apps.Segments, s.Manifest().Apps.Segments)
					require.NoError(t, s.Close())
				} else {
					require.ErrorIs(t, err, sections.ErrCorrupt)
				}
				verified := snapshots.Verify(context.Background(), store, d, func(string) {})
				require.Equal(t, err == nil, verified == nil)
				if err != nil {
					require.ErrorContains(t, verified, text)
				}
			}
			if text == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, text)
			}
		})
	}
}

// segmentRows is how many rows the shard of segmentedShard has.
const segmentRows = 300

// segmentedShard returns the sections of a shard with the segments adult and teen,
// and where those begin. Its vectors are stored in full, so that pack needs no
// feature bits.
func segmentedShard(t testing.TB) (parts sectionstest.Content, first int) {
	apps := shardtest.Grid(segmentRows)
	for i := range apps {
		apps[i].Vector[0] = float32(i)/3 + 1e-7
	}
	store := shardtest.Store(t, t.TempDir())
	m := shardtest.WriteTower(t, store, apps, 1, 1, index.DefaultParams(index.Dot),
		shard.Segment{Name: "adult", Expression: "min_age >= 18"}, shard.Segment{Name: "teen", Expression: "min_age < 18"})
	f, err := sections.Open(store.ShardPath(m.Shards[0].Digest))
	require.NoError(t, err)
	defer f.Close()
	require.Zero(t, f.Features())
	parts, err = sectionstest.Unpack(f)
	require.NoError(t, err)
	first = parts.At("segment.list")
	require.Positive(t, first)
	require.Equal(t, []string{"segment.list", "segment.bitmaps", "segment.bitmap_offsets"}, []string{parts[first].Name, parts[first+1].Name, parts[first+2].Name})
	require.Len(t, parts, first+3)
	return parts, first
}

func bitmap(t testing.TB, ordinals ...uint32) []byte {
	data, err := roaring.BitmapOf(ordinals...).ToBytes()
	require.NoError(t, err)
	return data
}

func TestHostileSegments(t *testing.T) {
	parts, first := segmentedShard(t)
	_, err := shard.FromBytes(parts.Pack(0))
	require.NoError(t, err)
	const list, bitmaps, offsets = 0, 1, 2
	text := func(s string) func([]byte) []byte { return func([]byte) []byte { return []byte(s) } }
	number := func(i int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b[8*i:], v)
			return b
		}
	}
	for _, tt := range []struct {
		part   int
		name   string
		change func([]byte) []byte
		text   string
	}{
		{list, "no JSON", text("x"), "invalid character"},
		{list, "empty", text("[]"), "no segment"},
		{list, "unknown field", text(`[{"name": "a", "expression": "true", "weight": 1}]`), "unknown field"},
		{list, "two values", text(`[{"name": "a", "expression": "true"}] 1`), "bytes follow the list"},
		{list, "name", text(`[{"name": "A", "expression": "true"}]`), `segment name "A"`},
		{list, "order", text(`[{"name": "b", "expression": "true"}, {"name": "a", "expression": "true"}]`), "segment a is listed after b"},
		{list, "expression", text(`[{"name": "a", "expression": ""}]`), "segment a: expression has 0 bytes"},
		{list, "one more", text(`[{"name": "a", "expression": "true"}, {"name": "b", "expression": "true"}, {"name": "c", "expression": "true"}]`), "segment.bitmap_offsets"},
		{bitmaps, "truncated", func(b []byte) []byte { return b[:len(b)-1] }, "offsets do not span"},
		{bitmaps, "longer", func(b []byte) []byte { return append(b, 0) }, "offsets do not span"},
		{bitmaps, "cookie", func(b []byte) []byte { b[0] ^= 0x80; return b }, "segment adult: section segment.bitmaps: bitmap: cookie"},
		{bitmaps, "cardinality", func(b []byte) []byte { b[10]--; return b }, "segment adult: section segment.bitmaps: bitmap: "},
		{bitmaps, "out of range", func(b []byte) []byte { copy(b[8:], []byte{1, 0}); return b }, "in a shard of 300 rows"},
		{offsets, "first", number(0, 1), "offsets do not span"},
		{offsets, "backwards", number(1, 1<<40), "segment adult has bytes 0 to 1099511627776"},
		{offsets, "overlap", number(1, 3), "segment adult: section segment.bitmaps: bitmap: 3 bytes"},
		{offsets, "short", func(b []byte) []byte { return b[:16] }, "segment.bitmap_offsets"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := slices.Clone(parts)
			p := &changed[first+tt.part]
			p.Data = tt.change(slices.Clone(p.Data))
			_, err := shard.FromBytes(changed.Pack(0))
			require.ErrorIs(t, err, sections.ErrCorrupt)
			require.ErrorContains(t, err, tt.text)
			require.ErrorContains(t, err, "section segment.")
		})
	}
	_, err = shard.FromBytes(slices.Delete(slices.Clone(parts), first, first+1).Pack(0))
	require.ErrorIs(t, err, sections.ErrVersion, "bitmaps without a list mean something else")
	_, err = shard.FromBytes(parts[:first+2].Pack(0))
	require.ErrorContains(t, err, "segment.bitmap_offsets: missing")
}

// A query reads the bitmap and not the expression, so a bitmap that does not hold
// what the expression says is for verify to find.
func TestBitmapIsWhatCounts(t *testing.T) {
	parts, first := segmentedShard(t)
	teen := bitmap(t, 3, 4, 299)
	parts[first].Data = []byte(`[{"name":"teen","expression":"min_age < 18"}]`)
	parts[first+1].Data = teen
	parts[first+2].Data = binary.LittleEndian.AppendUint64(make([]byte, 8), uint64(len(teen)))
	store := shardtest.Store(t, t.TempDir())
	path := filepath.Join(store.Location(), "staging", "made")
	require.NoError(t, os.WriteFile(path, parts.Pack(0), 0o600))
	sm, err := store.AddShard(t.Context(), path)
	require.NoError(t, err)
	sm.Rows = segmentRows
	m := shardtest.Manifest(t, store, shardtest.Grid(1), 1, 1, index.DefaultParams(index.Dot))
	m.Version, m.Apps.Shards, m.Apps.Rows = manifest.SegmentsVersion, []manifest.Shard{sm}, segmentRows
	m.Apps.Segments = []manifest.Segment{{Segment: shard.Segment{Name: "teen", Expression: "min_age < 18"}, Eligible: 3}}
	d, err := store.Publish(t.Context(), m)
	require.NoError(t, err)
	s, err := snapshots.Open(context.Background(), store, d)
	require.NoError(t, err)
	defer s.Close()
	a, err := s.Tower(shard.Apps).Search(context.Background(), &shard.Query{Vectors: [][]float32{{1}}, K: 10, Target: 1, Segment: "teen"})
	require.NoError(t, err)
	require.Equal(t, 3, a.Eligible)
	require.Len(t, a.Candidates, 3)
	err = snapshots.Verify(context.Background(), store, d, func(string) {})
	require.ErrorIs(t, err, sections.ErrCorrupt)
	require.ErrorContains(t, err, "section segment.bitmaps: segment teen: its bitmap has 3 rows, and not the 270 that its expression makes eligible")
}

// FuzzOpenSegments puts any bytes into one of the sections of segments. Either the
// shard does not open, or a query finds as many rows as package roaring does.
func FuzzOpenSegments(f *testing.F) {
	base, first := segmentedShard(f)
	for i, p := range base[first:] {
		f.Add(uint8(i), p.Data)
	}
	f.Add(uint8(1), bitmap(f, 1, 299))
	f.Add(uint8(1), bitmap(f, 300))
	f.Fuzz(func(t *testing.T, i uint8, data []byte) {
		parts := slices.Clone(base)
		parts[first+int(i)%3].Data = data
		s, err := shard.FromBytes(parts.Pack(0))
		if err != nil {
			require.True(t, errors.Is(err, sections.ErrCorrupt), "%v", err)
			return
		}
		list := s.Segments()
		require.NotEmpty(t, list)
		_, err = json.Marshal(list)
		require.NoError(t, err)
		bitmaps, offsets := parts[first+1].Data, parts[first+2].Data
		for i, rows := range s.SegmentRows() {
			at := func(i int) uint64 { return binary.LittleEndian.Uint64(offsets[8*i:]) }
			m := roaring.New()
			_, err := m.FromBuffer(bitmaps[at(i):at(i+1)])
			require.NoError(t, err)
			require.EqualValues(t, m.GetCardinality(), rows)
			if rows > 0 {
				require.Less(t, m.Maximum(), uint32(segmentRows))
			}
		}
		if err := s.Check(); err != nil {
			require.ErrorIs(t, err, sections.ErrCorrupt)
			require.True(t, strings.Contains(err.Error(), "section segment."), "%v", err)
		}
	})
}
