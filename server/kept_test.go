package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
)

// TestKeptRefusals compares what is kept with what Connect writes, for each kind of request: the
// first time, and again.
func TestKeptRefusals(t *testing.T) {
	plain := connect.NewErrorWriter()
	kept := &refusals{errors: plain}
	wait := func() *connect.Error { return overloaded(events.ShedWait, "requests wait for 30ms") }
	quota := func() *connect.Error {
		return quotaError(&auth.ExceededError{Caller: `a "b"`, Quota: auth.Quota{CPU: 0.5}, InTime: true, Retry: 1234 * time.Millisecond})
	}
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		for _, kind := range append(refusalForms[:], "application/connect+proto", "application/grpc+json", "Application/Proto", "text/plain", "") {
			for i, build := range []func() *connect.Error{wait, quota} {
				request := func() *http.Request {
					r := httptest.NewRequest(method, "/tandem.v1.RetrievalService/Retrieve", strings.NewReader("body"))
					r.Header.Set("Content-Type", kind)
					return r
				}
				want := httptest.NewRecorder()
				require.NoError(t, plain.Write(want, request(), build()))
				announced := strings.Split(want.Header().Get("Trailer"), ",") // in no order
				want.Header().Del("Trailer")
				for range 3 {
					got := httptest.NewRecorder()
					kept.refuse(got, request(), refusalKey{said: time.Duration(i)}, build)
					require.Equal(t, want.Code, got.Code)
					require.Equal(t, want.Body.String(), got.Body.String())
					require.ElementsMatch(t, announced, strings.Split(got.Header().Get("Trailer"), ","))
					got.Header().Del("Trailer")
					require.Equal(t, want.Header(), got.Header(), "%s %s", method, kind)
					require.Equal(t, want.Result().Trailer, got.Result().Trailer)
					got.Header()["Retry-After"] = append(got.Header()["Retry-After"], "changed by one caller")
				}
			}
		}
	}
}

// TestKeptRefusalsAreBounded holds that errors of ever other callers are not all kept.
func TestKeptRefusalsAreBounded(t *testing.T) {
	kept := &refusals{errors: connect.NewErrorWriter()}
	for i := range 3 * mostRefusals {
		caller := fmt.Sprint(i)
		r := httptest.NewRequest(http.MethodPost, "/tandem.v1.RetrievalService/Retrieve", nil)
		r.Header.Set("Content-Type", "application/proto")
		w := httptest.NewRecorder()
		kept.refuse(w, r, refusalKey{caller: caller}, func() *connect.Error { return quotaError(&auth.ExceededError{Caller: caller}) })
		require.Contains(t, w.Body.String(), fmt.Sprintf(`caller \"%d\" has`, i))
		require.LessOrEqual(t, len(kept.kept), mostRefusals)
	}
}

func TestCoarse(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		0: 0, 1: time.Millisecond, time.Millisecond: time.Millisecond, 99500 * time.Microsecond: 100 * time.Millisecond,
		101 * time.Millisecond: 110 * time.Millisecond, 1001 * time.Millisecond: 1100 * time.Millisecond,
		10 * time.Second: 10 * time.Second, 10001 * time.Millisecond: 11 * time.Second,
	} {
		require.Equal(t, want, coarse(d), d)
	}
}
