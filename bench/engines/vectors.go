package engines

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/kernel"
)

// Vectors are rows of one dimension, at the stride that package kernel scores.
type Vectors struct {
	dim, stride int
	data        []float32
}

func newVectors(dim, rows int) *Vectors {
	stride := kernel.Stride(dim)
	return &Vectors{dim, stride, make([]float32, 0, rows*stride)}
}

// Rows returns the number of vectors.
func (v *Vectors) Rows() int { return len(v.data) / v.stride }

// Dim returns the dimension.
func (v *Vectors) Dim() int { return v.dim }

// Row returns vector i without its padding.
func (v *Vectors) Row(i int) []float32 { return v.data[i*v.stride:][:v.dim:v.dim] }

// padded returns vector i with its padding.
func (v *Vectors) padded(i int) []float32 { return v.data[i*v.stride : (i+1)*v.stride] }

func (v *Vectors) append(row []float32) {
	v.data = append(v.data, row...)
	for range v.stride - v.dim {
		v.data = append(v.data, 0)
	}
}

// matrix copies the vectors.
func (v *Vectors) matrix() (*index.Matrix, error) {
	m, err := index.NewMatrix(v.dim, v.Rows())
	if err != nil {
		return nil, err
	}
	for i := range v.Rows() {
		if err := m.Append(v.Row(i)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func squaredNorm(row []float32) float64 {
	var sum float64
	for _, x := range row {
		sum += float64(x) * float64(x)
	}
	return sum
}

// augmented returns the vectors with one component more, which gives all of them
// the largest norm: then the nearest to a query with a zero there has the largest
// inner product with it (Bachrach et al., "Speeding up the Xbox recommender system
// using a Euclidean transformation for inner-product spaces", RecSys 2014).
func (v *Vectors) augmented() *Vectors {
	var largest float64
	for i := range v.Rows() {
		largest = max(largest, squaredNorm(v.Row(i)))
	}
	out := newVectors(v.dim+1, v.Rows())
	row := make([]float32, v.dim+1)
	for i := range v.Rows() {
		copy(row, v.Row(i))
		row[v.dim] = float32(math.Sqrt(max(largest-squaredNorm(v.Row(i)), 0)))
		out.append(row)
	}
	return out
}

// extended returns the vectors with one component more, zero.
func (v *Vectors) extended() *Vectors {
	out := newVectors(v.dim+1, v.Rows())
	row := make([]float32, v.dim+1)
	for i := range v.Rows() {
		copy(row, v.Row(i))
		out.append(row)
	}
	return out
}

// writeFile writes an .fbin file.
func (v *Vectors) writeFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(v.write(f), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (v *Vectors) write(w io.Writer) error {
	b := bufio.NewWriterSize(w, 1<<20)
	le := binary.LittleEndian
	buf := le.AppendUint32(le.AppendUint32(nil, uint32(v.Rows())), uint32(v.dim))
	for i := range v.Rows() {
		for _, x := range v.Row(i) {
			buf = le.AppendUint32(buf, math.Float32bits(x))
		}
		if _, err := b.Write(buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	if _, err := b.Write(buf); err != nil { // the header of an empty file
		return err
	}
	return b.Flush()
}
