package alignment

import (
	"math"
	"math/rand/v2"
)

// towers are those of one made model.
type towers struct {
	apps, users [][]float64
}

// als factorises by alternating least squares with confidence (Hu, Koren and Volinsky,
// "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008).
func als(w *world, dim, rounds int, alpha, lambda float64, r *rand.Rand) towers {
	t := towers{gaussians(r, w.apps, dim, 0.1), gaussians(r, w.users, dim, 0.1)}
	byApp := w.byApp()
	for range rounds {
		leastSquares(t.users, t.apps, w.played, alpha, lambda)
		leastSquares(t.apps, t.users, byApp, alpha, lambda)
	}
	return t
}

// leastSquares solves for the rows of x, of which each has interactions with rows of y.
func leastSquares(x, y [][]float64, with [][]int, alpha, lambda float64) {
	dim := len(x[0])
	gram := make([][]float64, dim)
	for i := range gram {
		gram[i] = make([]float64, dim)
		gram[i][i] = lambda
	}
	for _, row := range y {
		for i, v := range row {
			axpy(v, row[:i+1], gram[i][:i+1])
		}
	}
	m := make([][]float64, dim)
	for i := range m {
		m[i] = make([]float64, dim)
	}
	for k, list := range with {
		b := make([]float64, dim)
		for i := range m {
			copy(m[i][:i+1], gram[i][:i+1])
		}
		for _, j := range list {
			row := y[j]
			for i, v := range row {
				axpy(alpha*v, row[:i+1], m[i][:i+1])
			}
			axpy(1+alpha, row, b)
		}
		cholesky(m, b)
		x[k] = b
	}
}

// cholesky solves m x = b in place; m is symmetric, of which the lower half is read.
func cholesky(m [][]float64, b []float64) {
	for i := range m {
		for j := range i {
			m[i][j] = (m[i][j] - dot(m[i][:j], m[j][:j])) / m[j][j]
		}
		m[i][i] = math.Sqrt(m[i][i] - dot(m[i][:i], m[i][:i]))
		b[i] = (b[i] - dot(m[i][:i], b[:i])) / m[i][i]
	}
	for i := len(m) - 1; i >= 0; i-- {
		for j := i + 1; j < len(m); j++ {
			b[i] -= m[j][i] * b[j]
		}
		b[i] /= m[i][i]
	}
}

// svd factorises the matrix of interactions, degree-normalised or not, by subspace
// iteration. The singular values go to users to the power of share, to apps to that of
// the rest, as PureSVD (share 1) and balanced factors (share 0.5) have it.
func svd(w *world, dim, rounds int, normalised bool, share float64, r *rand.Rand) towers {
	byApp := w.byApp()
	weight := func(u, a int) float64 {
		if !normalised {
			return 1
		}
		return 1 / math.Sqrt(float64(len(w.played[u]))*float64(len(byApp[a])))
	}
	dim = min(dim, w.apps, w.users)
	q := gaussians(r, w.apps, dim, 1)
	orthonormal(q)
	var p [][]float64
	var sigma []float64
	for range rounds {
		p = make([][]float64, w.users)
		for u, played := range w.played {
			p[u] = make([]float64, dim)
			for _, a := range played {
				axpy(weight(u, a), q[a], p[u])
			}
		}
		orthonormal(p)
		q = make([][]float64, w.apps)
		for a, users := range byApp {
			q[a] = make([]float64, dim)
			for _, u := range users {
				axpy(weight(u, a), p[u], q[a])
			}
		}
		sigma = orthonormal(q)
	}
	for _, row := range p {
		for i := range row {
			row[i] *= math.Pow(sigma[i], share)
		}
	}
	for _, row := range q {
		for i := range row {
			row[i] *= math.Pow(sigma[i], 1-share)
		}
	}
	// The sign of each pair of singular vectors is anyone's choice.
	for i := range dim {
		if r.IntN(2) == 0 {
			for _, side := range [][][]float64{p, q} {
				for _, row := range side {
					row[i] = -row[i]
				}
			}
		}
	}
	return towers{q, p}
}

// orthonormal makes the columns of x orthonormal, by Gram and Schmidt twice over, and
// returns the norms that they had beside the others.
func orthonormal(x [][]float64) []float64 {
	dim := len(x[0])
	columns := make([][]float64, dim)
	for i := range columns {
		columns[i] = make([]float64, len(x))
		for k, row := range x {
			columns[i][k] = row[i]
		}
	}
	norms := make([]float64, dim)
	for i, c := range columns {
		norms[i] = 1
		for range 2 {
			for _, before := range columns[:i] {
				axpy(-dot(before, c), before, c)
			}
			n := math.Sqrt(dot(c, c))
			norms[i] *= n
			for k := range c {
				c[k] /= max(n, 1e-30)
			}
		}
		for k := range x {
			x[k][i] = c[k]
		}
	}
	return norms
}
