package axes

import (
	"context"
	"math"
)

// Side is what was measured of one tower. Nothing changes it.
type Side struct {
	rows, dim, used int
	forms           [forms][][]float64 // without trace, of norm 1; of norm 0 for a sphere
	reliable        [forms]float64     // how far the forms of one half foretell those of the other
	skews           []float64          // of each coordinate; nil if there is too little to look at
}

// Measure looks at the rows of a tower, which must be of one length, finite, and picked
// without regard to their vectors. It fails only if ctx ends.
func Measure(ctx context.Context, rows [][]float32) (*Side, error) {
	s := &Side{rows: len(rows)}
	if len(rows) > 0 {
		s.dim = len(rows[0])
	}
	s.used = min(s.dim, maxDim)
	if s.used < 2 || len(rows) < minRows {
		return s, nil
	}
	dim := s.used
	var halves [2]*scatter
	for i := range halves {
		halves[i] = newScatter(dim)
	}
	vector := make([]float64, dim)
	for i, row := range rows {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		for j := range vector {
			vector[j] = float64(row[coordinate(j, len(row), dim)])
		}
		halves[i%2].add(vector)
	}
	var of [2][forms][][]float64
	for i, h := range halves {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		of[i] = formsOf(h.covariance())
	}
	whole := halves[0].plus(halves[1])
	s.skews = skews(rows, whole)
	s.forms = formsOf(whole.covariance())
	for f := range forms {
		// Twice as many rows have less noise (Spearman, "Correlation calculated from
		// faulty data", British Journal of Psychology 1910).
		c := inner(of[0][f], of[1][f])
		s.reliable[f] = 2 * c / (1 + max(c, -0.5))
	}
	return s, nil
}

// coordinate returns which of all coordinates is looked at for one of used.
func coordinate(j, all, used int) int { return j * all / used }

// skews returns the third central moment of each coordinate, in units of its standard
// deviation; 0 of one that does not vary.
func skews(rows [][]float32, s *scatter) []float64 {
	list := make([]float64, len(s.sum))
	for j := range list {
		mean, at := s.origin[j]+s.sum[j]/s.n, coordinate(j, len(rows[0]), len(list))
		square, cube := 0.0, 0.0
		for _, row := range rows {
			x := float64(row[at]) - mean
			square += float64(x * x)
			cube += float64(x * float64(x*x))
		}
		square, cube = square/s.n, cube/s.n
		if deviation := math.Sqrt(square); deviation > 0 {
			list[j] = cube / (square * deviation)
		}
	}
	return list
}

// signs returns how far two lists agree in their signs, in standard deviations over random
// ones. Large products count for more, by their roots, so that a few do not decide.
func signs(a, u []float64) float64 {
	sum, square := 0.0, 0.0
	for i := range a {
		x := float64(a[i] * u[i])
		square += math.Abs(x)
		sum += math.Copysign(math.Sqrt(math.Abs(x)), x)
	}
	if square == 0 {
		return 0
	}
	return sum / math.Sqrt(square)
}

// diagonal returns the share of the root form that is on its diagonal.
func (s *Side) diagonal() (share float64) {
	for i, row := range s.forms[Root] {
		share += float64(row[i] * row[i])
	}
	return share
}

// scatter sums vectors and their products. Vectors are taken less the first one, so that
// a mean far from 0 takes no digits away.
type scatter struct {
	n        float64
	origin   []float64
	sum, row []float64
	products [][]float64 // the lower half
}

func newScatter(dim int) *scatter {
	return &scatter{sum: make([]float64, dim), row: make([]float64, dim), products: square(dim)}
}

func (s *scatter) add(v []float64) {
	if s.origin == nil {
		s.origin = append([]float64(nil), v...)
	}
	for i, x := range v {
		s.row[i] = x - s.origin[i]
		s.sum[i] += s.row[i]
	}
	for i, x := range s.row {
		if x != 0 {
			to := s.products[i][:i+1]
			for j, y := range s.row[:i+1] {
				to[j] += float64(x * y)
			}
		}
	}
	s.n++
}

