package builder_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// failed returns the texts of the checks that failed, by gate.
func failed(checks []manifest.GateCheck) map[string][]string {
	out := map[string][]string{}
	for _, c := range checks {
		if !c.Passed {
			out[c.Gate] = append(out[c.Gate], c.Text)
		}
	}
	return out
}

// requireFailed checks that a gate failed with a text that has all the words.
func requireFailed(t *testing.T, checks []manifest.GateCheck, gate string, words ...string) {
	t.Helper()
	texts := failed(checks)[gate]
	require.NotEmpty(t, texts, "gate %s passed; failed are %v", gate, failed(checks))
	for _, text := range texts {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			return
		}
	}
	require.Fail(t, "no failure has all the words", "%q: %q", words, texts)
}

// testGates builds what must and what must not pass beside a snapshot that serves. noise
// is how much a healthy retrain perturbs vectors; only are the cases, all if there is
// none.
func testGates(t *testing.T, base *towers, noise float64, only ...string) {
	store, first := build(t, base.options(t, "1"))
	require.Empty(t, failed(first.Gates.Checks()), "a snapshot without a previous one")
	next := func(t *testing.T, tw *towers, previous manifest.Digest, interactions bool) *builder.Report {
		o := tw.options(t, "2")
		o.Previous = previous
		if interactions {
			o.Interactions = []string{base.interactions}
		}
		report, err := builder.Build(t.Context(), store, o)
		require.NoError(t, err)
		return report
	}
	dim := len(base.apps[0].Vector)
	random := func() *rand.Rand { return rand.New(rand.NewPCG(9, 9)) }
	try := func(name string, f func(t *testing.T)) {
		if len(only) == 0 || slices.Contains(only, name) {
			t.Run(name, f)
		}
	}

	try("again", func(t *testing.T) {
		require.Empty(t, failed(runGates(t, store, first.Digest, first.Digest, base.interactions)))
	})
	try("retrained", func(t *testing.T) {
		tw, r := base.clone(), random()
		perturb(r, tw.apps, noise)
		perturb(r, tw.users, noise)
		tw.apps = tw.apps[:len(tw.apps)-len(tw.apps)/100]
		tw.users = tw.users[:len(tw.users)-len(tw.users)/50]
		for i := range 20 {
			row := tw.apps[i]
			row.ID, row.Vector = fmt.Sprintf("fresh-%d", i), slices.Clone(tw.apps[2*i+1].Vector)
			tw.apps = append(tw.apps, row)
		}
		report := next(t, tw, first.Digest, true)
		require.Empty(t, failed(report.Gates.Checks()))
	})
	try("rotated towers", func(t *testing.T) {
		tw, r := base.clone(), random()
		m := rotation(r, dim)
		for _, rows := range [][]tower.Row{tw.apps, tw.users} {
			perturb(r, rows, noise)
			rotate(m, rows)
		}
		report := next(t, tw, first.Digest, true)
		require.Empty(t, failed(report.Gates.Checks()))
	})
	try("towers of two versions", func(t *testing.T) {
		tw := base.clone()
		rotate(rotation(random(), dim), tw.users)
		report := next(t, tw, first.Digest, false)
		alone := runGates(t, store, report.Digest, "", base.interactions)
		requireFailed(t, alone, gates.Alignment, "hit-rate@100: ", "the towers do not belong together: they may be of different model versions")
		require.NotContains(t, failed(alone), gates.Recall, "the index is as good as any")
		requireFailed(t, report.Gates.Checks(), gates.Overlap, "overlap@100: ", "of their candidates in common with the previous snapshot, at least 20% are required")
		requireFailed(t, report.Gates.Checks(), gates.Placement, " apps (", "are not where they were among the users")
	})
	try("shuffled vectors", func(t *testing.T) {
		tw := base.clone()
		shuffle(random(), tw.apps, 0.05)
		report := next(t, tw, first.Digest, true)
		requireFailed(t, report.Gates.Checks(), gates.Placement, " apps (", "as if vectors had been exchanged; at most 2% are accepted", "e.g. ")
		placed := check(report.Gates.Checks(), gates.Placement, "moved apps")
		assert.InDelta(t, 0.05, placed.Value, 0.015)
		require.Len(t, failed(report.Gates.Checks()), 1, "nothing else shows it: %v", failed(report.Gates.Checks()))
	})
	try("shuffled segment", func(t *testing.T) {
		tw := base.clone()
		field, _ := tw.appSchema.Lookup("moderation")
		var some []int
		for i, row := range tw.apps {
			if row.Attributes[field].Equal(attribute.OfKeyword("blocked")) {
				some = append(some, i)
			}
		}
		random().Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		exchange(tw.apps, some)
		report := next(t, tw, first.Digest, true)
		requireFailed(t, report.Gates.Checks(), gates.Placement, "segment "+rareSegment+": ", "as if vectors had been exchanged; at most 10% are accepted")
	})
	try("half the apps", func(t *testing.T) {
		tw := base.clone()
		tw.apps = tw.apps[:len(tw.apps)/2]
		report := next(t, tw, first.Digest, false)
		requireFailed(t, report.Gates.Checks(), gates.Rows, "apps: ", "50% fewer, at most 20% are accepted")
	})
}

