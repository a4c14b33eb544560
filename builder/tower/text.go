package tower

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tandem-ann/tandem/builder/input"
)

// headOf returns the first bytes of a file.
func headOf(f input.File) ([]byte, error) {
	head := make([]byte, min(64, f.Size()))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return head, nil
}

// maxZstdWindow bounds the memory of a compressed text: that of zstd --long.
const maxZstdWindow = 128 << 20

// openText returns the text of a file, which may be compressed by gzip or zstd. The caller
// closes it, which leaves the file open.
func openText(f input.File) (io.ReadCloser, error) {
	head, err := headOf(f)
	if err != nil {
		return nil, err
	}
	data := io.NewSectionReader(f, 0, f.Size())
	switch input.FormatOf(head) {
	case input.Gzip:
		r, err := gzip.NewReader(data)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", f.Name(), err)
		}
		return r, nil
	case input.Zstd:
		r, err := zstd.NewReader(data, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", f.Name(), err)
		}
		return r.IOReadCloser(), nil
	case input.UTF16:
		return nil, fmt.Errorf("open %s: it is in UTF-16, want UTF-8", f.Name())
	}
	return io.NopCloser(data), nil
}