// plus returns the scatter of the vectors of both.
func (s *scatter) plus(o *scatter) *scatter {
	t := newScatter(len(s.sum))
	t.n, t.origin = s.n+o.n, s.origin
	by := make([]float64, len(s.sum)) // from the origin of s to that of o
	for i := range by {
		by[i] = o.origin[i] - s.origin[i]
		t.sum[i] = s.sum[i] + o.sum[i] + float64(o.n*by[i])
	}
	for i := range by {
		for j := range i + 1 {
			t.products[i][j] = s.products[i][j] + o.products[i][j] +
				float64(o.sum[i]*by[j]) + float64(by[i]*o.sum[j]) + float64(o.n*float64(by[i]*by[j]))
		}
	}
	return t
}

// covariance returns the covariance, in units of the mean variance; 0 if nothing varies.
func (s *scatter) covariance() [][]float64 {
	c := square(len(s.sum))
	trace := 0.0
	for i := range c {
		for j := range i + 1 {
			c[i][j] = s.products[i][j]/s.n - float64(s.sum[i]/s.n*(s.sum[j]/s.n))
			c[j][i] = c[i][j]
		}
		trace += c[i][i]
	}
	unit := trace / float64(len(c))
	for _, row := range c {
		for j := range row {
			if unit > 0 {
				row[j] /= unit
			} else {
				row[j] = 0
			}
		}
	}
	return c
}

// floor is what is added to variances, in units of the mean one, before logarithms are
// taken: directions in which hardly anything varies are noise.
const floor = 1e-3

// formsOf returns the forms of a covariance, which it overwrites.
func formsOf(c [][]float64) (list [forms][][]float64) {
	list[Covariance] = square(len(c))
	for i := range c {
		copy(list[Covariance][i], c[i])
	}
	values, vectors := eigen(c)
	list[Root] = spectral(values, vectors, func(x float64) float64 { return math.Sqrt(max(x, 0)) })
	list[Logarithm] = spectral(values, vectors, func(x float64) float64 { return logarithm(max(x, 0) + floor) })
	for _, m := range list {
		normalise(m)
	}
	return list
}

// spectral returns the symmetric matrix of these eigenvectors whose eigenvalues are
// functions of values.
func spectral(values []float64, vectors [][]float64, f func(float64) float64) [][]float64 {
	m := square(len(values))
	for k, v := range vectors {
		x := f(values[k])
		for i, e := range v {
			to, factor := m[i], x*e
			for j, y := range v {
				to[j] += float64(factor * y)
			}
		}
	}
	return m
}

// normalise takes the trace part away and gives what is left the norm 1.
func normalise(m [][]float64) {
	trace, norm := 0.0, 0.0
	for i := range m {
		trace += m[i][i]
	}
	for i := range m {
		m[i][i] -= trace / float64(len(m))
		norm += dot(m[i], m[i])
	}
	if norm = math.Sqrt(norm); norm <= 1e-9 {
		norm = math.Inf(1)
	}
	for _, row := range m {
		for j := range row {
			row[j] /= norm
		}
	}
}

// inner is the inner product of two matrices.
func inner(a, b [][]float64) (sum float64) {
	for i := range a {
		sum += dot(a[i], b[i])
	}
	return sum
}

// logarithm returns the binary logarithm of a positive number, by operations that are the
// same on every CPU, which [math.Log] is not bound to be. The series is that of the
// inverse hyperbolic tangent.
func logarithm(x float64) float64 {
	fraction, exponent := math.Frexp(x)
	if fraction < math.Sqrt2/2 {
		fraction *= 2
		exponent--
	}
	y := (fraction - 1) / (fraction + 1)
	power, sum := y, 0.0
	for k := 1; k < 40; k += 2 {
		sum += power / float64(k)
		power *= float64(y * y)
	}
	return float64(exponent) + float64(sum*(2/math.Ln2))
}
