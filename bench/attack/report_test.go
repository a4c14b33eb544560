package attack

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func fine() *Report {
	light := func() *Light {
		return &Light{Queries: 100, Errors: map[string]int64{}, P50: 1000, P99: 2000, Max: 3000}
	}
	r := &Report{
		Before: light(), During: light(), After: light(), MemoryBefore: 100 << 20, MemoryPeak: 900 << 20, MemoryAfter: 105 << 20, MaxMemory: 1 << 30,
		Sent: Sent{Seed: 1, Seconds: 60, Kinds: []KindSent{{Name: "batch", Turns: 5, Outcomes: map[string]int64{"ok": 3, "resource_exhausted": 9}, LongestError: 200}}},
	}
	r.During.P99, r.During.Errors["resource_exhausted"] = 19_000, 50
	return r
}

// Each bound that is broken is told, and no other.
func TestJudge(t *testing.T) {
	for want, change := range map[string]func(*Report){
		"": func(*Report) {},
		"the server ended by itself (signal: killed)":                                                                  func(r *Report) { r.Ended = "the server ended by itself (signal: killed)" },
		"the server took 1025.0 MiB of memory, more than 1024.0 MiB":                                                   func(r *Report) { r.MemoryPeak = 1025 << 20 },
		"after the attack the server had 120.0 MiB of memory, 1.20 times the 100.0 MiB of before, more than 1.1 times": func(r *Report) { r.MemoryAfter = 120 << 20 },
		"the light queries' p99 was 10.5 times that without attackers, more than 10 times":                             func(r *Report) { r.During.P99 = 21_000 },
		"2 of 100 light queries during failed but for overload: unavailable: gone":                                     func(r *Report) { r.During.Errors["unavailable"], r.During.FirstError = 2, "unavailable: gone" },
		"1 of 100 light queries after failed but for overload: internal":                                               func(r *Report) { r.After.Errors["internal"], r.After.FirstError = 1, "internal" },
		"4 times batch was answered by internal":                                                                       func(r *Report) { r.Sent.Kinds[0].Outcomes["internal"] = 4 },
		"3 times batch was answered by http 500":                                                                       func(r *Report) { r.Sent.Kinds[0].Outcomes["http 500"] = 3 },
	} {
		r := fine()
		change(r)
		r.judge()
		var text bytes.Buffer
		require.NoError(t, r.WriteTable(&text))
		if want == "" {
			assert.Empty(t, r.Broken)
			assert.Contains(t, text.String(), "no bound was broken")
			continue
		}
		assert.Equal(t, []string{want}, r.Broken)
		assert.Contains(t, text.String(), "BROKEN: "+want)
	}
}

// A server that ended during the quiet phase has no other figures.
func TestReportOfAServerThatEnded(t *testing.T) {
	r := &Report{Ended: "the server ended by itself (exit status 2)", Before: &Light{Queries: 3}}
	r.judge()
	assert.Equal(t, []string{r.Ended}, r.Broken)
	require.NoError(t, r.WriteTable(new(bytes.Buffer)))
}
