package index

import (
	"fmt"
	"strconv"
	"strings"
)

// Params are what a build depends on beside the rows. They are stored in what
// they built, in the text form of [Params.String].
type Params struct {
	// Metric compares queries with rows.
	Metric Metric
	// M is the number of neighbours of a node in the upper layers; layer 0 has
	// up to 2M. 2 to 128.
	M int
	// EfConstruction is the pool size of the searches that insert a node. At
	// least M, at most 10,000.
	EfConstruction int
	// Alpha is the slack of the neighbour selection, 1 to 2: a candidate is
	// dropped when a kept neighbour is alpha times closer to it than the node. Half
	// the places of a list go first to what an alpha of 1 keeps.
	Alpha float32
	// Seed varies the levels and the order of insertion.
	Seed uint64
	// Frozen says that another library built the graph. M, EfConstruction and
	// Alpha then did not shape it. Build sets it.
	Frozen bool
}

// DefaultParams returns the parameters that suit most towers.
func DefaultParams(metric Metric) Params {
	return Params{Metric: metric, M: 16, EfConstruction: 200, Alpha: 1.1}
}

// Validate returns an error that names the parameter out of bounds.
func (p Params) Validate() error {
	switch {
	case !p.Metric.valid():
		return fmt.Errorf("metric is %v, want dot, cosine or l2", p.Metric)
	case p.M < 2 || p.M > 128:
		return fmt.Errorf("m is %d, want 2 to 128", p.M)
	case p.EfConstruction < p.M || p.EfConstruction > 10_000:
		return fmt.Errorf("ef_construction is %d, want m (%d) to 10000", p.EfConstruction, p.M)
	case !(p.Alpha >= 1 && p.Alpha <= 2):
		return fmt.Errorf("alpha is %v, want 1 to 2", p.Alpha)
	}
	return nil
}

// String returns the text form, which [ParseParams] reads.
func (p Params) String() string {
	return fmt.Sprintf("metric=%s m=%d ef_construction=%d alpha=%s seed=%d frozen=%t",
		p.Metric, p.M, p.EfConstruction, strconv.FormatFloat(float64(p.Alpha), 'g', -1, 32), p.Seed, p.Frozen)
}

// ParseParams reads the text form and validates it. Every key must occur once.
func ParseParams(text string) (Params, error) {
	var p Params
	seen := map[string]bool{}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		if seen[key] {
			return p, fmt.Errorf("parameter %s is set twice", key)
		}
		seen[key] = true
		var err error
		switch key {
		case "metric":
			err = p.Metric.UnmarshalText([]byte(value))
		case "m":
			p.M, err = strconv.Atoi(value)
		case "ef_construction":
			p.EfConstruction, err = strconv.Atoi(value)
		case "alpha":
			var f float64
			f, err = strconv.ParseFloat(value, 32)
			p.Alpha = float32(f)
		case "seed":
			p.Seed, err = strconv.ParseUint(value, 10, 64)
		case "frozen":
			p.Frozen, err = strconv.ParseBool(value)
		default:
			err = fmt.Errorf("unknown parameter %q", key)
		}
		if err != nil {
			return p, fmt.Errorf("parameter %q: %w", word, err)
		}
	}
	for _, key := range []string{"metric", "m", "ef_construction", "alpha", "seed", "frozen"} {
		if !seen[key] {
			return p, fmt.Errorf("parameter %s is missing", key)
		}
	}
	return p, p.Validate()
}
