package axes

import "math"

// eigen returns the eigenvalues of a symmetric matrix, which it overwrites, and the
// eigenvectors as rows, by the cyclic method of Jacobi (Golub and Van Loan, "Matrix
// Computations", 4th edition, section 8.5). Products are rounded before they are added,
// so that the result is the same on every CPU.
func eigen(m [][]float64) (values []float64, vectors [][]float64) {
	n := len(m)
	vectors = square(n)
	for i := range vectors {
		vectors[i][i] = 1
	}
	total := 0.0
	for _, row := range m {
		total += dot(row, row)
	}
	for range 30 {
		off := 0.0
		for i, row := range m {
			off += dot(row[:i], row[:i])
		}
		if off <= 1e-18*total {
			break
		}
		// What is small beside the rest is left for when it is not.
		least := math.Sqrt(off) / float64(n) * 1e-3
		for i := 1; i < n; i++ {
			for j := range i {
				if math.Abs(m[i][j]) > least {
					annihilate(m, vectors, i, j)
				}
			}
		}
	}
	values = make([]float64, n)
	for i := range values {
		values[i] = m[i][i]
	}
	return values, vectors
}

// annihilate turns the plane of p and q so that m[p][q] is 0.
func annihilate(m, vectors [][]float64, p, q int) {
	theta := (m[q][q] - m[p][p]) / (2 * m[p][q])
	t := 1 / (math.Abs(theta) + math.Sqrt(float64(theta*theta)+1))
	if theta < 0 {
		t = -t
	}
	c := 1 / math.Sqrt(float64(t*t)+1)
	s := t * c
	mix := func(a, b []float64) {
		b = b[:len(a)]
		for i, x := range a {
			y := b[i]
			a[i] = float64(c*x) - float64(s*y)
			b[i] = float64(s*x) + float64(c*y)
		}
	}
	pp, qq, pq := m[p][p], m[q][q], m[p][q]
	mix(m[p], m[q])
	m[p][p], m[q][q] = pp-float64(t*pq), qq+float64(t*pq)
	m[p][q], m[q][p] = 0, 0
	for i := range m {
		m[i][p], m[i][q] = m[p][i], m[q][i]
	}
	mix(vectors[p], vectors[q])
}

func square(n int) [][]float64 {
	m := make([][]float64, n)
	for i := range m {
		m[i] = make([]float64, n)
	}
	return m
}

func dot(x, y []float64) (sum float64) {
	y = y[:len(x)]
	for i, v := range x {
		sum += float64(v * y[i])
	}
	return sum
}
