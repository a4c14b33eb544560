package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/memblob" // mem://, for tests
	"gocloud.dev/gcerrors"
)

var (
	// ErrNotFound is the class of every error that says that there is no such object.
	ErrNotFound = errors.New("no such object")
	// ErrExists is the class of every error that says that an object which was to be
	// created is there already.
	ErrExists = errors.New("object exists")
)

// Bucket is a space of objects. Their names are UTF-8, in parts that / separates; a
// part does not begin with a dot. A Bucket may be used by any number of goroutines and
// processes.
type Bucket struct {
	location string
	dir      string // the folder, empty if it is none
	blobs    *blob.Bucket
}

// Object describes one object.
type Object struct {
	Key  string
	Size int64     // bytes
	Time time.Time // when it was last written, by the store's clock
}

// Open opens the bucket at a location: the path of a folder, file:///PATH, or a URL of
// a scheme that a driver is linked for, such as s3://BUCKET?region=R&prefix=P/. A
// folder must exist.
func Open(ctx context.Context, location string) (*Bucket, error) {
	dir, isDir, err := Folder(location)
	if err != nil {
		return nil, err
	}
	b := &Bucket{location: location, dir: dir}
	if isDir {
		info, statErr := os.Stat(dir)
		switch {
		case statErr != nil:
			return nil, statErr
		case !info.IsDir():
			return nil, fmt.Errorf("%s is not a folder", dir)
		}
		b.blobs, err = fileblob.OpenBucket(dir, &fileblob.Options{Metadata: fileblob.MetadataDontWrite, NoTempDir: true})
	} else {
		b.blobs, err = blob.OpenBucket(ctx, location)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", location, err)
	}
	return b, nil
}

// New returns a bucket of blobs, such as one that tests keep in memory.
func New(blobs *blob.Bucket, location string) *Bucket {
	return &Bucket{location: location, blobs: blobs}
}

// Folder returns the folder that a location means, if it means one.
func Folder(location string) (dir string, ok bool, err error) {
	scheme, _, isURL := strings.Cut(location, "://")
	switch {
	case location == "":
		return "", false, errors.New("the location is empty; accepted: a folder or a URL")
	case !isURL:
		return location, true, nil
	case scheme != "file":
		return "", false, nil
	}
	u, err := url.Parse(location)
	if err != nil {
		return "", false, fmt.Errorf("location: %w", err)
	}
	if u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || u.Path == "" {
		return "", false, fmt.Errorf("location %s; accepted: file:///PATH without a host or a query", location)
	}
	return filepath.FromSlash(u.Path), true, nil
}

// Location returns where the bucket is, as it was opened.
func (b *Bucket) Location() string { return b.location }

// Dir returns the bucket's folder, where each object is the file of its name; empty if
// the bucket is not a folder.
func (b *Bucket) Dir() string { return b.dir }

// Close frees what the bucket holds.
func (b *Bucket) Close() error { return b.blobs.Close() }

// wrap gives an error of a driver its class and the object's name.
func (b *Bucket) wrap(err error, what, key string) error {
	if err == nil {
		return nil
	}
	class := error(nil)
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		class = ErrNotFound
	case gcerrors.FailedPrecondition, gcerrors.AlreadyExists:
		class = ErrExists
	}
	if class != nil {
		return fmt.Errorf("%s %s: %w", what, b.name(key), class)
	}
	return fmt.Errorf("%s %s: %w", what, b.name(key), err)
}

// name names an object for people.
func (b *Bucket) name(key string) string {
	if b.dir != "" {
		return b.path(key)
	}
	return strings.TrimSuffix(b.location, "/") + "/" + key
}

// path returns the file of an object in a folder.
func (b *Bucket) path(key string) string { return filepath.Join(b.dir, filepath.FromSlash(key)) }

// Read returns an object's bytes.
func (b *Bucket) Read(ctx context.Context, key string) ([]byte, error) {
	data, err := b.blobs.ReadAll(ctx, key)
	return data, b.wrap(err, "read", key)
}

