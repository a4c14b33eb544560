package server

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// slowBody is a body that takes its time to arrive.
type slowBody struct {
	io.Reader
	takes time.Duration
}

func (b *slowBody) Read(p []byte) (int, error) {
	time.Sleep(b.takes)
	b.takes = 0
	return b.Reader.Read(p)
}

// TestDurations: the log's durations have the time in which a message arrives, those of the
// items of a batch too.
func TestDurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		s := NewService(slog.New(slog.NewTextHandler(log, nil)))
		handler := NewHandler(s, Options{MaxBytesInFlight: 64 << 20})
		for method, body := range map[string]string{"Retrieve": `{"userId": "u1", "k": 1}`, "BatchRetrieve": `{"requests": [{"userId": "u1", "k": 1}]}`} {
			r := httptest.NewRequest(http.MethodPost, "/tandem.v1.RetrievalService/"+method, &slowBody{strings.NewReader(body), 3 * time.Second})
			r.Header.Set("Content-Type", "application/json")
			handler.ServeHTTP(httptest.NewRecorder(), r)
		}
		lines := log.lines()
		require.Len(t, lines, 2, "there is no snapshot")
		for _, line := range lines {
			require.Contains(t, line, " duration=3s ")
		}
	})
}
