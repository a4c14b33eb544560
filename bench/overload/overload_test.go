package overload

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestJudge finds each bound that is broken, by itself.
func TestJudge(t *testing.T) {
	good := func() *Report {
		return &Report{
			Factor: 2, Deadline: 1, Capacity: 1000, CPU: 0.001,
			Overload: Sent{Rate: 2000, Seconds: 10, Times: Times{Count: 9500, P99: 300_000}},
			Refusals: Times{Count: 500, P50: 100, P99: 900},
			Alone:    Sent{Rate: 300, Seconds: 10, Times: Times{Count: 3000, P99: 2000}},
			Beside:   Sent{Rate: 300, Seconds: 10, Times: Times{Count: 3000, P99: 2500}},
		}
	}
	r := good()
	r.judge()
	require.Empty(t, r.Broken)
	var table bytes.Buffer
	require.NoError(t, r.WriteTable(&table))
	require.Contains(t, table.String(), "95.0% of the capacity")
	for want, breaks := range map[string]func(*Report){
		"goodput is 80% of the capacity, want at least 90%":                                                                                                              func(r *Report) { r.Overload.Count = 8000 },
		"refusals take up to 5.10 ms in the server (99th percentile), want 5 ms":                                                                                         func(r *Report) { r.Refusals.P99 = 5100 },
		"the log tells of 9 refusals, want at least 100 to know how long they take":                                                                                      func(r *Report) { r.Refusals.Count = 9 },
		"beside a caller at 10 times its quota the 99th percentile is 2.00 times that without, want 1.5":                                                                 func(r *Report) { r.Beside.P99 = 4000 },
		"beside a caller at 10 times its quota 31 queries of another were refused":                                                                                       func(r *Report) { r.Beside.Refused.Count = 31 },
		"the sender was up to 150 ms behind its times (99th percentile): it had too much to do, or its processor not to itself, and what was measured is not the server": func(r *Report) { r.Beside.Lag.P99 = 150_000 },
	} {
		r := good()
		breaks(r)
		r.judge()
		require.Equal(t, []string{want}, r.Broken)
	}
}

func TestOptions(t *testing.T) {
	o := Options{Serve: func(string) []string { return nil }, Users: []string{"u"}}
	require.NoError(t, o.Validate())
	for want, breaks := range map[string]func(*Options){
		"serve is missing":                         func(o *Options) { o.Serve = nil },
		"there are no users to ask with":           func(o *Options) { o.Users = nil },
		"k is -1, want 1 to 10000":                 func(o *Options) { o.K = -1 },
		"factor is 1, want more than 1, up to 100": func(o *Options) { o.Factor = 1 },
		"time and deadline are 1ms and 1s, want at least a second, and more than 0": func(o *Options) { o.Time = time.Millisecond },
	} {
		o := o
		breaks(&o)
		require.EqualError(t, o.Validate(), want)
	}
}

// TestRefusals reads the log of a server.
func TestRefusals(t *testing.T) {
	var r refusals
	r.line([]byte(`{"msg":"request failed","code":"resource_exhausted","duration":1000000}`)) // before it counts
	r.reset()
	for _, line := range []string{
		`{"msg":"request failed","code":"resource_exhausted","duration":2000000}`,
		`{"msg":"request failed","code":"invalid_argument","duration":9000000}`,
		`{"msg":"ready"}`, `panic: no JSON`,
	} {
		r.line([]byte(line))
	}
	got := r.report()
	require.Equal(t, int64(1), got.Count)
	require.InDelta(t, 2000, got.P99, 10)
}