// check returns one check.
func check(list []manifest.GateCheck, gate, subject string) manifest.GateCheck {
	for _, c := range list {
		if c.Gate == gate && c.Subject == subject {
			return c
		}
	}
	return manifest.GateCheck{}
}

func TestGates(t *testing.T) { testGates(t, syntheticTowers(t, 1500, 600), 0.1) }

// The gates tell good from bad on real towers as they do on synthetic ones.
func TestSteamGates(t *testing.T) {
	cases := map[string][]string{"steam": {"retrained", "towers of two versions", "shuffled vectors"}}
	if *steamPart == 1 {
		cases["steam"] = append(cases["steam"], "again", "half the apps")
		// Among a part of its apps too many users find the same ones.
		cases["steam_sgd"] = []string{"again", "rotated towers", "shuffled vectors"}
	}
	for set, only := range cases {
		t.Run(set, func(t *testing.T) {
			tw := steamTowers(t, set, *steamPart)
			tw.interactions = interactionsOf(t, tw, filepath.Join(steamData, "steam", "heldout.csv"))
			testGates(t, tw, 0.05, only...)
		})
	}
}

// interactionsOf writes those interactions of a file whose user and app the towers have.
func interactionsOf(t *testing.T, tw *towers, path string) string {
	has := [2]map[string]bool{{}, {}}
	for i, rows := range [][]tower.Row{tw.users, tw.apps} {
		for _, row := range rows {
			has[i][row.ID] = true
		}
	}
	lines := []string{"user_id,app_id"}
	require.NoError(t, tower.ReadInteractions(t.Context(), builder.InteractionOptions([]string{path}, nil), func(user, app string) error {
		if has[0][user] && has[1][app] {
			lines = append(lines, user+","+app)
		}
		return nil
	}))
	out := filepath.Join(t.TempDir(), "interactions.csv")
	require.NoError(t, os.WriteFile(out, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return out
}

// rewrite publishes a snapshot whose first app shard has other sections, under valid
// checksums: change changes them.
func rewrite(t *testing.T, store *snapshots.Store, report *builder.Report, change func(s *shard.Shard, section map[string][]byte)) manifest.Digest {
	t.Helper()
	m := *report.Manifest
	m.Apps.Shards = slices.Clone(m.Apps.Shards)
	sm := &m.Apps.Shards[0]
	s, err := shard.Open(store.ShardPath(sm.Digest))
	require.NoError(t, err)
	f := s.File()
	data := map[string][]byte{}
	for _, e := range f.Entries() {
		section, err := f.Section(e.Name)
		require.NoError(t, err)
		data[e.Name] = slices.Clone(section)
	}
	change(s, data)
	path := filepath.Join(t.TempDir(), "damaged.shard")
	w, err := sections.Create(path)
	require.NoError(t, err)
	w.Require(f.Features())
	for _, e := range f.Entries() {
		require.NoError(t, w.Section(e.Name, data[e.Name]))
	}
	require.NoError(t, w.Commit())
	require.NoError(t, s.Close())
	added, err := store.AddShard(t.Context(), path)
	require.NoError(t, err)
	sm.Digest, sm.Size, sm.Checksum = added.Digest, added.Size, added.Checksum
	m.Gates = nil
	m.Version = m.LowestVersion()
	digest, err := store.Publish(t.Context(), &m)
	require.NoError(t, err)
	return digest
}

// runGates runs the gates on a snapshot; previous and interactions may be empty.
func runGates(t *testing.T, store *snapshots.Store, d, previous manifest.Digest, interactions string) []manifest.GateCheck {
	t.Helper()
	in := gate.Input{Candidate: open(t, store, d), Thresholds: gates.DefaultThresholds()}
	if previous != "" {
		in.Previous = open(t, store, previous)
	}
	if interactions != "" {
		in.Interactions = builder.InteractionOptions([]string{interactions}, nil)
	}
	report, err := gate.Run(t.Context(), in)
	require.NoError(t, err)
	return report.Checks
}

// A segment whose apps the index hides is found, though hardly anything is missing of
// all apps.
func TestGatesFindBadSegment(t *testing.T) {
	base := syntheticTowers(t, 8000, 1200)
	store, report := build(t, base.options(t, "1"))
	require.Empty(t, failed(report.Gates.Checks()))
	members := func(s *shard.Shard) (list []uint32, is index.Bitset) {
		is = index.NewBitset(s.Rows())
		require.True(t, s.InSegment(rareSegment, is))
		return is.Append(nil), is
	}
	found := "apps of segment " + rareSegment + " found among all"

	t.Run("codes", func(t *testing.T) {
		d := rewrite(t, store, report, func(s *shard.Shard, section map[string][]byte) {
			list, _ := members(s)
			codes := section["index.codes"]
			stride := len(codes) / (s.Rows() - s.Index().Duplicates())
			for _, ordinal := range list {
				if int(ordinal)*stride >= len(codes) {
					continue // it repeats another's vector
				}
				for i := range stride {
					codes[int(ordinal)*stride+i] = -codes[int(ordinal)*stride+i] // 128 is 0
				}
			}
		})
		checks := runGates(t, store, d, "", "")
		requireFailed(t, checks, gates.Structure, "shard apps-0000: ", "section index.codes")
		requireFailed(t, checks, gates.Recall, "of the apps of segment "+rareSegment)
		assert.True(t, check(checks, gates.Recall, "recall@100").Passed)
		assert.NotContains(t, fmt.Sprint(failed(checks)), os.TempDir(), "a report does not depend on where the store is")
	})
	t.Run("links", func(t *testing.T) {
		// Every invariant holds, and the only way to the segment's apps is one that no
		// walk takes.
		d := rewrite(t, store, report, func(s *shard.Shard, section map[string][]byte) { hide(s, members, section) })
		checks := runGates(t, store, d, "", "")
		require.NotContains(t, failed(checks), gates.Structure)
		requireFailed(t, checks, gates.Recall, "of the apps of segment "+rareSegment+" that are among the best 100 of all apps")
		assert.Len(t, failed(checks)[gates.Recall], 1, "%v", failed(checks))
		assert.True(t, check(checks, gates.Recall, "recall@100").Passed)
		assert.Less(t, check(checks, gates.Recall, found).Value, 0.7)
	})
	t.Run("bitmap", func(t *testing.T) {
		other := base.options(t, "1")
		other.Segments = segmentsFile(t, rareSegment+": moderation == \"limited\"\nmobile: '\"ios\" in platforms || \"android\" in platforms'\n")
		limited, err := builder.Build(t.Context(), store, other)
		require.NoError(t, err)
		m := *report.Manifest
		m.Apps.Segments = slices.Clone(m.Apps.Segments)
		for i := range m.Apps.Segments {
			m.Apps.Segments[i].Eligible = limited.Manifest.Apps.Segments[i].Eligible
		}
		broken := *report
		broken.Manifest = &m
		from, err := sections.Open(store.ShardPath(limited.Manifest.Apps.Shards[0].Digest))
		require.NoError(t, err)
		defer from.Close()
		d := rewrite(t, store, &broken, func(_ *shard.Shard, section map[string][]byte) {
			for _, name := range []string{"segment.bitmaps", "segment.bitmap_offsets"} {
				section[name], err = from.Section(name)
				require.NoError(t, err)
			}
		})
		requireFailed(t, runGates(t, store, d, "", ""), gates.Structure, "segment "+rareSegment+": its bitmap has ")
	})
}

// hide takes the links to the segment's nodes away, but for a chain through them all,
// and leaves no walk to start there.
func hide(s *shard.Shard, members func(*shard.Shard) ([]uint32, index.Bitset), section map[string][]byte) {
	list, is := members(s)
	nodes := s.Rows() - s.Index().Duplicates()
	width := s.Index().Layers()[0].Width
	links := section["index.links.0"]
	at := func(node uint32, i int) []byte { return links[4*(int(node)*width+i):][:4] }
	set := func(node uint32, neighbours []uint32) {
		for i := range width {
			v := uint32(math.MaxUint32)
			if i < len(neighbours) {
				v = neighbours[i]
			}
			binary.LittleEndian.PutUint32(at(node, i), v)
		}
	}
	get := func(node uint32) (out []uint32) {
		for i := range width {
			if v := binary.LittleEndian.Uint32(at(node, i)); v != math.MaxUint32 {
				out = append(out, v)
			}
		}
		return out
	}
	hidden := func(node uint32) bool { return int(node) < nodes && is.Has(node) }
	for node := range uint32(nodes) {
		set(node, slices.DeleteFunc(get(node), hidden))
	}
	// The chain begins at the least node that is not hidden, and ties no two that are
	// alike: it is in the order of ordinals.
	start := uint32(0)
	for hidden(start) {
		start++
	}
	for _, node := range list {
		if int(node) < nodes {
			neighbours := get(start)
			set(start, append(neighbours[:min(len(neighbours), width-1)], node))
			start = node
		}
	}
	entries := section["index.entries"]
	for i := range len(entries) / 4 {
		for node := binary.LittleEndian.Uint32(entries[4*i:]); hidden(node); node++ {
			binary.LittleEndian.PutUint32(entries[4*i:], (node+1)%uint32(nodes))
		}
	}
}

// The same inputs give the same report, which is in the manifest with all it takes to
// build the snapshot again; each run is recorded.
func TestGateReports(t *testing.T) {
	base := syntheticTowers(t, 500, 300)
	o := base.options(t, "1")
	o.Interactions, o.Tool, o.MaxRejected = []string{base.interactions}, "tandem v1", 3
	o.Gates = filepath.Join(t.TempDir(), "gates.yaml")
	require.NoError(t, os.WriteFile(o.Gates, []byte("recall:\n  segments:\n    mobile: {at_10: 0.5}\nlatency: off\n"), 0o644))
	store, first := build(t, o)
	o.Previous = first.Digest
	var reports []*builder.Report
	for _, threads := range []int{1, 3} {
		o.Threads = threads
		report, err := builder.Build(t.Context(), store, o)
		require.NoError(t, err)
		reports = append(reports, report)
	}
	require.Equal(t, reports[0].Digest, reports[1].Digest)
	require.Equal(t, reports[0].Manifest, reports[1].Manifest)
	m, err := store.Manifest(t.Context(), reports[0].Digest)
	require.NoError(t, err)
	require.Equal(t, manifest.EvidenceVersion, m.Version)
	require.Equal(t, "tandem v1", m.Tool)
	require.Equal(t, &manifest.Lineage{Previous: first.Digest}, m.Lineage)
	require.Equal(t, first.Digest, m.Gates.Previous)
	require.Empty(t, m.Gates.Off, "latency is no part of the report")
	require.Equal(t, 3, m.Parameters.MaxRejected)
	require.Equal(t, "user_id", m.Parameters.Users.IDColumn)
	require.NotEmpty(t, m.Apps.Shards[0].Effort)
	require.Equal(t, 0.5, check(m.Gates.Checks, gates.Recall, "recall@10 in segment mobile").Limit)
	roles := map[string]bool{}
	for _, in := range m.Inputs {
		roles[in.Role] = true
	}
	require.Equal(t, map[string]bool{"apps": true, "users": true, "app-segments": true, "gates": true, "interactions": true}, roles)

	last := *reports[1].Gates
	require.Equal(t, "tandem v1", last.Tool)
	verdict, err := gates.Judge(t.Context(), store, reports[0].Digest)
	require.NoError(t, err)
	require.NoError(t, verdict.Err())
	require.Equal(t, []string{gates.Latency}, verdict.Off)
	require.NotEmpty(t, verdict.ComparedWith)
	require.Equal(t, last.Rows(), verdict.Rows)
	last.Latency = []manifest.GateCheck{{Gate: "latency", Text: "it is slow"}}
	require.NoError(t, gates.Record(t.Context(), store.Objects(), &last))
	verdict, err = gates.Judge(t.Context(), store, reports[0].Digest)
	require.NoError(t, err)
	require.Empty(t, verdict.Off)
	require.ErrorIs(t, verdict.Err(), gates.ErrFailed)
	require.ErrorContains(t, verdict.Err(), "latency failed: it is slow")
	ungated := *m
	ungated.Gates, ungated.Lineage = nil, nil
	ungated.Version = ungated.LowestVersion()
	d, err := store.Publish(t.Context(), &ungated)
	require.NoError(t, err)
	_, err = gates.Judge(t.Context(), store, d)
	require.ErrorIs(t, err, gates.ErrNotRun)

	for name, change := range map[string]func(*builder.Options){
		"no such previous": func(o *builder.Options) { o.Previous = manifest.Sum(nil) },
		"no digest":        func(o *builder.Options) { o.Previous = "newest" },
		"no gates":         func(o *builder.Options) { o.Gates = "nowhere.yaml" },
		"no interactions":  func(o *builder.Options) { o.Interactions = []string{"nowhere.csv"} },
		"other columns":    func(o *builder.Options) { o.Interactions = o.Apps.Input.Paths },
	} {
		bad := o
		change(&bad)
		_, err := builder.Build(t.Context(), store, bad)
		require.Error(t, err, name)
	}
}

func TestUnknownSegmentOfGates(t *testing.T) {
	base := syntheticTowers(t, 200, 100)
	o := base.options(t, "1")
	o.Gates = filepath.Join(t.TempDir(), "gates.yaml")
	require.NoError(t, os.WriteFile(o.Gates, []byte("recall: {segments: {mobil: off}}\n"), 0o644))
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	_, err = builder.Build(t.Context(), store, o)
	require.ErrorContains(t, err, "recall.segments.mobil: the app tower has no such segment; accepted: blocked, mobile")
}

// What a comparison finds is what was changed.
func TestCompare(t *testing.T) {
	base := syntheticTowers(t, 600, 300)
	store, one := build(t, base.options(t, "1"))
	tw := base.clone()
	tw.apps = slices.Delete(tw.apps, 0, 10)
	fresh := tw.apps[0]
	fresh.ID = "a-fresh-app"
	tw.apps = append(tw.apps, fresh)
	for i := range tw.users {
		for j := range tw.users[i].Vector {
			tw.users[i].Vector[j] *= 3
		}
	}
	for i := range tw.apps {
		tw.apps[i].Attributes = slices.Clone(tw.apps[i].Attributes)
		field, _ := tw.appSchema.Lookup("moderation")
		tw.apps[i].Attributes[field] = attribute.Value{}
	}
	o := tw.options(t, "2")
	o.Segments = segmentsFile(t, "mobile: '\"ios\" in platforms || \"android\" in platforms'\nnewer: free\n")
	two, err := builder.Build(t.Context(), store, o)
	require.NoError(t, err)
	c, err := compare.Compare(context.Background(), open(t, store, two.Digest), open(t, store, one.Digest), compare.Options{})
	require.NoError(t, err)
	assert.Equal(t, []int{591, 600, 1, 10, 590}, []int{c.Apps.Rows, c.Apps.PreviousRows, c.Apps.Added, c.Apps.Removed, c.Apps.Kept})
	assert.Equal(t, []string{"a-fresh-app"}, c.Apps.FirstAdded)
	assert.Equal(t, []string{"app-0000000", "app-0000001", "app-0000002", "app-0000003", "app-0000004"}, c.Apps.FirstRemoved)
	assert.Zero(t, c.Apps.Placement.Moved)
	assert.InDelta(t, 1, c.Users.Placement.Agreement, 1e-6)
	for i, q := range c.Users.Norms {
		assert.InDelta(t, 3, q.Candidate/q.Previous, 1e-4)
		assert.InDelta(t, 1, c.Apps.Norms[i].Candidate/c.Apps.Norms[i].Previous, 0.1)
	}
	assert.InDelta(t, 3, c.Scores[0].Quantiles[3].Candidate/c.Scores[0].Quantiles[3].Previous, 0.1)
	assert.Greater(t, c.Overlap[1].Mean, 0.97)
	names := map[string][2]bool{}
	for _, s := range c.Segments {
		names[s.Name] = [2]bool{s.InCandidate, s.InPrevious}
	}
	assert.Equal(t, map[string][2]bool{"mobile": {true, true}, "newer": {true, false}, "blocked": {false, true}}, names)
	for _, a := range c.Attributes {
		if a.Name == "moderation" {
			assert.Zero(t, a.Rows)
			assert.Equal(t, 1.0, a.PreviousCoverage)
		}
	}
	var text strings.Builder
	require.NoError(t, c.WriteTable(&text))
	require.Len(t, c.Examples, 3)
	for _, e := range c.Examples {
		require.Len(t, e.Given, 5)
		require.Len(t, e.Previous, 5)
		kept := 0
		for _, n := range e.Given {
			i := slices.IndexFunc(tw.apps, func(r tower.Row) bool { return r.ID == n.ID })
			name, _ := tw.appSchema.Lookup("name")
			require.Equal(t, tw.apps[i].Attributes[name].Keyword(), n.Name)
			assert.Contains(t, text.String(), n.Name+" ("+n.ID+")")
			if n.Both {
				kept++
			}
		}
		require.NotZero(t, kept, "hardly anything has changed")
		assert.Contains(t, text.String(), "given to "+e.User+" ")
	}
	for _, want := range []string{"apps removed  app-0000000 ", "overlap@100", "moderation", "norms of users"} {
		assert.Contains(t, text.String(), want)
	}
	text.Reset()
	require.NoError(t, c.WriteJSON(&text))
	var back compare.Report
	require.NoError(t, json.Unmarshal([]byte(text.String()), &back))
	assert.Equal(t, *c, back)
}
