package server

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBytesAfterMessages: what is after a compressed message is told from a message that
// ends too early, where that can be told.
func TestBytesAfterMessages(t *testing.T) {
	s, _ := serveLogged(t, Options{})
	const message = `{"userId": "u1", "k": 1}`
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := io.WriteString(w, message)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	encoder, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	defer encoder.Close()
	for encoding, body := range map[string]string{"gzip": zipped.String(), "zstd": string(encoder.EncodeAll([]byte(message), nil))} {
		post := func(body string) reply {
			r, err := http.NewRequest(http.MethodPost, s.url+retrievePath, strings.NewReader(body))
			require.NoError(t, err)
			return s.do(t, r, "Content-Type", "application/json", "Content-Encoding", encoding)
		}
		require.Equal(t, http.StatusOK, post(body).status)
		for rest, why := range map[string]string{
			"junk that is longer than a header": "bytes are after it that are not " + encoding,
			"x":                                 "it ends too early, or bytes are after it that are not " + encoding,
		} {
			got := post(body + rest)
			require.Equal(t, http.StatusBadRequest, got.status)
			require.Equal(t, "the message cannot be decompressed as "+encoding+": "+why, got.json["message"])
		}
	}
}

// A few KB that stand for hundreds of MiB take no more memory than the limit, however they
// arrive: Connect hands a decompressor a buffer.
func TestBombs(t *testing.T) {
	const limit, size = 1 << 20, 256 << 20
	zeros := make([]byte, size)
	var inGzip bytes.Buffer
	w := gzip.NewWriter(&inGzip)
	_, err := w.Write(zeros)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	require.NoError(t, err)
	inZstd := bytes.NewBuffer(encoder.EncodeAll(zeros, nil))
	require.Less(t, inZstd.Len(), 128<<10, "what is as small as this the decoder would decode at once")
	for name, test := range map[string]struct {
		source source
		body   *bytes.Buffer
	}{"gzip": {new(gzip.Reader), &inGzip}, "zstd": {newZstdReader(), inZstd}} {
		t.Run(name, func(t *testing.T) {
			d := &decompressor{source: test.source, name: name, limit: limit}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			require.NoError(t, d.Reset(test.body))
			_, err := io.Copy(io.Discard, d)
			runtime.ReadMemStats(&after)
			assert.ErrorContains(t, err, "accepted: up to 1048576")
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
			require.NoError(t, d.Close())
		})
	}
}
