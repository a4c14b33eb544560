package tower

import (
	"bufio"
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
		r, err := newGzipText(data)
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

// gzipText is the text of a file of gzip: of one member after the other, with zeros between
// and after them, as tapes and block devices have them.
type gzipText struct {
	data   *bufio.Reader
	member *gzip.Reader
}

func newGzipText(data io.Reader) (*gzipText, error) {
	t := &gzipText{data: bufio.NewReaderSize(data, 64<<10)}
	var err error
	if t.member, err = gzip.NewReader(t.data); err == nil {
		t.member.Multistream(false)
	}
	return t, err
}

func (t *gzipText) Read(p []byte) (int, error) {
	n, err := t.member.Read(p)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	return n, t.advance()
}

func (t *gzipText) Close() error { return t.member.Close() }

// advance goes to the next member. It returns io.EOF if there is none.
func (t *gzipText) advance() error {
	for {
		b, err := t.data.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			break
		}
	}
	if err := t.data.UnreadByte(); err != nil {
		return err
	}
	if err := t.member.Reset(t.data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	t.member.Multistream(false)
	return nil
}
