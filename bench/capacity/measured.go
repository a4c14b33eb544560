package capacity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"github.com/tandem-ann/tandem/bench/capacity/tail"
	"github.com/tandem-ann/tandem/shard/wording"
)

// MeasuredVersion is the version of the form of [Measured].
const MeasuredVersion = 1

// Measured is what was measured of one machine, by tandem bench capacity measure. Times are
// microseconds of one processor, unless something else is said. The names of its JSON fields are stable.
type Measured struct {
	Version int `json:"version"`
	// Command is what has measured, and Machine the processor.
	Command    string `json:"command"`
	Machine    string `json:"machine"`
	Processors int    `json:"processors"`
	// Others is how many processors other programs have taken meanwhile, in the median.
	Others float64 `json:"others"`

	// Dim, K and Target are what all searches were of: K of the whole query.
	Dim    int     `json:"dim"`
	K      int     `json:"k"`
	Target float64 `json:"target"`
	// Searches are of one shard, in the process that measures, by rows and by how many rows are
	// asked for.
	Searches []Searched `json:"searches"`

	// Steps are what calls and queries take, by how often a process is asked: one that is asked
	// seldom takes more for each, since threads sleep meanwhile and caches are lost.
	Steps []Steps `json:"steps"`
	// Wake is how long a processor without work took to begin: quantiles, from the lowest to the
	// highest.
	Wake []float64 `json:"wake"`
	// Beside is the share of a processor that a process takes which is not asked.
	Beside float64 `json:"beside"`

	// NodeBytes and RouterBytes are what a process has in memory beside shards, while it is asked:
	// the program counts once for all who run it.
	NodeBytes   float64 `json:"node_bytes"`
	RouterBytes float64 `json:"router_bytes"`

	// Builds are builds of one shard of apps.
	Builds []Built `json:"builds"`
}

// Steps are what a process takes that is asked Rate times a second, in the mean.
type Steps struct {
	Rate float64 `json:"rate"`
	// NodeCall is what a search takes a node beside the search itself, and NodeLookup what the
	// vector of a user takes it. RouterCall is what each call takes a router, RouterQuery what
	// each query takes it beside, and Client what a query takes who asks.
	NodeCall    float64 `json:"node_call"`
	NodeLookup  float64 `json:"node_lookup"`
	RouterCall  float64 `json:"router_call"`
	RouterQuery float64 `json:"router_query"`
	Client      float64 `json:"client"`
}

// Searched is what searches of one shard took.
type Searched struct {
	Rows     int `json:"rows"`
	Asked    int `json:"asked"`
	Expected int `json:"expected"`
	// Times are quantiles, from the lowest to the highest.
	Times []float64 `json:"times"`
}

// Built is what a build took: of both towers, with the gates.
type Built struct {
	Apps  int `json:"apps"`
	Users int `json:"users"`
	// CPU is seconds of processors.
	CPU float64 `json:"cpu"`
}

// Bounds of what may be measured, above which a file was not made by a measurement.
const (
	maxMeasuredBytes = 4 << 20
	maxMeasuredTime  = 60e6
	maxList          = 1000
)

