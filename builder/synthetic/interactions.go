package synthetic

import (
	"slices"
	"time"
)

// An Interaction is one app that a user played.
type Interaction struct {
	App      int64
	PlayedAt time.Time
}

// Interactions appends the interactions of a user to dst: distinct apps, oldest
// first. Their number is from half to one and a half times the mean, as long as
// enough apps are found.
//
// Each app is the better, by inner product, of two drawn from one of the user's
// clusters by popularity, among those that run where the user plays.
func (g *Generator) Interactions(user int64, dst []Interaction) []Interaction {
	mean := g.options.Interactions
	if mean == 0 {
		return dst
	}
	vector := g.a
	in := g.userVector(vector, user)
	plays := g.userPlatforms(user)
	g.seed(playStream, user)
	n := mean - mean/2 + g.rng.IntN(2*(mean/2)+1)
	// The sequence is used up before candidates are looked at, since they
	// have sequences of their own.
	type play struct {
		cluster int
		u       [2]float64
		age     time.Duration
	}
	wanted := make([]play, n)
	for i := range wanted {
		w := &wanted[i]
		u := g.rng.Float64()
		for k := range in.n {
			if w.cluster = in.clusters[k]; u < in.weights[k] {
				break
			}
			u -= in.weights[k]
		}
		w.u = [2]float64{g.rng.Float64(), g.rng.Float64()}
		const year = 365 * 24 * float64(time.Hour)
		w.age = time.Duration(g.rng.Float64() * year).Truncate(time.Second)
	}

	start := len(dst)
	g.drawn = g.drawn[:0]
	for _, w := range wanted {
		first := g.draw(w.cluster, w.u[0], plays)
		second := g.draw(w.cluster, w.u[1], plays)
		best := max(first, second)
		if first >= 0 && second >= 0 && first != second {
			g.appVector(g.b, first)
			score := dot(vector, g.b)
			g.appVector(g.b, second)
			if best = second; score >= dot(vector, g.b) {
				best = first
			}
		}
		if best >= 0 {
			g.drawn = append(g.drawn, best)
			dst = append(dst, Interaction{App: best, PlayedAt: now.Add(-w.age)})
		}
	}
	slices.SortFunc(dst[start:], func(a, b Interaction) int { return a.PlayedAt.Compare(b.PlayedAt) })
	return dst
}

// draw returns an app of the cluster that was not drawn before and shares a
// platform with plays, near the place in the cluster that u, from 0 to 1, asks
// for: places are drawn with a density of rank^(-2/3). It returns -1 when it finds
// none.
func (g *Generator) draw(cluster int, u float64, plays []string) int64 {
	start, end := g.starts[cluster], g.starts[cluster+1]
	if start == end { // a cluster without apps
		start, end = 0, uint64(g.options.Apps)
	}
	size := end - start
	first := uint64(u * u * u * float64(size))
	const looks = 64
	for i := range min(size, looks) {
		app := int64(g.places.backward(start + (first+i)%size))
		if slices.Contains(g.drawn, app) {
			continue
		}
		cluster, _ := g.place(app)
		for _, p := range g.appPlatforms(app, cluster) {
			if slices.Contains(plays, p) {
				return app
			}
		}
	}
	return -1
}
