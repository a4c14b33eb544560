package synthetic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

func small() Options {
	return Options{Apps: 3000, Users: 500, Dim: 16, Seed: 7, Interactions: 8}
}

func generator(t testing.TB, o Options) *Generator {
	g, err := New(o)
	require.NoError(t, err)
	return g
}

// app returns a row that does not share memory with the generator.
func app(g *Generator, i int64) tower.Row {
	var row tower.Row
	g.App(i, &row)
	return row
}

func TestRowsDependOnSeedAndNumberOnly(t *testing.T) {
	a, b := generator(t, small()), generator(t, small())
	var forward []tower.Row
	for i := range int64(200) {
		forward = append(forward, app(a, i))
	}
	for i := int64(199); i >= 0; i-- { // another order, with other calls between
		var user tower.Row
		b.User(i, &user)
		plays := b.Interactions(i, nil)
		require.Equal(t, forward[i], app(b, i))
		var again tower.Row
		a.User(i, &again)
		require.Equal(t, again, user)
		require.Equal(t, plays, a.Interactions(i, nil))
	}
	o := small()
	o.Seed++
	require.NotEqual(t, forward[0].Vector, app(generator(t, o), 0).Vector)
}

// What is generated is part of the interface: benches compare across versions.
func TestGolden(t *testing.T) {
	g := generator(t, small())
	row := app(g, 42)
	require.Equal(t, "app-0000042", row.ID)
	got := fmt.Sprintf("%.4f", row.Vector[:3])
	for i, f := range appFields {
		got += fmt.Sprintf(" %s=%v", f.Name, row.Attributes[i])
	}
	var user tower.Row
	g.User(42, &user)
	got += fmt.Sprintf("\n%s %.4f", user.ID, user.Vector[:3])
	for i, f := range userFields {
		got += fmt.Sprintf(" %s=%v", f.Name, user.Attributes[i])
	}
	for _, p := range g.Interactions(42, nil)[:2] {
		got += fmt.Sprintf("\n%s %s", AppID(p.App), p.PlayedAt.Format("2006-01-02T15:04:05"))
	}
	require.Equal(t, golden, got)
}

const golden = `[-0.0543 0.1752 -0.1758] countries=["AU" "BR" "CA" "CN" "DE" "ES" "FR" "GB" "ID" "IN" "IT" "JP" "KR" "MX" "NL" "NZ" "PL" "SE" "TR" "US"] free=false genres=["action" "puzzle"] languages=["en" "es" "hi" "id"] min_age=0 moderation=approved name=Wooden Farm Party platforms=["android" "ios"] price_usd=6.99 rating=3.6 released=2018-04-26T11:28:06Z tags=["cozy" "minimalist" "romance"]
user-0000042 [0.1574 0.2933 0.1982] age=56 country=CN language=zh platforms=["web" "windows"]
app-0001586 2025-12-10T21:41:18
app-0000421 2025-12-16T10:30:19`

func TestPermutation(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 4, 5, 17, 100, 1000, 4096} {
		p := newPermutation(n, n*31)
		seen := make([]bool, n)
		for i := range n {
			r := p.forward(i)
			require.Less(t, r, n)
			require.False(t, seen[r])
			seen[r] = true
			require.Equal(t, i, p.backward(r))
		}
	}
	p := newPermutation(MaxRows, 5)
	for i := uint64(0); i < MaxRows; i += MaxRows / 1001 {
		require.Equal(t, i, p.backward(p.forward(i)))
	}
}

func TestNormsFollowTheLaw(t *testing.T) {
	for law, want := range map[NormLaw]func(r float64) bool{
		Rising:  func(r float64) bool { return r > 0.6 },
		Falling: func(r float64) bool { return r < -0.6 },
		Flat:    func(r float64) bool { return math.Abs(r) < 0.1 },
	} {
		o := small()
		o.Norms = law
		g := generator(t, o)
		var x, y []float64
		for i := range o.Apps {
			row := app(g, i)
			x = append(x, popularityOf(g, i))
			y = append(y, math.Sqrt(float64(dot(row.Vector, row.Vector))))
		}
		require.True(t, want(correlation(x, y)), "%v: %v", law, correlation(x, y))
	}
}

func popularityOf(g *Generator, app int64) float64 {
	_, rank := g.place(app)
	return g.popularity(rank)
}

func correlation(x, y []float64) float64 {
	var sx, sy, sxx, syy, sxy float64
	n := float64(len(x))
	for i := range x {
		sx, sy = sx+x[i], sy+y[i]
		sxx, syy, sxy = sxx+x[i]*x[i], syy+y[i]*y[i], sxy+x[i]*y[i]
	}
	return (n*sxy - sx*sy) / math.Sqrt((n*sxx-sx*sx)*(n*syy-sy*sy))
}

func TestClusterSizesFall(t *testing.T) {
	o := small()
	g := generator(t, o)
	sizes := make([]int, len(g.cumulative))
	for i := range o.Apps {
		c, _ := g.place(i)
		sizes[c]++
	}
	require.Greater(t, sizes[0], 4*sizes[len(sizes)-1])
	require.Positive(t, slices.Min(sizes))
}

