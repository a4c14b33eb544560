// Package axes tells from their vectors alone whether two towers come of one training.
//
// # Goals
//
// A model that is trained by inner products gives both towers the same axes: directions
// in which apps vary are directions in which users vary. Its training fixes the space
// only up to a rotation, so the towers of two trainings agree no more than a random
// rotation does. [Measure] looks at one tower, [Compare] at two. [Result.Alone] must hardly
// ever find two towers of one training apart, whatever the training was; where it cannot
// tell, it says so and why. Package builder/gate is the caller.
//
// # Design
//
// The covariance of each tower is looked at in three forms, because spectra differ: as it
// is, its square root and its logarithm. A space that has nearly collapsed varies in few
// directions, which in the first form hide the others, and in the last do not. Each form
// is taken less its trace part, so that a sphere has none, and the agreement of two is
// their cosine, <A, U> / (|A| |U|) by Frobenius.
//
// The controls are the agreements after random turns of one tower's space, and after
// random permutations of its dimensions: where a model's axes are the coordinates, as
// those of a singular value decomposition are, permutations agree much better than turns
// do, and towers whose columns were mixed up are of that kind. Two trainings may share such
// axes but for their signs, so there the third moments along the axes must agree, too:
// what is rare among apps and liked by few users is at the same end of an axis. Over all rotations the
// agreement has mean 0 and variance 2/((d-1)(d+2)) (from the second moments of the
// orthogonal group: Collins and Śniady, "Integration with respect to the Haar measure on
// unitary, orthogonal and symplectic group", Communications in Mathematical Physics 2006).
//
// That there is no agreement only says something where there could be one. Whether the
// axes of a tower stand out of the noise of its rows is seen by its halves: their
// agreement with each other bounds that with another tower.
//
// The result is a function of the rows, to the bit, on every CPU and with any number of
// threads: products are rounded before they are added, sums have one order.
package axes

import (
	"math"
	"slices"
)

const (
	// MaxRows is how many rows of a tower are enough: more hardly change anything.
	MaxRows = 4096
	// maxDim is how many coordinates are looked at. Those of wider towers are spread
	// evenly.
	maxDim = 128
	// minRows is how many rows a tower must have, each of its halves a half of it.
	minRows = 16
)

// A Form is a function of a covariance.
type Form int

// The forms.
const (
	Covariance Form = iota
	Root
	Logarithm
	forms
)

// String returns the form's name.
func (f Form) String() string {
	return [...]string{"covariance", "square root", "logarithm"}[f]
}

// Agreement is how far two towers agree in one form.
type Agreement struct {
	Form Form
	// Value is the agreement, from -1 to 1.
	Value float64
	// Sigmas is how far it is above 0, in standard deviations over all rotations.
	Sigmas float64
	// Turned and Permuted are the highest of the controls.
	Turned, Permuted float64
	// PermutedSigmas is how far the agreement is above the mean over permutations, in
	// standard deviations of those.
	PermutedSigmas float64
	// Reliable is the agreement that towers can show whose axes are the same, by how far
	// their halves agree: 1 without noise, 0 where all is noise.
	Reliable float64
}

// Result is what [Compare] finds.
type Result struct {
	Rows       [2]int      // of apps and users that were looked at
	Dim, Used  int         // dimensions, and how many were looked at
	Agreements []Agreement // one of each form; none if there is too little to look at
	// Aligned is whether the coordinates are the axes of both towers. Then Signs is how
	// far the signs of the axes agree, in standard deviations over random signs.
	Aligned bool
	Signs   float64
}

// Compare compares the axes of two towers, which must be of one dimension.
func Compare(apps, users *Side) *Result {
	r := &Result{Rows: [2]int{apps.rows, users.rows}, Dim: apps.dim, Used: apps.used}
	if apps.skews == nil || users.skews == nil {
		return r
	}
	for f := range forms {
		r.Agreements = append(r.Agreements, agree(f, apps, users))
	}
	r.Aligned = min(apps.diagonal(), users.diagonal()) >= aligned
	r.Signs = signs(apps.skews, users.skews)
	return r
}

// agree measures the agreement of two towers in one form.
func agree(f Form, a, u *Side) Agreement {
	g := Agreement{
		Form: f, Value: inner(a.forms[f], u.forms[f]),
		Turned: math.Inf(-1), Permuted: math.Inf(-1),
		Reliable: math.Sqrt(max(a.reliable[f], 0) * max(u.reliable[f], 0)),
	}
	g.Sigmas = g.Value * scale(len(a.forms[f]))
	for _, x := range turned(a.forms[f], u.forms[f]) {
		g.Turned = max(g.Turned, x)
	}
	list := permuted(a.forms[f], u.forms[f])
	mean, deviation := moments(list)
	g.Permuted = slices.Max(list)
	if deviation > 0 {
		g.PermutedSigmas = (g.Value - mean) / deviation
	}
	return g
}

// moments returns the mean and the standard deviation of a list.
func moments(list []float64) (mean, deviation float64) {
	for _, x := range list {
		mean += x
	}
	mean /= float64(len(list))
	for _, x := range list {
		deviation += float64((x - mean) * (x - mean))
	}
	return mean, math.Sqrt(deviation / float64(len(list)))
}