// ReadMeasured reads what WriteJSON of [Measured] wrote. An error names the field, the value and what
// is accepted.
func ReadMeasured(r io.Reader) (*Measured, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxMeasuredBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxMeasuredBytes {
		return nil, fmt.Errorf("it has more than %d bytes, want what tandem bench capacity measure writes", maxMeasuredBytes)
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("it is no JSON that tandem bench capacity measure writes: %w", err)
	}
	if version.Version != MeasuredVersion {
		return nil, fmt.Errorf("version is %d, want %d", version.Version, MeasuredVersion)
	}
	m := new(Measured)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("it is no JSON that tandem bench capacity measure writes: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m, nil
}

// Validate returns an error that names a field which no measurement gives.
func (m *Measured) Validate() error {
	for _, f := range []struct {
		name      string
		value     float64
		low, high float64
	}{
		{"processors", float64(m.Processors), 1, tail.MaxCores},
		{"others", m.Others, 0, tail.MaxCores},
		{"dim", float64(m.Dim), 1, maxDim},
		{"k", float64(m.K), 1, maxK},
		{"target", m.Target, 0.01, 1},
		{"the number of steps", float64(len(m.Steps)), 1, maxList},
		{"beside", m.Beside, 0, 0.9},
		{"node_bytes", m.NodeBytes, 0, 1 << 50},
		{"router_bytes", m.RouterBytes, 0, 1 << 50},
		{"the number of searches", float64(len(m.Searches)), 1, maxList},
		{"the number of builds", float64(len(m.Builds)), 1, maxList},
		{"the number of times of wake", float64(len(m.Wake)), 0, maxList},
	} {
		if !(f.value >= f.low && f.value <= f.high) { // NaN is neither
			return fmt.Errorf("%s is %v, want %v to %v", f.name, f.value, f.low, f.high)
		}
	}
	for i, s := range m.Steps {
		for _, v := range []float64{s.Rate, s.NodeCall, s.NodeLookup, s.RouterCall, s.RouterQuery, s.Client} {
			if !(v >= 0 && v <= maxMeasuredTime) {
				return fmt.Errorf("steps %d has %v, want 0 to %v", i, v, maxMeasuredTime)
			}
		}
		if s.Rate == 0 || i > 0 && s.Rate <= m.Steps[i-1].Rate {
			return fmt.Errorf("steps %d is of %v a second, want ascending rates above 0", i, s.Rate)
		}
	}
	for i, s := range m.Searches {
		if s.Rows < 1 || s.Asked < 1 || s.Expected < 1 || s.Rows > maxRows || s.Asked > maxK || s.Expected > s.Asked {
			return fmt.Errorf("search %d is of %d rows, asks for %d and expects %d, want 1 to %d rows, of which 1 to %d are asked for, and as many expected at most", i, s.Rows, s.Asked, s.Expected, maxRows, maxK)
		}
		if len(s.Times) < 2 || len(s.Times) > maxList {
			return fmt.Errorf("search %d has %d times, want 2 to %d", i, len(s.Times), maxList)
		}
		if err := tail.Times(s.Times).Validate(); err != nil {
			return fmt.Errorf("search %d: %w", i, err)
		}
		if s.Times[0] <= 0 || s.Times[len(s.Times)-1] > maxMeasuredTime {
			return fmt.Errorf("search %d takes %v to %v µs, want more than 0, up to %v", i, s.Times[0], s.Times[len(s.Times)-1], maxMeasuredTime)
		}
	}
	if err := tail.Times(m.Wake).Validate(); err != nil {
		return fmt.Errorf("wake: %w", err)
	}
	for i, b := range m.Builds {
		if b.Apps < 1 || b.Users < 1 || !(b.CPU > 0 && b.CPU < 1e9) {
			return fmt.Errorf("build %d is of %d apps and %d users in %v s, want more than 0 of each", i, b.Apps, b.Users, b.CPU)
		}
	}
	return nil
}

// at returns the steps of a process that is asked so often: between two rates by their logarithms,
// and beyond the last ones as they are.
func (m *Measured) at(rate float64) Steps {
	i := 0
	for i < len(m.Steps) && m.Steps[i].Rate < rate {
		i++
	}
	if i == 0 || i == len(m.Steps) {
		return m.Steps[min(i, len(m.Steps)-1)]
	}
	a, b := &m.Steps[i-1], &m.Steps[i]
	part := math.Log(rate/a.Rate) / math.Log(b.Rate/a.Rate)
	mix := func(a, b float64) float64 { return a + (b-a)*part }
	return Steps{rate, mix(a.NodeCall, b.NodeCall), mix(a.NodeLookup, b.NodeLookup), mix(a.RouterCall, b.RouterCall), mix(a.RouterQuery, b.RouterQuery), mix(a.Client, b.Client)}
}

// near returns the search that is nearest to what is wanted, by the logarithms of rows and of what
// is expected: that from which others are extrapolated.
func (m *Measured) near(rows, expected float64) *Searched {
	best, least := &m.Searches[0], math.Inf(1)
	for i := range m.Searches {
		s := &m.Searches[i]
		d := math.Abs(math.Log(rows/float64(s.Rows))) + 3*math.Abs(math.Log(expected/float64(s.Expected)))
		if d < least {
			best, least = s, d
		}
	}
	return best
}

// exponents returns by which powers of rows and of what is expected the mean time of a search grows:
// the least squares of logarithms. What was not measured at several sizes has none (NaN).
func (m *Measured) exponents() (rows, expected float64) {
	var x, y, z []float64
	for _, s := range m.Searches {
		x = append(x, math.Log(float64(s.Rows)))
		y = append(y, math.Log(float64(s.Expected)))
		z = append(z, math.Log(tail.Times(s.Times).Mean()))
	}
	dot := func(a, b []float64) float64 {
		var ma, mb, sum float64
		for i := range a {
			ma, mb = ma+a[i]/float64(len(a)), mb+b[i]/float64(len(b))
		}
		for i := range a {
			sum += (a[i] - ma) * (b[i] - mb)
		}
		return sum
	}
	xx, yy, xy, xz, yz := dot(x, x), dot(y, y), dot(x, y), dot(x, z), dot(y, z)
	det := xx*yy - xy*xy
	switch {
	case det > 1e-9:
		return (xz*yy - yz*xy) / det, (yz*xx - xz*xy) / det
	case xx > 1e-9:
		return xz / xx, math.NaN()
	case yy > 1e-9:
		return math.NaN(), yz / yy
	}
	return math.NaN(), math.NaN()
}

// buildExponent returns by which power of rows the time of a build grows, NaN if only one size was
// built.
func (m *Measured) buildExponent() float64 {
	low, high := m.Builds[0], m.Builds[0]
	for _, b := range m.Builds {
		if b.Apps+b.Users < low.Apps+low.Users {
			low = b
		}
		if b.Apps+b.Users > high.Apps+high.Users {
			high = b
		}
	}
	if high.Apps+high.Users == low.Apps+low.Users {
		return math.NaN()
	}
	return math.Log(high.CPU/low.CPU) / math.Log(float64(high.Apps+high.Users)/float64(low.Apps+low.Users))
}

// WriteJSON writes what [ReadMeasured] reads.
func (m *Measured) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, m) }
