package server

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tandem-ann/tandem/index"
)

// compressMinBytes is the least size of a response that is worth compressing.
const compressMinBytes = 4 << 10

// acceptedEncodings are the encodings that compression accepts, as a header has them.
const acceptedEncodings = "zstd,gzip"

// The memory of a zstd encoder, which is enough for the answers there are, and of a
// decoder, which is what level 19 needs; a request that needs more is rejected.
const (
	encoderWindow = 1 << 20
	decoderWindow = 8 << 20
)

// compression accepts gzip and zstd, both ways. A message that is larger than
// maxBytes when it is decompressed is rejected at that size. Connect keeps the
// coders in pools. It knows no context where it decompresses: the bodies of methods that
// may be large are decompressed before it sees them.
func compression(maxBytes int) connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithCompressMinBytes(compressMinBytes),
		connect.WithCompression("gzip",
			func() connect.Decompressor { return newDecompressor("gzip", maxBytes) },
			func() connect.Compressor {
				w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // fails for an unknown level only
				return compressor{w}
			},
		),
		connect.WithCompression("zstd",
			func() connect.Decompressor { return newDecompressor("zstd", maxBytes) },
			func() connect.Compressor {
				// With one goroutine, the caller's, an encoder needs no cleanup.
				w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
					zstd.WithWindowSize(encoderWindow), zstd.WithLowerEncoderMem(true)) // fails for wrong options only
				return compressor{w}
			},
		),
	)
}

// compressor gives way to others while it compresses.
type compressor struct{ connect.Compressor }

// Write implements [io.Writer].
func (c compressor) Write(p []byte) (n int, err error) {
	for len(p) > inflateStep && err == nil {
		var part int
		part, err = c.Compressor.Write(p[:inflateStep])
		n, p = n+part, p[part:]
		index.GiveWay()
	}
	if err == nil {
		var part int
		part, err = c.Compressor.Write(p)
		n += part
	}
	return n, err
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
	name  string
	limit int
	left  int64
	err   error // of the first bytes, which Reset reads
	input pacedInput
}

// newDecompressor returns a decompressor of an encoding, gzip or zstd.
func newDecompressor(name string, limit int) *decompressor {
	d := &decompressor{source: new(gzip.Reader), name: name, limit: limit}
	if name == "zstd" {
		d.source = newZstdReader()
	}
	return d
}

// Reset implements [connect.Decompressor]. It leaves its error to Read, whose errors
// Connect gives to the caller as they are.
func (d *decompressor) Reset(r io.Reader) error {
	d.begin(context.Background(), r)
	return nil
}

// begin begins with a message, which is decompressed until the context ends.
func (d *decompressor) begin(ctx context.Context, r io.Reader) {
	d.left = int64(d.limit)
	d.input = pacedInput{Reader: r, pace: pace{ctx: ctx}}
	d.err = d.source.Reset(&d.input)
}

// pacedInput is what is decompressed. Much of it may become little: 8 MiB of blocks that
// are empty take a second.
type pacedInput struct {
	io.Reader
	pace pace
}

// Read implements [io.Reader].
func (p *pacedInput) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if !p.pace.step(n) { // a block of some 17 bytes may take a microsecond
		return 0, p.pace.err
	}
	return n, err
}

// Read implements [io.Reader].
func (d *decompressor) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.malformed(d.err)
	}
	if int64(len(p)) > d.left+1 {
		p = p[:d.left+1]
	}
	n, err := d.source.Read(p)
	if int64(n) > d.left {
		return 0, tooLarge(d.limit)
	}
	if d.left/inflateStep != (d.left-int64(n))/inflateStep && !d.input.pace.look() {
		return 0, d.input.pace.err
	}
	d.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.malformed(err)
	}
	return n, err
}

// malformed is the error of a message that is not what its encoding says.
func (d *decompressor) malformed(err error) error {
	if ended := d.input.pace.err; ended != nil {
		return ended
	}
	if d.left < int64(d.limit) { // the message has begun well
		switch {
		case errors.Is(err, gzip.ErrHeader), errors.Is(err, zstd.ErrMagicMismatch):
			err = fmt.Errorf("bytes are after it that are not %s", d.name)
		case errors.Is(err, io.ErrUnexpectedEOF):
			err = fmt.Errorf("it ends too early, or bytes are after it that are not %s", d.name)
		}
	}
	return invalidf(reasonMalformed, "", "the message cannot be decompressed as %s: %w", d.name, err)
}

// Close implements [connect.Decompressor].
func (d *decompressor) Close() error {
	if d.err == nil {
		return d.source.Close()
	}
	return nil // it was not opened
}

// inflateStep is how many bytes are decompressed, or compressed, before others are given
// way to.
const inflateStep = 64 << 10
