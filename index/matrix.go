package index

import (
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/index/kernel"
)

// Matrix holds vectors of one dimension at the stride that package kernel
// scores: each row is padded with zeros.
type Matrix struct {
	dim, stride int
	data        []float32
}

// MaxDim is the largest dimension an index accepts.
const MaxDim = 1 << 16

// NewMatrix returns an empty matrix with room for rows vectors of dim.
func NewMatrix(dim, rows int) (*Matrix, error) {
	if dim < 1 || dim > MaxDim {
		return nil, fmt.Errorf("dimension is %d, want 1 to %d", dim, MaxDim)
	}
	stride := kernel.Stride(dim)
	return &Matrix{dim: dim, stride: stride, data: make([]float32, 0, rows*stride)}, nil
}

// Append adds a copy of v, which has the matrix's dimension. Negative zeros
// become zeros, so that equal vectors have equal bytes.
func (m *Matrix) Append(v []float32) error {
	m.Grow(1)
	if err := m.Set(m.Rows()-1, v); err != nil {
		m.data = m.data[:len(m.data)-m.stride]
		return err
	}
	return nil
}

// Grow adds rows zero vectors.
func (m *Matrix) Grow(rows int) {
	n := len(m.data)
	m.data = slices.Grow(m.data, rows*m.stride)[:n+rows*m.stride]
	clear(m.data[n:])
}

// Set replaces vector i by a copy of v, as [Matrix.Append] adds one.
func (m *Matrix) Set(i int, v []float32) error {
	if len(v) != m.dim {
		return fmt.Errorf("vector has %d components, want %d", len(v), m.dim)
	}
	for j, x := range v {
		m.data[i*m.stride+j] = x + 0
	}
	return nil
}

// Rows returns the number of vectors.
func (m *Matrix) Rows() int { return len(m.data) / m.stride }

// Dim returns the dimension.
func (m *Matrix) Dim() int { return m.dim }

// Row returns vector i without its padding. It aliases the matrix.
func (m *Matrix) Row(i int) []float32 {
	return m.data[i*m.stride : i*m.stride+m.dim : i*m.stride+m.dim]
}

// padded returns vector i with its padding.
func (m *Matrix) padded(i int) []float32 { return m.data[i*m.stride : (i+1)*m.stride] }
