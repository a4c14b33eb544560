package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"slices"
	"strings"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// cloud is a bucket that a driver of gocloud.dev/blob reaches. Client libraries try
// again what a store refuses, but have no bound on a request that is never answered,
// nor try again when a body is cut; so that is done here, over all they do.
type cloud struct {
	location string
	blobs    *blob.Bucket
	reading  *blob.ReaderOptions
	patience patience
}

const (
	// pageSize is how many objects are listed by one request.
	pageSize = 1000
	// partSize and parts bound what of an upload is on its way at a time.
	partSize = 8 << 20
	parts    = 4
)

func (c *cloud) close() error { return c.blobs.Close() }

// StoreError is every error of a request to a store that is no folder: it gave no answer, cut it
// off, or refused. Some are of a class besides.
type StoreError struct {
	What string // was asked
	Name string // of the object
	Err  error
}

// Error implements [error].
func (e *StoreError) Error() string { return fmt.Sprintf("%s %s: %s", e.What, e.Name, e.Err) }

// Unwrap returns what went wrong.
func (e *StoreError) Unwrap() error { return e.Err }

// wrap gives an error of a driver its class and the object's name.
func (c *cloud) wrap(err error, what, key string) error {
	if err == nil {
		return nil
	}
	name := strings.TrimSuffix(c.location, "/") + "/" + key
	switch class := classOf(err); {
	case errors.Is(class, ErrGone), class != nil && what == "list": // where there is a bucket, there is a list
		err = fmt.Errorf("%w: %s", ErrGone, err.Error())
	case errors.Is(class, ErrNotFound), errors.Is(class, ErrExists) && what == "create":
		err = class
	}
	return &StoreError{what, name, err}
}

// classOf returns the class of an error of a driver, nil if it has none. Drivers say
// "not found" of more than that: of a host without an address, of a bucket in another
// region, of an object that may not be read, and of an answer that was cut before it
// said what was not found.
func classOf(err error) error {
	status := statusOf(err)
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		unresolved := (*net.DNSError)(nil)
		switch {
		case slices.Contains([]string{"NoSuchBucket", "ContainerNotFound"}, codeOf(err)):
			return ErrGone
		case errors.As(err, &unresolved), status != 0 && status != http.StatusNotFound, cut(err):
			return nil
		}
		return ErrNotFound
	case gcerrors.FailedPrecondition, gcerrors.AlreadyExists:
		return ErrExists
	}
	if status == http.StatusPreconditionFailed {
		return ErrExists
	}
	return nil
}

// cut reports whether all that came of an answer of S3 is its status.
func cut(err error) bool {
	var status interface{ HTTPStatusCode() int }
	return errors.As(err, &status) && codeOf(err) == ""
}

func (c *cloud) read(ctx context.Context, key string) ([]byte, error) {
	var data []byte
	_, err := c.patience.retry(ctx, func() error {
		w := c.patience.watch(ctx)
		defer w.stop()
		r, err := c.blobs.NewReader(w.ctx, key, c.reading)
		if err != nil {
			return w.explain(err)
		}
		defer r.Close() // all of it was read, or that failed
		w.allow(r.Size())
		if data, err = io.ReadAll(r); err != nil {
			return w.explain(err)
		}
		if size := r.Size(); size >= 0 && int64(len(data)) != size {
			return fmt.Errorf("%d bytes came of %d: %w", len(data), size, io.ErrUnexpectedEOF)
		}
		return nil
	})
	if err != nil {
		return nil, c.wrap(err, "read", key)
	}
	return data, nil
}

func (c *cloud) reader(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	var s *stream
	_, err := c.patience.retry(ctx, func() error {
		w := c.patience.watch(ctx)
		r, err := c.blobs.NewRangeReader(w.ctx, key, offset, -1, c.reading)
		if err != nil {
			defer w.stop()
			return w.explain(err)
		}
		w.pause()
		s = &stream{r: r, watch: w, wrap: func(err error) error { return c.wrap(err, "read", key) }}
		return nil
	})
	if err != nil {
		return nil, c.wrap(err, "read", key)
	}
	return s, nil
}

// stream reads an object and fails when nothing comes.
type stream struct {
	r     io.ReadCloser
	watch *watch
	wrap  func(error) error
}

func (s *stream) Read(p []byte) (int, error) {
	s.watch.allow(0)
	n, err := s.r.Read(p)
	s.watch.pause()
	if err != nil && !errors.Is(err, io.EOF) {
		err = s.wrap(s.watch.explain(err))
	}
	return n, err
}

func (s *stream) Close() error {
	err := s.r.Close()
	s.watch.stop()
	return err
}

