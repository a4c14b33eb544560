package server

import (
	"io"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// compressMinBytes is the least size of a response that is worth compressing.
const compressMinBytes = 4 << 10

// The memory of a zstd encoder, which is enough for the answers there are, and of a
// decoder, which is what level 19 needs; a request that needs more is rejected.
const (
	encoderWindow = 1 << 20
	decoderWindow = 8 << 20
)

// compression accepts gzip and zstd, both ways. A message that is larger than
// maxBytes when it is decompressed is rejected at that size. Connect keeps the
// coders in pools.
func compression(maxBytes int) connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithCompressMinBytes(compressMinBytes),
		connect.WithCompression("gzip",
			func() connect.Decompressor { return &decompressor{source: new(gzip.Reader), limit: maxBytes} },
			func() connect.Compressor {
				w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // fails for an unknown level only
				return w
			},
		),
		connect.WithCompression("zstd",
			func() connect.Decompressor { return &decompressor{source: newZstdReader(), limit: maxBytes} },
			func() connect.Compressor {
				// With one goroutine, the caller's, an encoder needs no cleanup.
				w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
					zstd.WithWindowSize(encoderWindow), zstd.WithLowerEncoderMem(true)) // fails for wrong options only
				return w
			},
		),
	)
}

// source is a decoder that can be used again.
type source interface {
	io.Reader
	Reset(io.Reader) error
	Close() error
}

// zstdReader is a zstd decoder that survives Close, as pools need it. It decodes
// in the caller's goroutine, so that dropping it leaks nothing.
type zstdReader struct{ *zstd.Decoder }

func newZstdReader() zstdReader {
	// Small inputs too are decoded as they are read: by default all of one is at once, before
	// anyone can stop it, and some KB may stand for many GiB.
	d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(decoderWindow), zstd.WithDecodeBuffersBelow(0)) // fails for wrong options only
	return zstdReader{d}
}

// Close drops what the decoder reads from.
func (z zstdReader) Close() error { return z.Decoder.Reset(nil) }

// decompressor stops at a limit: Connect would decompress the rest, only to tell
// how much there is.
type decompressor struct {
	source
	limit int
	left  int64
}

// Reset implements [connect.Decompressor].
func (d *decompressor) Reset(r io.Reader) error {
	d.left = int64(d.limit)
	return d.source.Reset(r)
}

// Read implements [io.Reader].
func (d *decompressor) Read(p []byte) (int, error) {
	if int64(len(p)) > d.left+1 {
		p = p[:d.left+1]
	}
	n, err := d.source.Read(p)
	if int64(n) > d.left {
		return 0, tooLarge(d.limit)
	}
	d.left -= int64(n)
	return n, err
}
