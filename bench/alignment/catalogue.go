package alignment

import (
	"math"
	"math/rand/v2"
	"slices"
)

// world is who likes what: tastes of users and traits of apps in a space that no model
// sees, and the interactions drawn from them.
type world struct {
	apps, users int
	traits      [][]float64 // of apps
	tastes      [][]float64 // of users
	played      [][]int     // apps by user, ascending
	popularity  []float64   // how many users of each app
}

// worldOptions say what a world is like.
type worldOptions struct {
	apps, users, latent, clusters int
	perUser                       int
	sharpness                     float64 // how much taste decides
	skew                          float64 // how unequally popular apps are
}

// newWorld draws a world. Clusters of 0 leave tastes and traits to be spread evenly.
func newWorld(o worldOptions, r *rand.Rand) *world {
	w := &world{apps: o.apps, users: o.users, popularity: make([]float64, o.apps)}
	var centres [][]float64
	for range o.clusters {
		centres = append(centres, gaussian(r, o.latent, 1))
	}
	draw := func() []float64 {
		if o.clusters == 0 {
			return gaussian(r, o.latent, 1)
		}
		v := gaussian(r, o.latent, 0.5)
		// The first clusters are the larger ones.
		c := int(math.Pow(r.Float64(), 1.5) * float64(o.clusters))
		axpy(1, centres[min(c, o.clusters-1)], v)
		return v
	}
	appeal := make([]float64, o.apps)
	for a := range o.apps {
		w.traits = append(w.traits, draw())
		appeal[a] = o.skew * r.NormFloat64()
	}
	scale := o.sharpness / math.Sqrt(float64(o.latent))
	type scored struct {
		app int
		key float64
	}
	list := make([]scored, o.apps)
	for range o.users {
		taste := draw()
		w.tastes = append(w.tastes, taste)
		for a := range list {
			// The largest of a score and a Gumbel variable is a draw without replacement.
			list[a] = scored{a, scale*dot(taste, w.traits[a]) + appeal[a] - math.Log(-math.Log(r.Float64()))}
		}
		n := max(2, min(o.apps/4, o.perUser/2+r.IntN(o.perUser+1)))
		slices.SortFunc(list, func(x, y scored) int {
			switch {
			case x.key > y.key:
				return -1
			case x.key < y.key:
				return 1
			}
			return x.app - y.app
		})
		var played []int
		for _, s := range list[:n] {
			played = append(played, s.app)
			w.popularity[s.app]++
		}
		slices.Sort(played)
		w.played = append(w.played, played)
	}
	return w
}

// byApp returns the users of each app.
func (w *world) byApp() [][]int {
	list := make([][]int, w.apps)
	for u, played := range w.played {
		for _, a := range played {
			list[a] = append(list[a], u)
		}
	}
	return list
}

func gaussian(r *rand.Rand, n int, scale float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = scale * r.NormFloat64()
	}
	return v
}

func gaussians(r *rand.Rand, rows, n int, scale float64) [][]float64 {
	list := make([][]float64, rows)
	for i := range list {
		list[i] = gaussian(r, n, scale)
	}
	return list
}

func dot(x, y []float64) (sum float64) {
	y = y[:len(x)]
	for i, v := range x {
		sum += v * y[i]
	}
	return sum
}

// axpy adds f*x to y.
func axpy(f float64, x, y []float64) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += f * v
	}
}