func (c *cloud) stat(ctx context.Context, key string) (Object, error) {
	var o Object
	_, err := c.patience.attempts(ctx, 0, func(ctx context.Context) error {
		a, err := c.blobs.Attributes(ctx, key)
		if err == nil {
			o = Object{Key: key, Size: a.Size, Time: a.ModTime, Version: a.ETag}
		}
		return err
	})
	return o, c.wrap(err, "look up", key)
}

func (c *cloud) list(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for token := blob.FirstPageToken; len(token) > 0; {
			var page []*blob.ListObject
			var next []byte
			_, err := c.patience.attempts(ctx, 0, func(ctx context.Context) (err error) {
				page, next, err = c.blobs.ListPage(ctx, token, pageSize, &blob.ListOptions{Prefix: prefix})
				return err
			})
			if err != nil {
				yield(Object{}, c.wrap(err, "list", prefix))
				return
			}
			for _, o := range page {
				if !yield(Object{Key: o.Key, Size: o.Size, Time: o.ModTime}, nil) {
					return
				}
			}
			token = next
		}
	}
}

func (c *cloud) delete(ctx context.Context, key string) error {
	tries, err := c.patience.attempts(ctx, 0, func(ctx context.Context) error { return c.blobs.Delete(ctx, key) })
	if tries > 1 && errors.Is(classOf(err), ErrNotFound) {
		return nil // an attempt before has deleted it, and the answer was lost
	}
	return c.wrap(err, "delete", key)
}

func (c *cloud) create(ctx context.Context, key string, data []byte) error {
	return c.put(ctx, "create", key, data, true)
}

func (c *cloud) write(ctx context.Context, key string, data []byte) error {
	return c.put(ctx, "write", key, data, false)
}

func (c *cloud) put(ctx context.Context, what, key string, data []byte, ifNotExist bool) error {
	_, err := c.patience.attempts(ctx, int64(len(data)), func(ctx context.Context) error {
		options := &blob.WriterOptions{IfNotExist: ifNotExist, ContentType: contentType(key)}
		if c.reads() {
			return c.blobs.Upload(ctx, key, bytes.NewReader(data), options)
		}
		return c.blobs.WriteAll(ctx, key, data, options)
	})
	return c.wrap(err, what, key)
}

// upload makes one attempt: r cannot be read again.
func (c *cloud) upload(ctx context.Context, key string, r io.Reader) error {
	watch := c.patience.watch(ctx)
	defer watch.stop() // which gives up what was not closed
	options := &blob.WriterOptions{ContentType: contentType(key), BufferSize: partSize, MaxConcurrency: parts}
	if c.reads() {
		return c.wrap(watch.explain(c.blobs.Upload(watch.ctx, key, &watchedReader{r: r, watch: watch}, options)), "upload", key)
	}
	// The writer gives the object up when its context ends before Close.
	w, err := c.blobs.NewWriter(watch.ctx, key, options)
	if err != nil {
		return c.wrap(watch.explain(err), "upload", key)
	}
	watch.pause()
	watched := &watchedWriter{w: w, watch: watch}
	if _, err := io.Copy(watched, r); err != nil {
		watch.stop()
		_ = w.Close() // it says that it was cancelled
		return c.wrap(watch.explain(err), "upload", key)
	}
	watch.allow(onItsWay(watched.taken))
	return c.wrap(watch.explain(w.Close()), "upload", key)
}

// reads reports whether what is written must be given to the driver to read. The writer of
// gocloud.dev's driver of Azure sets to nil, when a request fails, what its Close uses.
func (c *cloud) reads() bool { return strings.HasPrefix(c.location, "azblob://") }

// watchedReader is watchedWriter for a store that reads.
type watchedReader struct {
	r     io.Reader
	watch *watch
	taken int64 // bytes
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.watch.pause()
	n, err := r.r.Read(p)
	r.taken += int64(n)
	r.watch.allow(onItsWay(r.taken))
	return n, err
}

// watchedWriter fails when a store takes nothing. The time that its source needs does
// not count.
type watchedWriter struct {
	w     io.Writer
	watch *watch
	taken int64 // bytes
}

// onItsWay returns how many of the bytes that were given to a store it may have to take
// before it takes more, or the end.
func onItsWay(given int64) int64 { return min(given, (parts+2)*partSize) }

func (w *watchedWriter) Write(p []byte) (int, error) {
	w.watch.allow(onItsWay(w.taken) + int64(len(p)))
	defer w.watch.pause()
	n, err := w.w.Write(p)
	w.taken += int64(n)
	return n, err
}

func contentType(key string) string {
	if strings.HasSuffix(key, ".json") {
		return "application/json"
	}
	return "application/octet-stream"
}