// Reader reads an object from a byte on. The caller closes it.
func (b *Bucket) Reader(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	r, err := b.blobs.NewRangeReader(ctx, key, offset, -1, nil)
	if err != nil {
		return nil, b.wrap(err, "read", key)
	}
	return r, nil
}

// Stat describes an object.
func (b *Bucket) Stat(ctx context.Context, key string) (Object, error) {
	a, err := b.blobs.Attributes(ctx, key)
	if err != nil {
		return Object{}, b.wrap(err, "look up", key)
	}
	return Object{Key: key, Size: a.Size, Time: a.ModTime}, nil
}

// List lists the objects whose names begin with prefix, in the order of their names.
// One that is written or deleted meanwhile may be listed or not.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	if b.dir != "" {
		return listFolder(ctx, b.dir, prefix)
	}
	return func(yield func(Object, error) bool) {
		it := b.blobs.List(&blob.ListOptions{Prefix: prefix})
		for {
			o, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(Object{}, b.wrap(err, "list", prefix))
				return
			}
			if !yield(Object{Key: o.Key, Size: o.Size, Time: o.ModTime}, nil) {
				return
			}
		}
	}
}

// Delete deletes an object. One that is not there is of class [ErrNotFound].
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if b.dir != "" {
		return removeDurably(b.path(key))
	}
	return b.wrap(b.blobs.Delete(ctx, key), "delete", key)
}

// Create writes an object that must not be there yet: an error of class [ErrExists]
// says that it is. After another error it may or may not have been written.
func (b *Bucket) Create(ctx context.Context, key string, data []byte) error {
	if b.dir != "" {
		return createDurably(b.path(key), data)
	}
	return b.wrap(again(ctx, func() error {
		return b.blobs.WriteAll(ctx, key, data, &blob.WriterOptions{IfNotExist: true, ContentType: contentType(key)})
	}), "create", key)
}

// Write writes an object, whether it is there or not.
func (b *Bucket) Write(ctx context.Context, key string, data []byte) error {
	if b.dir != "" {
		return writeDurably(b.path(key), data)
	}
	return b.wrap(again(ctx, func() error {
		return b.blobs.WriteAll(ctx, key, data, &blob.WriterOptions{ContentType: contentType(key)})
	}), "write", key)
}

// collisions are the error codes by which S3, or a server that keeps objects as files,
// says that a write met another one, decided nothing and should be tried again. Clients
// do not do that by themselves.
var collisions = []string{"ConditionalRequestConflict", "OperationAborted", "ExistingObjectIsDirectory"}

// collisionTries is how often a write that meets another is tried, and collisionWait
// how long it waits before the second time; then twice as long each time.
const (
	collisionTries = 6
	collisionWait  = 10 * time.Millisecond
)

// again writes again while the store says that the write met another.
func again(ctx context.Context, write func() error) error {
	wait := collisionWait
	for try := 1; ; try++ {
		err := write()
		var coded interface{ ErrorCode() string }
		if try == collisionTries || !errors.As(err, &coded) || !slices.Contains(collisions, coded.ErrorCode()) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// Upload writes an object from r, in parts where the store takes large objects so.
// Nothing appears if r or ctx fails.
func (b *Bucket) Upload(ctx context.Context, key string, r io.Reader) error {
	if b.dir != "" {
		return copyDurably(ctx, b.path(key), r)
	}
	// The writer gives the object up when its context ends before Close.
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := b.blobs.NewWriter(writing, key, &blob.WriterOptions{ContentType: contentType(key)})
	if err != nil {
		return b.wrap(err, "upload", key)
	}
	if _, err := io.Copy(w, r); err != nil {
		cancel()
		_ = w.Close() // it says that it was cancelled
		return b.wrap(err, "upload", key)
	}
	return b.wrap(w.Close(), "upload", key)
}

func contentType(key string) string {
	if strings.HasSuffix(key, ".json") {
		return "application/json"
	}
	return "application/octet-stream"
}
