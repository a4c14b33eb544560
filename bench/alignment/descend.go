package alignment

import (
	"math"
	"math/rand/v2"
)

// loss is what is descended.
type loss int

const (
	bpr     loss = iota // pairs (Rendle et al., "BPR: Bayesian Personalized Ranking", UAI 2009)
	logit               // an interaction or a random app, by logistic regression
	softmax             // an interaction among those of a batch (Yi et al., RecSys 2019)
)

// sgdOptions say how to descend.
type sgdOptions struct {
	dim, epochs int
	loss        loss
	rate, decay float64
	init        float64 // the norm of a row, at first
	cosine      bool    // of softmax: both sides are normalised
	heat        float64 // of softmax: the temperature
	adagrad     bool
}

// rows are parameters with their optimiser.
type parameters struct {
	rows    [][]float64
	squares [][]float64 // of Adagrad
	o       *sgdOptions
}

func newParameters(n int, o *sgdOptions, r *rand.Rand) *parameters {
	p := &parameters{rows: gaussians(r, n, o.dim, o.init/math.Sqrt(float64(o.dim))), o: o}
	if o.adagrad {
		p.squares = make([][]float64, n)
		for i := range p.squares {
			p.squares[i] = make([]float64, o.dim)
		}
	}
	return p
}

// step goes against a gradient in one row.
func (p *parameters) step(i int, gradient []float64) {
	row := p.rows[i]
	if p.squares == nil {
		for j, g := range gradient {
			row[j] -= p.o.rate * (g + p.o.decay*row[j])
		}
		return
	}
	s := p.squares[i]
	for j, g := range gradient {
		g += p.o.decay * row[j]
		s[j] += g * g
		row[j] -= p.o.rate * g / (math.Sqrt(s[j]) + 1e-6)
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// sgd learns a vector for each app and user.
func sgd(w *world, o sgdOptions, r *rand.Rand) towers {
	apps, users := newParameters(w.apps, &o, r), newParameters(w.users, &o, r)
	type pair struct{ user, app int }
	var pairs []pair
	for u, played := range w.played {
		for _, a := range played {
			pairs = append(pairs, pair{u, a})
		}
	}
	gu, ga, gb := make([]float64, o.dim), make([]float64, o.dim), make([]float64, o.dim)
	scale := func(dst, src []float64, f float64) {
		for i, v := range src {
			dst[i] = f * v
		}
	}
	const batch = 32
	for range o.epochs {
		r.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		if o.loss == softmax {
			for i := 0; i+batch <= len(pairs); i += batch {
				list := pairs[i : i+batch]
				us, as := make([][]float64, batch), make([][]float64, batch)
				for k, p := range list {
					us[k], as[k] = users.rows[p.user], apps.rows[p.app]
				}
				du, da := softmaxGradient(us, as, o.cosine, o.heat)
				for k, p := range list {
					users.step(p.user, du[k])
					apps.step(p.app, da[k])
				}
			}
			continue
		}
		for _, p := range pairs {
			u, a := users.rows[p.user], apps.rows[p.app]
			other := r.IntN(w.apps)
			b := apps.rows[other]
			switch o.loss {
			case bpr:
				f := sigmoid(dot(u, b) - dot(u, a))
				scale(ga, u, -f)
				scale(gb, u, f)
				for i := range gu {
					gu[i] = f * (b[i] - a[i])
				}
			case logit:
				f, h := sigmoid(dot(u, a))-1, sigmoid(dot(u, b))
				scale(ga, u, f)
				scale(gb, u, h)
				for i := range gu {
					gu[i] = f*a[i] + h*b[i]
				}
			}
			users.step(p.user, gu)
			apps.step(p.app, ga)
			if other != p.app {
				apps.step(other, gb)
			}
		}
	}
	return towers{apps.rows, users.rows}
}

// softmaxGradient returns the gradients of the mean cross entropy of finding each user's
// app among those of the batch, times the size of the batch.
func softmaxGradient(users, apps [][]float64, cosine bool, heat float64) (du, da [][]float64) {
	n, dim := len(users), len(users[0])
	norm := func(list [][]float64) (unit [][]float64, norms []float64) {
		if !cosine {
			return list, nil
		}
		for _, v := range list {
			l := math.Sqrt(dot(v, v)) + 1e-12
			e := make([]float64, dim)
			for i, x := range v {
				e[i] = x / l
			}
			unit, norms = append(unit, e), append(norms, l)
		}
		return unit, norms
	}
	u, nu := norm(users)
	a, na := norm(apps)
	du, da = make([][]float64, n), make([][]float64, n)
	for i := range n {
		du[i], da[i] = make([]float64, dim), make([]float64, dim)
	}
	p := make([]float64, n)
	for i := range n {
		top := math.Inf(-1)
		for j := range n {
			p[j] = dot(u[i], a[j]) / heat
			top = max(top, p[j])
		}
		sum := 0.0
		for j := range n {
			p[j] = math.Exp(p[j] - top)
			sum += p[j]
		}
		for j := range n {
			f := p[j] / sum
			if i == j {
				f--
			}
			f /= heat
			axpy(f, a[j], du[i])
			axpy(f, u[i], da[j])
		}
	}
	// Of a unit vector only what is across it moves the vector that it was made of.
	across := func(g, unit [][]float64, norms []float64) {
		for i := range norms {
			axpy(-dot(g[i], unit[i]), unit[i], g[i])
			for j := range g[i] {
				g[i][j] /= norms[i]
			}
		}
	}
	if cosine {
		across(du, u, nu)
		across(da, a, na)
	}
	return du, da
}
