package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/tandem-ann/tandem/shard/objects"
)

// Object opens an object for reading where it is, until ctx ends. The caller closes it.
func Object(ctx context.Context, bucket *objects.Bucket, o objects.Object) interface {
	io.ReaderAt
	io.Closer
} {
	return &object{ctx: ctx, bucket: bucket, Object: o}
}

// object is an object that is read where it is. Who reads on where the last read has ended
// goes on with the same request.
type object struct {
	objects.Object
	ctx    context.Context // of who opened it: reading ends with it
	bucket *objects.Bucket

	mu     sync.Mutex
	stream io.ReadCloser // nil if none is open
	at     int64         // that it reads next
}

// ReadAt implements [io.ReaderAt].
func (o *object) ReadAt(p []byte, offset int64) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset >= o.Size {
		return 0, io.EOF
	}
	whole := p
	p = p[:min(int64(len(p)), o.Size-offset)]
	for failed := 0; n < len(p); {
		if o.stream == nil || o.at != offset+int64(n) {
			if err := o.open(offset + int64(n)); err != nil {
				return n, err
			}
		}
		more, err := o.stream.Read(p[n:])
		n, o.at = n+more, o.at+int64(more)
		if more > 0 {
			failed = 0
		}
		if err == nil || n == len(p) {
			continue
		}
		if closeErr := o.closeStream(); o.ctx.Err() != nil || failed == fetchTries-1 {
			return n, errors.Join(cutShort(o.Key, o.at, o.Size, err), closeErr)
		}
		failed++
	}
	if len(p) < len(whole) {
		return n, io.EOF
	}
	return n, nil
}

func (o *object) open(offset int64) error {
	if err := o.closeStream(); err != nil {
		return err
	}
	var err error
	o.stream, err = o.bucket.Reader(o.ctx, o.Key, offset)
	o.at = offset
	return err
}

func (o *object) closeStream() error {
	if o.stream == nil {
		return nil
	}
	stream := o.stream
	o.stream = nil
	return stream.Close()
}

// unchanged returns an error if the object was written since it was opened.
func (o *object) unchanged(name string) error {
	now, err := o.bucket.Stat(o.ctx, o.Key)
	if err != nil {
		return fmt.Errorf("look at %s again: %w", name, err)
	}
	if now.Version != o.Version || now.Size != o.Size || !now.Time.Equal(o.Time) {
		return fmt.Errorf("%s %w", name, ErrChanged)
	}
	return nil
}

// Close implements [io.Closer].
func (o *object) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closeStream()
}
