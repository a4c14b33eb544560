package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// bitWriter writes bits as deflate has them.
type bitWriter struct {
	data []byte
	bits int
}

func (w *bitWriter) put(value uint64, bits int) {
	for i := range bits {
		if w.bits%8 == 0 {
			w.data = append(w.data, 0)
		}
		w.data[w.bits/8] |= byte(value>>i&1) << (w.bits % 8)
		w.bits++
	}
}

// putEmptyBlock writes a block of deflate that has codes of its own, and nothing else. Few
// bytes take longer to decompress.
func (w *bitWriter) putEmptyBlock() {
	w.put(0b10_0, 3) // one that is not the last, with codes
	w.put(0, 5+5)    // as few as may be, for texts and for distances
	w.put(18-4, 4)   // whose lengths have codes for 18 lengths:
	w.put(0, 2*3)
	w.put(1, 3) // of many zeros
	w.put(0, 14*3)
	w.put(1, 3) // and of 1
	const one, zeros = 0, 1
	w.put(one, 1) // a byte 0
	w.put(zeros, 1)
	w.put(138-11, 7)
	w.put(zeros, 1)
	w.put(117-11, 7)
	w.put(one, 1) // the end of the block
	w.put(one, 1) // the distance 1
	w.put(1, 1)   // the end
}

// longPacked returns bodies of up to so many bytes that take long to decompress.
func longPacked(tb testing.TB, size int) map[string][]byte {
	var member bytes.Buffer
	require.NoError(tb, gzip.NewWriter(&member).Close())
	w := bitWriter{data: bytes.Clone(member.Bytes()[:10]), bits: 80}
	for len(w.data) < size-100 {
		w.putEmptyBlock()
	}
	encoder, err := zstd.NewWriter(nil)
	require.NoError(tb, err)
	defer func() { require.NoError(tb, encoder.Close()) }()
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0x58}
	return map[string][]byte{
		"gzip codes":   w.data,
		"gzip stored":  append(bytes.Clone(member.Bytes()[:10]), bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, size/5-2)...),
		"gzip members": bytes.Repeat(member.Bytes(), size/member.Len()),
		"zstd blocks":  append(frame, bytes.Repeat([]byte{0, 0, 0}, size/3-2)...),
		"zstd skipped": bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, size/8),
		"zstd zeros":   encoder.EncodeAll(make([]byte, DefaultMaxMessageBytes), nil),
	}
}

// TestInflatingEndsAnywhere ends the context of requests while their bodies are
// decompressed: what has no output ends too.
func TestInflatingEndsAnywhere(t *testing.T) {
	const size = 256 << 10
	random := rand.New(rand.NewPCG(1, 2))
	_, l := newHandler(smallTowers(index.Dot).loaded(t), Options{})
	for name, data := range longPacked(t, size) {
		inflate := func(ctx context.Context) error {
			c := &call{Context: ctx, limits: l, data: bytes.Clone(data)}
			defer c.end()
			c.packed, _, _ = strings.Cut(name, " ")
			return c.inflate(ctx)
		}
		all := &looks{Context: t.Context()}
		_ = inflate(all) // some break off
		total := all.n.Load()
		require.GreaterOrEqual(t, total, int64(size/2/4096), name)
		for _, ends := range []int64{1, 1 + random.Int64N(total-1), total - 1} {
			l := &looks{Context: t.Context(), ends: ends}
			require.Equal(t, context.DeadlineExceeded, inflate(l), "%s: after %d of %d looks", name, ends, total)
			require.LessOrEqual(t, l.n.Load(), ends+3, "%s: it went on", name)
		}
	}
}

// TestAnswersAreCompressedAsRequests: what a request is compressed with its answer is too,
// whatever else its caller accepts.
func TestAnswersAreCompressedAsRequests(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	ask := []byte(`{"userId": "u1", "k": 200, "attributes": ["*"]}`)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write(ask)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	encoder, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	for encoding, body := range map[string][]byte{"gzip": zipped.Bytes(), "zstd": encoder.EncodeAll(ask, nil), "identity": ask} {
		got := s.post(t, "Retrieve", string(body), "Content-Encoding", encoding, "Accept-Encoding", "br")
		require.Equal(t, http.StatusOK, got.status, "%s", got.body)
		require.Equal(t, strings.TrimPrefix(encoding, "identity"), got.header.Get("Content-Encoding"))
		for name, message := range map[string]url.Values{
			"base64":        {"base64": {"1"}, "message": {base64.RawURLEncoding.EncodeToString(body)}},
			"padded base64": {"base64": {"1"}, "message": {base64.URLEncoding.EncodeToString(body)}},
			"bytes":         {"message": {string(body)}},
		} {
			message.Set("encoding", "json")
			message.Set("compression", encoding)
			inURL := s.get(t, retrievePath+"?"+message.Encode(), "Accept-Encoding", "br")
			require.Equal(t, http.StatusOK, inURL.status, "%s of %s: %s", name, encoding, inURL.body)
			require.Equal(t, got.header.Get("Content-Encoding"), inURL.header.Get("Content-Encoding"))
			plain := gunzip(t, inURL)
			require.Len(t, plain["candidates"], 60, "%s of %s", name, encoding)
		}
	}
	require.NoError(t, encoder.Close())
}

// gunzip returns the JSON of an answer.
func gunzip(t *testing.T, got reply) (m map[string]any) {
	var r io.Reader = bytes.NewReader(got.body)
	var err error
	switch got.header.Get("Content-Encoding") {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r)
	}
	require.NoError(t, err)
	require.NoError(t, json.NewDecoder(r).Decode(&m))
	return m
}

// BenchmarkInflating decompresses the longest bodies.
func BenchmarkInflating(b *testing.B) {
	_, l := newHandler(smallTowers(index.Dot).loaded(b), Options{})
	for name, data := range longPacked(b, DefaultMaxMessageBytes) {
		b.Run(name, func(b *testing.B) {
			start, timed := processorTime(), &timedLooks{Context: b.Context()}
			for b.Loop() {
				c := &call{Context: timed, limits: l, data: bytes.Clone(data)}
				c.packed, _, _ = strings.Cut(name, " ")
				timed.last = processorTime()
				_ = c.inflate(timed) // some break off
				_ = timed.Err()
				c.end()
			}
			b.ReportMetric(float64((processorTime()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(timed.longest.Microseconds())/1000, "cpu-ms/look")
		})
	}
}
