package alignment

import (
	"math"
	"math/rand/v2"
)

// networkOptions say how two towers of a network are trained: features go through a layer
// and, if there is one, a hidden layer of rectified units; the loss is the softmax over a
// batch.
type networkOptions struct {
	dim, hidden, steps int
	rate, decay        float64
	cosine             bool
	heat               float64
}

// layer is a dense layer with Adam (Kingma and Ba, "Adam: A Method for Stochastic
// Optimization", ICLR 2015).
type layer struct {
	weights, gradient, first, second [][]float64 // by output
}

func newLayer(in, out int, r *rand.Rand) *layer {
	zero := func() [][]float64 {
		m := make([][]float64, out)
		for i := range m {
			m[i] = make([]float64, in)
		}
		return m
	}
	return &layer{gaussians(r, out, in, math.Sqrt(2/float64(in+out))), zero(), zero(), zero()}
}

func (l *layer) forward(x []float64) []float64 {
	y := make([]float64, len(l.weights))
	for i, w := range l.weights {
		y[i] = dot(w, x)
	}
	return y
}

// backward adds to the gradient and returns that of the input.
func (l *layer) backward(x, dy []float64) []float64 {
	dx := make([]float64, len(x))
	for i, g := range dy {
		if g != 0 {
			axpy(g, l.weights[i], dx)
			axpy(g, x, l.gradient[i])
		}
	}
	return dx
}

func (l *layer) step(rate, decay float64, t int) {
	const b1, b2 = 0.9, 0.99
	c1, c2 := 1-math.Pow(b1, float64(t)), 1-math.Pow(b2, float64(t))
	for i, w := range l.weights {
		for j, g := range l.gradient[i] {
			l.gradient[i][j] = 0
			m, v := &l.first[i][j], &l.second[i][j]
			*m += (1 - b1) * (g - *m)
			*v += (1 - b2) * (g*g - *v)
			w[j] -= rate * (*m/c1/(math.Sqrt(*v/c2)+1e-8) + decay*w[j])
		}
	}
}

// stack is one tower of a network.
type stack []*layer

func newStack(in int, o *networkOptions, r *rand.Rand) stack {
	if o.hidden == 0 {
		return stack{newLayer(in, o.dim, r)}
	}
	return stack{newLayer(in, o.hidden, r), newLayer(o.hidden, o.dim, r)}
}

// forward returns the input of each layer, and last the output.
func (s stack) forward(x []float64) [][]float64 {
	list := [][]float64{x}
	for i, l := range s {
		y := l.forward(list[i])
		if i+1 < len(s) {
			for j := range y {
				y[j] = max(y[j], 0)
			}
		}
		list = append(list, y)
	}
	return list
}

func (s stack) backward(list [][]float64, dy []float64) {
	for i := len(s) - 1; i >= 0; i-- {
		dy = s[i].backward(list[i], dy)
		for j, x := range list[i] {
			if x == 0 {
				dy[j] = 0
			}
		}
	}
}

// network trains two towers on noisy features of apps and users.
func network(w *world, o networkOptions, r *rand.Rand) towers {
	features := func(list [][]float64, mix [][]float64) [][]float64 {
		out := make([][]float64, len(list))
		for i, v := range list {
			out[i] = gaussian(r, len(mix), 0.3)
			for j, m := range mix {
				out[i][j] += dot(m, v)
			}
		}
		return out
	}
	inputs := max(32, o.dim)
	latent := len(w.traits[0])
	xa := features(w.traits, gaussians(r, inputs, latent, 1/math.Sqrt(float64(latent))))
	xu := features(w.tastes, gaussians(r, inputs, latent, 1/math.Sqrt(float64(latent))))
	apps, users := newStack(inputs, &o, r), newStack(inputs, &o, r)
	const batch = 32
	for t := 1; t <= o.steps; t++ {
		var fa, fu [][][]float64
		var ya, yu [][]float64
		for range batch {
			u := r.IntN(w.users)
			a := w.played[u][r.IntN(len(w.played[u]))]
			fa, fu = append(fa, apps.forward(xa[a])), append(fu, users.forward(xu[u]))
			ya, yu = append(ya, fa[len(fa)-1][len(apps)]), append(yu, fu[len(fu)-1][len(users)])
		}
		du, da := softmaxGradient(yu, ya, o.cosine, o.heat)
		for i := range batch {
			apps.backward(fa[i], da[i])
			users.backward(fu[i], du[i])
		}
		for _, s := range []stack{apps, users} {
			for _, l := range s {
				l.step(o.rate, o.decay, t)
			}
		}
	}
	var m towers
	for _, x := range xa {
		f := apps.forward(x)
		m.apps = append(m.apps, f[len(apps)])
	}
	for _, x := range xu {
		f := users.forward(x)
		m.users = append(m.users, f[len(users)])
	}
	return m
}
