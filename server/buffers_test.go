package server

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// TestBuffersProperty takes buffers and gives them back: nobody has a part of another's, none
// is much larger than was asked for, and no more is kept than may be.
func TestBuffersProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &buffers{most: rapid.IntRange(0, 1<<20).Draw(t, "most")}
		type taken struct {
			data []byte
			mark byte
		}
		var all []taken
		mark := byte(0)
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				n := rapid.IntRange(0, 300<<10).Draw(t, "n")
				mark++
				p := b.take(n)
				require.Empty(t, p)
				require.GreaterOrEqual(t, cap(p), n)
				require.LessOrEqual(t, cap(p), 3*max(smallestBuffer, n))
				all = append(all, taken{append(p, bytes.Repeat([]byte{mark}, n)...), mark})
			},
			"give": func(t *rapid.T) {
				if len(all) == 0 {
					return
				}
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				if rapid.Bool().Draw(t, "grown") {
					all[i].data = append(all[i].data, bytes.Repeat([]byte{all[i].mark}, 1000)...)
				}
				require.Empty(t, bytes.Trim(all[i].data, string([]byte{all[i].mark})))
				b.give(all[i].data)
				all = slices.Delete(all, i, i+1)
			},
			"trim": func(t *rapid.T) {
				b.trim()
				if rapid.Bool().Draw(t, "again") {
					b.trim()
					require.Zero(t, b.kept, "nobody has taken any meanwhile")
				}
			},
			"": func(t *rapid.T) {
				kept := 0
				for _, f := range b.free {
					for _, p := range f.list {
						kept += cap(p)
					}
				}
				require.Equal(t, kept, b.kept)
				require.LessOrEqual(t, kept, b.most)
			},
		})
	})
}

// TestBuffersKeepLarge: small buffers make room for a large one, and none for a small one.
func TestBuffersKeepLarge(t *testing.T) {
	b := &buffers{most: 1 << 20}
	for range 300 {
		b.give(make([]byte, 0, 4<<10))
	}
	require.Equal(t, 1<<20, b.kept)
	b.give(make([]byte, 0, 512<<10))
	require.Equal(t, 1<<20, b.kept)
	require.Len(t, b.free[0].list, 128)
	b.give(make([]byte, 0, 1<<20))
	b.give(make([]byte, 0, 4<<10))
	b.give(make([]byte, 0, 2<<20)) // never
	b.give(nil)
	require.Equal(t, 1<<20, b.kept)
	require.Equal(t, 1<<20, cap(b.take(800<<10)))
	require.Zero(t, b.kept)
}

// TestBuffersTrim: what is needed now and then stays.
func TestBuffersTrim(t *testing.T) {
	b := &buffers{most: 1 << 20}
	var two [][]byte
	for range 10 {
		b.give(make([]byte, 0, 8<<10))
	}
	for range 5 {
		b.trim()
		two = append(two, b.take(8<<10), b.take(8<<10))
		b.give(two[0])
		b.give(two[1])
		two = two[:0]
	}
	require.Equal(t, 16<<10, b.kept)
	b.trim()
	b.trim()
	require.Zero(t, b.kept)
}

// TestDecodedMessagesKeepNoBytes: the memory that a message was decoded from is another's
// afterwards.
func TestDecodedMessagesKeepNoBytes(t *testing.T) {
	for _, size := range []int{400, 20_000} {
		for _, long := range longMessages(256<<10, size) {
			form := keptWire
			if _, ok := long.codec.(jsonCodec); ok {
				form = keptJSON
			}
			data, m, want := bytes.Clone(long.data), proto.Clone(long.empty), proto.Clone(long.empty)
			err, wantErr := decodeFrom(t.Context(), form, data, m), decodeFrom(t.Context(), form, bytes.Clone(long.data), want)
			for i := range data {
				data[i] = '!'
			}
			require.Equal(t, wantErr, err, long.name)
			require.True(t, proto.Equal(want, m), long.name)
		}
	}
}

// TestLargeBodiesLeaveNoGarbage sends large bodies: after the first the memory of each is that
// of the one before.
func TestLargeBodiesLeaveNoGarbage(t *testing.T) {
	h, _ := newHandler(smallTowers(index.Dot).loaded(t), Options{Processors: 1, MaxDeadline: time.Hour})
	const size = 1 << 20
	message, err := proto.Marshal(&tandemv1.RetrieveRequest{UserId: "u1", K: 1})
	require.NoError(t, err)
	message = append(message, bytes.Repeat([]byte{0xf8, 0x7c, 0}, size/3)...) // a field that nobody knows
	for kind, body := range map[string][]byte{
		"application/proto":      message,
		"application/json":       append([]byte(`{"userId":"u1","k":1}`), bytes.Repeat([]byte{' '}, size)...),
		"application/grpc+proto": append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...),
	} {
		send := func() {
			r := httptest.NewRequest(http.MethodPost, "/tandem.v1.RetrievalService/Retrieve", bytes.NewReader(body))
			r.ProtoMajor, r.Proto = 2, "HTTP/2.0"
			r.Header.Set("Content-Type", kind)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Equal(t, http.StatusOK, w.Code, "%s: %s", kind, w.Body)
			require.Contains(t, []string{"", "0"}, w.Result().Trailer.Get("Grpc-Status"), kind)
		}
		send()
		const times = 5
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			send()
		}
		runtime.ReadMemStats(&after)
		require.Less(t, (after.TotalAlloc-before.TotalAlloc)/times, uint64(size/4), kind)
	}
}
