package client_test

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/api/client"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// BenchmarkCall compares a call with one of the library below, over a real connection; cpu-us is what
// client and server take together, of which the server in memory is a part that is the same.
func BenchmarkCall(b *testing.B) {
	s := towers(b, 20)
	for _, http2 := range []bool{false, true} {
		name, options := "HTTP1", []client.Option{client.WithProbes(0)}
		if http2 {
			name, options = "HTTP2", append(options, client.WithHTTP2())
		}
		measure := func(b *testing.B, call func() error) {
			b.ReportAllocs()
			require.NoError(b, call())
			start := cpu(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := call(); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64((cpu(b)-start).Microseconds())/float64(b.N), "cpu-us/op")
		}
		b.Run(name+"/connect", func(b *testing.B) {
			n := listen(b, s)
			t := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, MaxIdleConnsPerHost: 256}
			t.Protocols.SetHTTP1(!http2)
			t.Protocols.SetUnencryptedHTTP2(http2)
			defer t.CloseIdleConnections()
			bare := tandemv1connect.NewRetrievalServiceClient(&http.Client{Transport: t}, n.URL, connect.WithAcceptCompression("gzip", nil, nil))
			measure(b, func() error {
				_, err := bare.Retrieve(b.Context(), connect.NewRequest(query("user-001", 10)))
				return err
			})
		})
		b.Run(name+"/client", func(b *testing.B) {
			c := newClient(b, client.Addresses(listen(b, s).address()), append(options, client.WithDeadline(time.Minute))...)
			measure(b, func() error { _, err := c.Retrieve(b.Context(), query("user-001", 10)); return err })
		})
	}
}

// cpu is the CPU time of this process.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
