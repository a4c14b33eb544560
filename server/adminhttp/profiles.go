package adminhttp

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"
)

// MaxProfile is how long a profile or a trace may take.
const MaxProfile = time.Minute

// maxTaken is how many profiles are taken at a time.
const maxTaken = 2

// profiles serves /debug/pprof/.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return bounded(mux)
}

// bounded bounds how long profiles take, and how many are taken at a time.
func bounded(next http.Handler) http.Handler {
	places := make(chan struct{}, maxTaken)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Package pprof takes them of the form too, so all are taken off the URL.
		if text := r.FormValue("seconds"); text != "" {
			seconds, err := strconv.ParseFloat(text, 64)
			if err != nil || !(seconds > 0 && seconds <= MaxProfile.Seconds()) {
				http.Error(w, fmt.Sprintf("seconds is %.20q; accepted: more than 0, up to %g", text, MaxProfile.Seconds()), http.StatusBadRequest)
				return
			}
		}
		select {
		case places <- struct{}{}:
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, fmt.Sprintf("%d profiles are being taken, as many as are accepted", maxTaken), http.StatusServiceUnavailable)
			return
		}
		defer func() { <-places }()
		next.ServeHTTP(w, r)
	})
}
