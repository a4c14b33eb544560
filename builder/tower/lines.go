package tower

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tandem-ann/tandem/builder/input"
)

// ReadLines calls each for every line of files of text, which may be compressed by gzip or
// zstd, with the number that the line has in its file, from 1. The line has no end, and is
// valid during the call. A line of more than limit bytes is an error, and so is what each
// returns; both end it.
func ReadLines(ctx context.Context, files []input.File, limit int, each func(f input.File, number int64, line []byte) error) error {
	for _, f := range files {
		if err := readLines(ctx, f, limit, each); err != nil {
			return err
		}
	}
	return nil
}

func readLines(ctx context.Context, f input.File, limit int, each func(f input.File, number int64, line []byte) error) (err error) {
	text, err := openText(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, text.Close()) }()
	for lines := newLineReader(text, limit); ; {
		line, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", f.Name(), err)
		}
		if lines.number%1024 == 1 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := each(f, lines.number, line); err != nil {
			return err
		}
	}
}

// A lineReader reads lines of bounded length. LF and CRLF end a line, the last
// may have no end, and a UTF-8 byte order mark before the first is dropped.
type lineReader struct {
	br     *bufio.Reader
	limit  int
	number int64 // of the line last read, from 1
	long   []byte
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{br: bufio.NewReaderSize(r, 256<<10), limit: limit}
}

// next returns the next line without its end, valid until the next call.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = l.long[:0]
		for errors.Is(err, bufio.ErrBufferFull) && len(l.long) <= l.limit {
			l.long = append(l.long, line...)
			line, err = l.br.ReadSlice('\n')
		}
		l.long = append(l.long, line...)
		line = l.long
	}
	if len(line) == 0 && err != nil {
		return nil, err
	}
	l.number++
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	if l.number == 1 {
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) > l.limit {
		return nil, fmt.Errorf("line %d is longer than %d bytes", l.number, l.limit)
	}
	return line, nil
}
