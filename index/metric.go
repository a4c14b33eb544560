package index

import (
	"fmt"
	"math"
)

// Metric is how a query and a row are compared. The zero Metric is invalid.
type Metric uint8

const (
	// Dot is the inner product; higher is better.
	Dot Metric = iota + 1
	// Cosine is the inner product of the vectors scaled to norm 1; higher is
	// better. A zero vector has none and is rejected.
	Cosine
	// L2 is the squared Euclidean distance; lower is better.
	L2
)

var metricNames = [...]string{Dot: "dot", Cosine: "cosine", L2: "l2"}

// String returns dot, cosine or l2.
func (m Metric) String() string {
	if m.valid() {
		return metricNames[m]
	}
	return fmt.Sprintf("metric(%d)", uint8(m))
}

func (m Metric) valid() bool { return m >= Dot && m <= L2 }

// MarshalText implements [encoding.TextMarshaler].
func (m Metric) MarshalText() ([]byte, error) {
	if !m.valid() {
		return nil, fmt.Errorf("metric %d is unknown", uint8(m))
	}
	return []byte(metricNames[m]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *Metric) UnmarshalText(text []byte) error {
	for i := Dot; i <= L2; i++ {
		if metricNames[i] == string(text) {
			*m = i
			return nil
		}
	}
	return fmt.Errorf("metric %q: want dot, cosine or l2", text)
}

// Better reports whether score a ranks before score b.
func (m Metric) Better(a, b float32) bool {
	if m == L2 {
		return a < b
	}
	return a > b
}

// score turns a distance, by which every search orders ascending, into the
// metric's value; it is its own inverse.
func (m Metric) score(d float32) float32 {
	if m == L2 {
		return d
	}
	return 0 - d // which makes no -0 of a 0
}

// MaxNorm is the largest Euclidean norm a vector may have: beyond it squared
// distances between such vectors would overflow a float32.
const MaxNorm = 1e18

// CheckVector returns an error that says what is wrong with v as a row or a
// query under m: a component that is not finite, a norm above [MaxNorm], or a
// zero vector under cosine. The error's text completes a sentence about v.
func (m Metric) CheckVector(v []float32) error {
	var sum float64
	for i, x := range v {
		f := float64(x)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return &VectorError{Position: i, Value: f}
		}
		sum += f * f
	}
	if norm := math.Sqrt(sum); norm > MaxNorm {
		return &VectorError{Position: -1, Value: norm}
	} else if m == Cosine && (norm == 0 || norm < minCosineNorm) {
		return &VectorError{Position: -1, Value: norm}
	}
	return nil
}

// minCosineNorm is the least norm that can be scaled to 1 without losing digits
// to float32's subnormal range.
const minCosineNorm = 1e-30

// VectorError says why a vector cannot be indexed or asked for.
type VectorError struct {
	Position int     // the component at fault, or -1 when it is the norm
	Value    float64 // that component, or the norm
}

// Error implements error.
func (e *VectorError) Error() string {
	switch {
	case e.Position >= 0:
		return fmt.Sprintf("component %d is %v, want a finite number", e.Position, e.Value)
	case e.Value > MaxNorm:
		return fmt.Sprintf("norm is %.4g, want at most %g", e.Value, float64(MaxNorm))
	case e.Value == 0:
		return "is the zero vector, which has no cosine"
	}
	return fmt.Sprintf("norm is %.4g, want at least %g under cosine", e.Value, minCosineNorm)
}
