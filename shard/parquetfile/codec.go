package parquetfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// A codec is one of arrow-go's that decodes into the page that it is given, and never
// into memory that the compressed bytes ask for.
type codec struct {
	compress.Codec
	decode func(dst, src []byte) (int, error)
}

// DecodeWithError is how arrow-go decodes a page: dst is as long as the page's header
// says that it is.
func (c codec) DecodeWithError(dst, src []byte) ([]byte, error) {
	if len(dst) == 0 && len(src) == 0 { // the values of a page that has none
		return dst, nil
	}
	n, err := c.decode(dst, src)
	return dst[:n], err
}

// Decode decodes a page, and panics if it cannot.
func (c codec) Decode(dst, src []byte) []byte {
	dst, err := c.DecodeWithError(dst, src)
	if err != nil {
		panic(err)
	}
	return dst
}

func init() {
	for compression, decode := range map[compress.Compression]func(dst, src []byte) (int, error){
		compress.Codecs.Snappy: decodeSnappy,
		compress.Codecs.Zstd:   decodeZstd,
		compress.Codecs.Gzip:   decodeGzip,
		compress.Codecs.Brotli: decodeBrotli,
		compress.Codecs.Lz4Raw: decodeLZ4,
	} {
		c, err := compress.GetCodec(compression)
		if err != nil {
			panic(err)
		}
		compress.RegisterCodec(compression, codec{c, decode})
	}
	compress.RegisterCodec(compress.Codecs.Lz4, codec{decode: decodeHadoopLZ4}) // which arrow-go does not have
}

var errLonger = errors.New("the page is longer than its header says")

func decodeSnappy(dst, src []byte) (int, error) {
	n, err := snappy.DecodedLen(src)
	if err != nil {
		return 0, err
	}
	if n > len(dst) {
		return 0, errLonger
	}
	out, err := snappy.Decode(dst, src)
	return len(out), err
}

// zstdDecoder decodes no more than the capacity that it is given.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true))
})

func decodeZstd(dst, src []byte) (int, error) {
	d, err := zstdDecoder()
	if err != nil {
		return 0, err
	}
	out, err := d.DecodeAll(src, dst[:0:len(dst)])
	return len(out), err
}

func decodeGzip(dst, src []byte) (int, error) {
	r, err := gzip.NewReader(bytes.NewReader(src))
	if err != nil {
		return 0, err
	}
	return readWhole(r, dst)
}

func decodeBrotli(dst, src []byte) (int, error) {
	return readWhole(brotli.NewReader(bytes.NewReader(src)), dst)
}

// readWhole reads all of r, which may not be longer than dst.
func readWhole(r io.Reader, dst []byte) (int, error) {
	n, err := io.ReadFull(r, dst)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && n < len(dst) {
		return n, fmt.Errorf("the page is %d bytes long, its header says %d", n, len(dst))
	}
	if err != nil {
		return n, err
	}
	var more [1]byte
	switch k, err := io.ReadFull(r, more[:]); {
	case k > 0:
		return n, errLonger
	case !errors.Is(err, io.EOF): // the checksum
		return n, err
	}
	return n, nil
}

func decodeLZ4(dst, src []byte) (int, error) { return lz4.UncompressBlock(src, dst) }

// decodeHadoopLZ4 decodes what the older of the two LZ4 codecs of Parquet stands for:
// blocks with their sizes ahead, as Hadoop writes them, or one block without, as other
// writers did.
func decodeHadoopLZ4(dst, src []byte) (int, error) {
	n, rest := 0, src
	for len(rest) >= 8 {
		unpacked, packed := binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
		rest = rest[8:]
		if uint64(packed) > uint64(len(rest)) || uint64(unpacked) > uint64(len(dst)-n) {
			break
		}
		k, err := lz4.UncompressBlock(rest[:packed], dst[n:n+int(unpacked)])
		if err != nil || k != int(unpacked) {
			break
		}
		n, rest = n+k, rest[packed:]
		if len(rest) == 0 && n == len(dst) {
			return n, nil
		}
	}
	return decodeLZ4(dst, src)
}

// zstdWindow is the window of all but the highest levels of zstd, in bytes.
const zstdWindow = 8 << 20

// unpackedSize returns how many bytes src decodes to, or some number above limit if they
// are more than that. It takes little memory.
func unpackedSize(compression compress.Compression, src io.Reader, limit int64) (int64, error) {
	var r io.Reader
	var err error
	switch compression {
	case compress.Codecs.Zstd:
		// A decoder allocates the window that a frame asks for, of which no more than the page is of use.
		window := max(zstdWindow, uint64(limit))
		var d *zstd.Decoder
		if d, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window)); err == nil {
			defer d.Close()
			r = d
		}
	case compress.Codecs.Gzip:
		r, err = gzip.NewReader(src)
	case compress.Codecs.Brotli:
		r = brotli.NewReader(src)
	default:
		return 0, fmt.Errorf("compression %s", compression)
	}
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, io.LimitReader(r, limit+1))
}
