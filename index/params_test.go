package index_test

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

func anyParams(t *rapid.T) index.Params {
	m := rapid.IntRange(2, 128).Draw(t, "m")
	return index.Params{
		Metric:         rapid.SampledFrom(metrics).Draw(t, "metric"),
		M:              m,
		EfConstruction: rapid.IntRange(m, 10_000).Draw(t, "ef_construction"),
		Alpha:          rapid.Float32Range(1, 2).Draw(t, "alpha"),
		Seed:           rapid.Uint64().Draw(t, "seed"),
		Frozen:         rapid.Bool().Draw(t, "frozen"),
	}
}

func TestParamsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyParams(t)
		require.NoError(t, p.Validate())
		got, err := index.ParseParams(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	})
}

func TestParamsText(t *testing.T) {
	assert.Equal(t, "metric=dot m=16 ef_construction=200 alpha=1.1 seed=0 frozen=false", index.DefaultParams(index.Dot).String())
	p, err := index.ParseParams("\tseed=18446744073709551615 alpha=2  metric=l2\nm=2 frozen=true ef_construction=2 ")
	require.NoError(t, err)
	assert.Equal(t, index.Params{Metric: index.L2, M: 2, EfConstruction: 2, Alpha: 2, Seed: math.MaxUint64, Frozen: true}, p)
}

func TestParamsInvalid(t *testing.T) {
	nan := float32(math.NaN())
	for _, tt := range []struct {
		change func(*index.Params)
		text   string
	}{
		{func(p *index.Params) { p.Metric = 0 }, "metric is metric(0), want dot, cosine or l2"},
		{func(p *index.Params) { p.Metric = 4 }, "metric is metric(4), want dot, cosine or l2"},
		{func(p *index.Params) { p.M = 1 }, "m is 1, want 2 to 128"},
		{func(p *index.Params) { p.M = 129 }, "m is 129, want 2 to 128"},
		{func(p *index.Params) { p.EfConstruction = 15 }, "ef_construction is 15, want m (16) to 10000"},
		{func(p *index.Params) { p.EfConstruction = 10_001 }, "ef_construction is 10001, want m (16) to 10000"},
		{func(p *index.Params) { p.Alpha = 0.99 }, "alpha is 0.99, want 1 to 2"},
		{func(p *index.Params) { p.Alpha = 2.5 }, "alpha is 2.5, want 1 to 2"},
		{func(p *index.Params) { p.Alpha = nan }, "alpha is NaN, want 1 to 2"},
	} {
		p := index.DefaultParams(index.Dot)
		tt.change(&p)
		require.EqualError(t, p.Validate(), tt.text)
		_, err := index.ParseParams(p.String())
		require.Error(t, err, p.String())
		_, err = index.Build(t.Context(), index.Input{Vectors: matrix(t, 2, nil)}, p)
		require.EqualError(t, err, tt.text)
	}
}

func TestParseParamsInvalid(t *testing.T) {
	good := "metric=dot m=16 ef_construction=200 alpha=1.1 seed=0 frozen=false"
	for _, tt := range []struct{ text, err string }{
		{"", "parameter metric is missing"},
		{"metric=dot", "parameter m is missing"},
		{strings.Replace(good, " seed=0", "", 1), "parameter seed is missing"},
		{good + " seed=0 frozen=false", "parameter seed is set twice"},
		{good + " colour=red", `unknown parameter "colour"`},
		{good + " junk", `unknown parameter "junk"`},
		{strings.Replace(good, "dot", "manhattan", 1), `metric "manhattan": want dot, cosine or l2`},
		{strings.Replace(good, "m=16", "m=", 1), `parameter "m="`},
		{strings.Replace(good, "200", "2e2", 1), `parameter "ef_construction=2e2"`},
		{strings.Replace(good, "1.1", "NaN", 1), "alpha is NaN, want 1 to 2"},
		{strings.Replace(good, "seed=0", "seed=-1", 1), `parameter "seed=-1"`},
		{strings.Replace(good, "m=16", "m=1000", 1), "m is 1000, want 2 to 128"},
	} {
		_, err := index.ParseParams(tt.text)
		require.ErrorContains(t, err, tt.err, tt.text)
	}
}

