package server

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

// TestWhateverIsSent sends any bodies with any headers to any method, by all protocols:
// that is never the fault of the server, and each error has a name and details.
func TestWhateverIsSent(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{})
	c.Live = writes()
	s := serve(t, followed(t, c), Options{MaxMessageBytes: 1000})
	paths := []string{
		retrievePath, "/tandem.v1.RetrievalService/BatchRetrieve", "/tandem.v1.RetrievalService/GetEmbeddings", "/tandem.v1.RetrievalService/%FF",
		"/tandem.v1.LiveService/Write", "/tandem.v1.LiveService/Import", "/tandem.v1.LiveService/Prove", "/tandem.v1.LiveService/GetLiveStatus", "/tandem.v1.AdminService/GetStatus", checkPath, watchPath, "/grpc.health.v1.Health/%C0", reflectPath, reflectOldPath, "/healthz", "/%80",
	}
	kinds := []string{
		"application/grpc", "application/grpc+json", "application/grpc-web", "application/grpc-web+json", "application/grpc-web-text",
		"application/json", "application/proto", "application/connect+json", "application/connect+proto", "text/plain", "application/grpc+x",
	}
	headers := []string{"Grpc-Encoding", "Content-Encoding", "Connect-Content-Encoding", "Grpc-Timeout", "Connect-Timeout-Ms", "Connect-Protocol-Version", "Grpc-Accept-Encoding", "Accept-Encoding"}
	values := []string{"gzip", "zstd", "identity", "br", "1", "5S", "0", "\x80", strings.Repeat("9", 30), "trailers"}
	messages := []string{`{"userId":"u1","k":1}`, `{"events":[{"takedown":{"app":"a1","reason":"r"}}]}`, `{"apps":["a1",""]}`, "\x0a\x09\x12\x07\x0a\x02a1\x12\x01r", `{}`, `{"service":"s"}`, "\x0a\x02u1\x30\x01", "", "\xff\xff\xff", "\x0a\xff\xff\xff\xff\x0f", strings.Repeat(" ", 2000), "\x1f\x8b\x08", "\x28\xb5\x2f\xfd"}
	rapid.Check(t, func(rt *rapid.T) {
		var body []byte
		message := rapid.SampledFrom(messages)
		if rapid.Bool().Draw(rt, "enveloped") {
			for range rapid.IntRange(0, 3).Draw(rt, "messages") {
				m := message.Draw(rt, "message")
				flags := rapid.SampledFrom([]byte{0, 0, 0, 1, 2, 0x80, 0xff}).Draw(rt, "flags")
				size := max(len(m)+rapid.SampledFrom([]int{0, 0, 0, 1, -1, 1 << 20}).Draw(rt, "lie"), 0)
				body = append(body, flags, byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
				body = append(body, m...)
			}
			body = body[:len(body)-rapid.IntRange(0, min(len(body), 6)).Draw(rt, "cut")]
		} else {
			body = []byte(message.Draw(rt, "message"))
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+rapid.SampledFrom(paths).Draw(rt, "path"), bytes.NewReader(body))
		require.NoError(rt, err)
		kind := rapid.SampledFrom(kinds).Draw(rt, "kind")
		r.Header.Set("Content-Type", kind)
		r.Header.Set(RequestIDHeader, "any-1")
		for range rapid.IntRange(0, 2).Draw(rt, "headers") {
			r.Header.Set(rapid.SampledFrom(headers).Draw(rt, "header"), rapid.SampledFrom(values).Draw(rt, "value"))
		}
		client := s.http2
		if rapid.Bool().Draw(rt, "http1") {
			client = s.http1
		}
		response, err := client.Do(r)
		require.NoError(rt, err)
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		require.NoError(rt, err)
		require.Equal(rt, "any-1", response.Header.Get(RequestIDHeader))
		require.Less(rt, response.StatusCode, 600)
		require.NotEqual(rt, http.StatusInternalServerError, response.StatusCode, "%s", data)
		status := response.Header.Get("Grpc-Status") + response.Trailer.Get("Grpc-Status")
		details := response.Header.Get("Grpc-Status-Details-Bin") + response.Trailer.Get("Grpc-Status-Details-Bin")
		text := response.Header.Get("Grpc-Message") + response.Trailer.Get("Grpc-Message")
		if strings.HasPrefix(kind, "application/grpc-web") && status == "" {
			_, block, _ := bytes.Cut(data, []byte("grpc-status: "))
			if len(block) > 0 {
				status, _, _ = strings.Cut(string(block), "\r\n")
				details = string(data) // they are in there
			}
		}
		switch status {
		case "", "0":
			if bytes.Contains(data, []byte(`"code":"deadline_exceeded"`)) {
				break // Connect may see it before any of our code, at health
			}
			if bytes.Contains(data, []byte(`"code":"`)) {
				require.Contains(rt, string(data), "google.rpc.ErrorInfo")
				require.NotContains(rt, string(data), `"code":"internal"`)
				require.NotContains(rt, string(data), `"code":"unknown"`)
			} else {
				require.Equal(rt, http.StatusOK, response.StatusCode, "%s", data)
			}
		case "4": // so here
		case "2", "13":
			require.Fail(rt, "it is the caller's fault", "status %s: %s", status, text)
		default:
			require.NotEmpty(rt, details, "status %s: %s", status, text)
		}
	})
}