// An exact top-100 must find many of the apps that users played, and more than
// the 100 most popular apps do: that is what makes the towers plausible.
func TestInteractionsAgreeWithScores(t *testing.T) {
	for _, law := range []NormLaw{Rising, Falling, Flat} {
		o := small()
		o.Norms = law
		g := generator(t, o)
		vectors := make([][]float32, o.Apps)
		for i := range vectors {
			vectors[i] = app(g, int64(i)).Vector
		}
		found, popular, total := 0, 0, 0
		for u := range int64(100) {
			var user tower.Row
			g.User(u, &user)
			order := make([]int64, o.Apps)
			for i := range order {
				order[i] = int64(i)
			}
			scores := make([]float32, o.Apps)
			for i := range vectors {
				scores[i] = dot(user.Vector, vectors[i])
			}
			slices.SortFunc(order, func(a, b int64) int {
				switch {
				case scores[a] > scores[b]:
					return -1
				case scores[a] < scores[b]:
					return 1
				}
				return 0
			})
			top := make(map[int64]bool)
			for _, i := range order[:100] {
				top[i] = true
			}
			plays := g.Interactions(u, nil)
			seen := make(map[int64]bool)
			for i, p := range plays {
				require.False(t, seen[p.App])
				seen[p.App] = true
				if i > 0 {
					require.False(t, p.PlayedAt.Before(plays[i-1].PlayedAt))
				}
				require.True(t, shares(app(g, p.App).Attributes[appPlatforms], user.Attributes[userPlatforms]))
				total++
				if top[p.App] {
					found++
				}
				if _, rank := g.place(p.App); rank < 100 {
					popular++
				}
			}
		}
		share := float64(found) / float64(total)
		t.Logf("%v: top 100 of %d finds %.2f of %d interactions, popularity %.2f", law, o.Apps, share, total, float64(popular)/float64(total))
		require.Greater(t, found, popular)
		require.InDelta(t, 800, total, 100)
	}
}

func shares(a, b attribute.Value) bool {
	return slices.ContainsFunc(a.Keywords(), func(s string) bool { return slices.Contains(b.Keywords(), s) })
}

func TestWrite(t *testing.T) {
	o := small()
	dir := filepath.Join(t.TempDir(), "new")
	last, calls := int64(0), 0
	require.NoError(t, Write(context.Background(), dir, o, func(done, total int64) {
		require.Equal(t, o.Apps+2*o.Users, total)
		require.Greater(t, done, last)
		last = done
		calls++
	}))
	require.Equal(t, o.Apps+2*o.Users, last)

	g := generator(t, o)
	read := func(name, id string) (tower.Reader, []tower.Row) {
		r, err := tower.Open(t.Context(), tower.Options{Paths: []string{filepath.Join(dir, name)}, IDColumn: id})
		require.NoError(t, err)
		t.Cleanup(func() { _ = r.Close() })
		var rows []tower.Row
		for {
			row, err := r.Next()
			if errors.Is(err, io.EOF) {
				return r, rows
			}
			require.NoError(t, err)
			c := *row
			c.Vector, c.Attributes, c.Problems = slices.Clone(row.Vector), slices.Clone(row.Attributes), nil
			rows = append(rows, c)
		}
	}
	r, rows := read(AppsFile, AppIDColumn)
	require.Equal(t, AppSchema(), r.Schema())
	require.Equal(t, appFields, r.Schema().Fields(), "fields are in the order of their names")
	require.Len(t, rows, int(o.Apps))
	absent := make([]int, len(appFields))
	for i, row := range rows {
		require.Equal(t, app(g, int64(i)), row)
		for k, v := range row.Attributes {
			if v.Absent() {
				absent[k]++
			}
		}
	}
	for k, n := range absent {
		nullable := k == appPrice || k == appRating
		require.Equal(t, nullable, n > 0, appFields[k].Name)
	}

	r, rows = read(UsersFile, UserIDColumn)
	require.Equal(t, userFields, r.Schema().Fields())
	require.Len(t, rows, int(o.Users))
	for i, row := range rows {
		var want tower.Row
		g.User(int64(i), &want)
		require.Equal(t, want, row)
	}

	// Writing again gives the same bytes.
	again := t.TempDir()
	require.NoError(t, Write(context.Background(), again, o, nil))
	for _, name := range []string{AppsFile, UsersFile, InteractionsFile} {
		a, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		b, err := os.ReadFile(filepath.Join(again, name))
		require.NoError(t, err)
		require.Equal(t, a, b, name)
	}
}

func TestWriteStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	o := Options{Apps: 1 << 30, Users: 10}
	err := Write(ctx, dir, o, func(done, total int64) {
		if done > 5000 {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.Equal(t, UsersFile, e.Name(), "only whole files are left")
	}
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"apps is 0":          {Users: 1},
		"users is -1":        {Apps: 1, Users: -1},
		"dim is -1":          {Apps: 1, Users: 1, Dim: -1},
		"interactions is -1": {Apps: 1, Users: 1, Interactions: -1},
		"clusters is -1":     {Apps: 1, Users: 1, Clusters: -1},
		"norms is":           {Apps: 1, Users: 1, Norms: 9},
	} {
		_, err := New(o)
		require.ErrorContains(t, err, want)
	}
	var l NormLaw
	for _, law := range []NormLaw{Rising, Falling, Flat} {
		text, err := law.MarshalText()
		require.NoError(t, err)
		require.NoError(t, l.UnmarshalText(text))
		require.Equal(t, law, l)
	}
	require.Error(t, l.UnmarshalText([]byte("sideways")))
}

// One app and one user are enough.
func TestSmallest(t *testing.T) {
	g := generator(t, Options{Apps: 1, Users: 1, Dim: 1, Interactions: 3, Clusters: 1})
	require.Len(t, app(g, 0).Vector, 1)
	require.LessOrEqual(t, len(g.Interactions(0, nil)), 1)
}

func BenchmarkApp(b *testing.B) {
	g := generator(b, Options{Apps: 1e6, Users: 1e6})
	var row tower.Row
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		g.App(i%1e6, &row)
	}
}

func BenchmarkInteractions(b *testing.B) {
	g := generator(b, Options{Apps: 1e6, Users: 1e6, Interactions: 10})
	var plays []Interaction
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		plays = g.Interactions(i%1e6, plays[:0])
	}
}
