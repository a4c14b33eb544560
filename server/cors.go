package server

import (
	"net/http"
	"time"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"

	"github.com/tandem-ann/tandem/server/traces"
)

// preflightAge is how long a browser remembers what it may send. Chromium takes no longer.
const preflightAge = 2 * time.Hour

// shared lets scripts of pages from the origins send requests and read the answers, as
// Cross-Origin Resource Sharing has it. Without origins it does nothing.
func shared(next http.Handler, origins []string) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: connectcors.AllowedMethods(),
		AllowedHeaders: append(connectcors.AllowedHeaders(), RequestIDHeader, traces.ParentHeader, traces.StateHeader, "Authorization", PriorityHeader),
		ExposedHeaders: append(connectcors.ExposedHeaders(), RequestIDHeader, StaleHeader, traces.ResponseHeader, "Retry-After"),
		MaxAge:         int(preflightAge.Seconds()),
	}).Handler(next)
}