func FuzzParseParams(f *testing.F) {
	f.Add(index.DefaultParams(index.Dot).String())
	f.Add("metric=l2 m=2 ef_construction=2 alpha=2 seed=1 frozen=true")
	f.Add("metric= m m= =")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := index.ParseParams(text)
		if err != nil {
			return
		}
		require.NoError(t, p.Validate())
		again, err := index.ParseParams(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}

func TestMetricText(t *testing.T) {
	for _, m := range metrics {
		text, err := m.MarshalText()
		require.NoError(t, err)
		assert.Equal(t, m.String(), string(text))
		var got index.Metric
		require.NoError(t, got.UnmarshalText(text))
		assert.Equal(t, m, got)
	}
	var zero index.Metric
	_, err := zero.MarshalText()
	require.EqualError(t, err, "metric 0 is unknown")
	require.Error(t, zero.UnmarshalText([]byte("")))
	require.Error(t, zero.UnmarshalText([]byte("DOT")))

	assert.True(t, index.Dot.Better(2, 1))
	assert.True(t, index.Cosine.Better(2, 1))
	assert.True(t, index.L2.Better(1, 2))
	assert.False(t, index.L2.Better(1, 1))
}

func TestCheckVector(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, tt := range []struct {
		metric index.Metric
		vector []float32
		text   string
	}{
		{index.Dot, []float32{1, 2}, ""},
		{index.Dot, []float32{0, 0}, ""},
		{index.L2, []float32{0, 0}, ""},
		{index.L2, []float32{1e18, 0}, ""},
		{index.Cosine, []float32{1e-29, 0}, ""},
		{index.Dot, []float32{0, nan}, "component 1 is NaN, want a finite number"},
		{index.L2, []float32{inf, nan}, "component 0 is +Inf, want a finite number"},
		{index.Cosine, []float32{0, -inf}, "component 1 is -Inf, want a finite number"},
		{index.Dot, []float32{1e18, 1e18}, "norm is 1.41"},
		{index.L2, []float32{math.MaxFloat32, 0}, "norm is 3.4"},
		{index.Cosine, []float32{0, 0}, "is the zero vector, which has no cosine"},
		{index.Cosine, []float32{1e-31, 0}, "want at least 1e-30 under cosine"},
	} {
		err := tt.metric.CheckVector(tt.vector)
		if tt.text == "" {
			require.NoError(t, err, tt.vector)
			continue
		}
		require.ErrorContains(t, err, tt.text, tt.vector)
		var vector *index.VectorError
		require.ErrorAs(t, err, &vector)
	}
}

func TestMatrix(t *testing.T) {
	for _, dim := range []int{0, -1, index.MaxDim + 1} {
		_, err := index.NewMatrix(dim, 1)
		require.ErrorContains(t, err, "want 1 to 65536")
	}
	m, err := index.NewMatrix(3, 0)
	require.NoError(t, err)
	require.EqualError(t, m.Append([]float32{1, 2}), "vector has 2 components, want 3")
	assert.Equal(t, 0, m.Rows())
	negativeZero := float32(math.Copysign(0, -1))
	require.NoError(t, m.Append([]float32{1, negativeZero, 3}))
	require.NoError(t, m.Append([]float32{4, 5, 6}))
	assert.Equal(t, 2, m.Rows())
	assert.Equal(t, 3, m.Dim())
	assert.Equal(t, []float32{4, 5, 6}, m.Row(1))
	assert.Equal(t, uint32(0), math.Float32bits(m.Row(0)[1]), "negative zeros become zeros")
}
