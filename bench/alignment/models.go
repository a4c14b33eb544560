package alignment

import (
	"math/rand/v2"
	"slices"
)

// model is a made model: its towers, and those of another training from another seed on
// the same world.
type model struct {
	towers
	again    towers
	training string
	world    *world
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// trainings are the kinds of training. Networks are two in seven: real models of two
// towers mostly are some.
var trainings = []string{"als", "svd", "bpr", "logit", "softmax", "network", "network"}

// Trainings lists the kinds of training.
func Trainings() []string { return slices.Compact(slices.Clone(trainings)) }

// newModel draws a world, a kind of training with its settings, and trains twice.
func newModel(dim int, among []string, r *rand.Rand) *model {
	w := newWorld(worldOptions{
		apps: 200 + r.IntN(500), users: 200 + r.IntN(500), latent: pick(r, 4, 8, 16, 32, 64),
		clusters: pick(r, 0, 0, 10, 30, 80), perUser: 10 + r.IntN(30), sharpness: 1 + 3*r.Float64(), skew: 1.5 * r.Float64(),
	}, r)
	m := &model{world: w, training: pick(r, trainings...)}
	switch {
	case len(among) > 0:
		m.training = pick(r, among...)
	case dim > 128: // others take too long
		m.training = pick(r, "bpr", "logit", "softmax")
	}
	train := trainer(m.training, w, dim, r)
	m.towers, m.again = train(r), train(r)
	return m
}

// trainer draws the settings of a kind of training.
func trainer(kind string, w *world, dim int, r *rand.Rand) func(*rand.Rand) towers {
	switch kind {
	case "als":
		rounds, alpha, lambda := 2+r.IntN(6), pick(r, 0.0, 1, 10, 40), pick(r, 0.1, 1, 10, 50)
		return func(r *rand.Rand) towers { return als(w, dim, rounds, alpha, lambda, r) }
	case "svd":
		normalised, share, rounds := r.IntN(2) == 0, pick(r, 0, 0.5, 0.5, 1), 3+r.IntN(4)
		return func(r *rand.Rand) towers { return svd(w, dim, rounds, normalised, share, r) }
	case "network":
		o := networkOptions{
			dim: dim, hidden: pick(r, 0, 0, 64, 128), steps: 200 + r.IntN(600), rate: pick(r, 0.002, 0.01), decay: pick(r, 0, 1e-3, 1e-2),
			cosine: r.IntN(2) == 0, heat: pick(r, 0.05, 0.1, 0.3),
		}
		if dim >= 64 { // as far, in fewer steps
			o.steps, o.rate = 150+r.IntN(250), pick(r, 0.005, 0.01)
		}
		if !o.cosine {
			o.heat = 1
		}
		return func(r *rand.Rand) towers { return network(w, o, r) }
	}
	o := sgdOptions{
		dim: dim, epochs: 5 + r.IntN(25), loss: map[string]loss{"bpr": bpr, "logit": logit, "softmax": softmax}[kind],
		rate: pick(r, 0.02, 0.05, 0.1), decay: pick(r, 0, 1e-4, 1e-3, 1e-2), init: pick(r, 0.1, 0.3, 1),
		cosine: r.IntN(2) == 0, heat: pick(r, 0.05, 0.1, 0.3), adagrad: r.IntN(3) == 0,
	}
	if dim > 128 {
		o.epochs = 5 + r.IntN(5)
	}
	if !o.cosine {
		o.heat = 1
	}
	return func(r *rand.Rand) towers { return sgd(w, o, r) }
}
