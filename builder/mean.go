package builder

import (
	"fmt"
	"math"

	"github.com/tandem-ann/tandem/index"
)

// mean is the mean of vectors, under cosine of their directions. It adds them one after
// the other in float64, so it depends on their order alone, which is that of the shards
// and of the ids in each.
type mean struct {
	metric index.Metric
	sum    []float64
	rows   int
}

func newMean(metric index.Metric, dim int) *mean {
	return &mean{metric: metric, sum: make([]float64, dim)}
}

// add adds all rows of a matrix.
func (m *mean) add(rows *index.Matrix) {
	for i := range rows.Rows() {
		v, scale := rows.Row(i), 1.0
		if m.metric == index.Cosine {
			scale = 1 / norm(v)
		}
		for j, x := range v {
			m.sum[j] += scale * float64(x)
		}
	}
	m.rows += rows.Rows()
}

func norm(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}

// noDirection is the norm below which the mean of directions is what rounding has left of
// directions that cancel out.
const noDirection = 1e-12

// vector returns the mean, or an error that says why it is no vector to ask with.
func (m *mean) vector() ([]float32, error) {
	v := make([]float32, len(m.sum))
	for j, x := range m.sum {
		v[j] = float32(x / float64(m.rows))
	}
	if n := norm(v); m.metric == index.Cosine && n < noDirection {
		return nil, fmt.Errorf("norm is %.3g: their directions cancel out", n)
	}
	if err := m.metric.CheckVector(v); err != nil {
		return nil, err
	}
	return v, nil
}
