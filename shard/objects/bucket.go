package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/memblob" // mem://, for tests
)

var (
	// ErrNotFound is the class of every error that says that there is no such object.
	ErrNotFound = errors.New("no such object")
	// ErrExists is the class of every error that says that an object which was to be
	// created is there already, with other bytes.
	ErrExists = errors.New("object exists")
	// ErrGone is the class of every error that says that the whole bucket is not where it
	// was: its folder has vanished or is another one, as where a file system was
	// unmounted, or the cloud has no bucket of that name. Nothing is known about objects
	// then; it is never of class [ErrNotFound].
	ErrGone = errors.New("the store is not there")
	// ErrNotDurable is the class of every error that says that a change to a folder was
	// made, and can be seen, but that the disk did not confirm it: a crash of the machine
	// may undo it.
	ErrNotDurable = errors.New("it may not outlast a crash")
)

// Bucket is a space of objects. Their names are UTF-8, in parts that / separates; a
// part does not begin with a dot. A Bucket may be used by any number of goroutines and
// processes.
type Bucket struct {
	location string
	folder   *folder // nil if it is none
	timeout  time.Duration
	driver   driver
}

// driver is a kind of place where objects are. Its errors are of the classes above.
type driver interface {
	read(ctx context.Context, key string) ([]byte, error)
	reader(ctx context.Context, key string, offset int64) (io.ReadCloser, error)
	stat(ctx context.Context, key string) (Object, error)
	list(ctx context.Context, prefix string) iter.Seq2[Object, error]
	delete(ctx context.Context, key string) error
	// create says [ErrExists] whatever the bytes are of what is there, and that it is
	// durable.
	create(ctx context.Context, key string, data []byte) error
	write(ctx context.Context, key string, data []byte) error
	upload(ctx context.Context, key string, r io.Reader) error
	close() error
}

// Object describes one object.
type Object struct {
	Key  string
	Size int64     // bytes
	Time time.Time // when it was last written, by the store's clock
	// Version is another one whenever the object was written, where a store has any and was
	// asked for one object: its ETag.
	Version string
}

// Option is an option of [Open].
type Option func(*patience)

// DefaultTimeout is how long a store that is no folder may be silent.
const DefaultTimeout = 10 * time.Second

// WithTimeout sets how long a store that is no folder may be silent before a request is
// given up and made again. Zero or less is [DefaultTimeout].
func WithTimeout(timeout time.Duration) Option {
	return func(p *patience) { p.timeout = timeout }
}

// Open opens the bucket at a location: the path of a folder, file:///PATH, or a URL of
// a scheme that a driver is linked for (see [Register]), such as
// s3://BUCKET?region=R&prefix=P/. A folder must exist.
func Open(ctx context.Context, location string, list ...Option) (*Bucket, error) {
	dir, isDir, err := Folder(location)
	if err != nil {
		return nil, err
	}
	if isDir {
		f, err := openFolder(dir)
		if err != nil {
			return nil, err
		}
		return &Bucket{location: location, folder: f, driver: f}, nil
	}
	if err := checkLinked(location); err != nil {
		return nil, err
	}
	blobs, err := blob.OpenBucket(ctx, location)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", location, err)
	}
	return New(blobs, location, list...), nil
}

// New returns a bucket of blobs, such as one that tests keep in memory.
func New(blobs *blob.Bucket, location string, list ...Option) *Bucket {
	p := patience{}
	for _, set := range list {
		set(&p)
	}
	if p.timeout <= 0 {
		p.timeout = DefaultTimeout
	}
	d, _, _ := driverOf(location)
	return &Bucket{location: location, timeout: p.timeout, driver: &cloud{location, blobs, &blob.ReaderOptions{BeforeRead: d.BeforeRead}, p}}
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
func (b *Bucket) Dir() string {
	if b.folder == nil {
		return ""
	}
	return b.folder.dir
}

// Timeout returns how long the store may be silent before a request is given up and made
// again; 0 for a folder, whose requests are made once.
func (b *Bucket) Timeout() time.Duration { return b.timeout }

// name names an object for people.
func (b *Bucket) name(key string) string {
	if b.folder != nil {
		return b.folder.path(key)
	}
	return strings.TrimSuffix(b.location, "/") + "/" + key
}

// Close frees what the bucket holds.
func (b *Bucket) Close() error { return b.driver.close() }

// Reopen takes the folder that is now at the bucket's location for the bucket, if it is
// another one than before: a file system was mounted again, or a store restored. It is
// for readers that check what they read against what they have read before. An empty
// folder, such as is left where nothing is mounted, is an error of class [ErrGone].
func (b *Bucket) Reopen() error {
	if b.folder == nil {
		return nil
	}
	return b.folder.reopen()
}

// Read returns an object's bytes, all of them or an error.
func (b *Bucket) Read(ctx context.Context, key string) ([]byte, error) {
	return b.driver.read(ctx, key)
}

// Reader reads an object from a byte on. The caller closes it. A read fails if ctx ends
// or nothing comes for the bucket's timeout.
func (b *Bucket) Reader(ctx context.Context, key string, offset int64) (io.ReadCloser, error) {
	return b.driver.reader(ctx, key, offset)
}

// Stat describes an object.
func (b *Bucket) Stat(ctx context.Context, key string) (Object, error) {
	return b.driver.stat(ctx, key)
}

// List lists the objects whose names begin with prefix, in the order of their names.
// One that is written or deleted meanwhile may be listed or not. An error ends it, and
// says that what was listed is not all. In a folder, what cannot be looked at is an
// error: a symbolic link to nothing or in a ring, a file in the place of a folder, and
// what is neither a file nor a folder. Names that begin with a dot are left out.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return b.driver.list(ctx, prefix)
}

// Delete deletes an object. One that is not there is of class [ErrNotFound].
func (b *Bucket) Delete(ctx context.Context, key string) error {
	return b.driver.delete(ctx, key)
}

// Settle makes sure that a folder's names outlast a crash of the machine: that what was
// written and deleted in it stays so, though whoever did that died before knowing. The
// folder is that of objects whose names begin with prefix, which ends with /. Stores that
// are no folder have nothing to settle.
func (b *Bucket) Settle(prefix string) error {
	if b.folder == nil {
		return nil
	}
	return b.folder.settleNames(prefix)
}

// Create writes an object that must not be there yet. When it returns nil, the object
// is there with these bytes, and durable. An error of class [ErrExists] says that one
// with other bytes is. After another error it may or may not have been written, now or
// shortly.
//
// An object that is there with the same bytes is taken for this one, since a store may
// have created it and its answer been lost, which the client library may hide. Writers
// that compete for a name must therefore write bytes that differ, such as an id that is
// drawn at random.
func (b *Bucket) Create(ctx context.Context, key string, data []byte) error {
	_, err := b.Contend(ctx, key, data)
	return err
}

// Contend is [Bucket.Create] for one who wants to know what another writer has created:
// with an error of class [ErrExists] it returns the bytes that are there.
func (b *Bucket) Contend(ctx context.Context, key string, data []byte) (there []byte, err error) {
	err = b.driver.create(ctx, key, data)
	if !errors.Is(err, ErrExists) {
		return nil, err
	}
	there, readErr := b.driver.read(ctx, key)
	switch {
	case errors.Is(readErr, ErrNotFound):
		return nil, fmt.Errorf("create %s: an object was there and is gone again: whether it was this one is unknown", b.name(key))
	case readErr != nil:
		return nil, fmt.Errorf("create %s: an object is there; whether it is this one is unknown: %w", b.name(key), readErr)
	case !bytes.Equal(there, data):
		return there, err
	}
	return nil, nil
}

// Write writes an object, whether it is there or not. One that fails may still take
// effect later, if the store was slow.
func (b *Bucket) Write(ctx context.Context, key string, data []byte) error {
	return b.driver.write(ctx, key, data)
}

// Upload writes an object from r, in parts where the store takes large objects so.
// Nothing appears if r or ctx fails. It fails if the store takes nothing for too long.
func (b *Bucket) Upload(ctx context.Context, key string, r io.Reader) error {
	return b.driver.upload(ctx, key, r)
}

// CheckWritable returns an error unless objects can be written here, durably, and
// created only where there is none, which needs hard links in a folder and conditional
// writes in a cloud. It tries that with an object of the given name, which it deletes;
// should it die first, what it leaves is an empty JSON object.
func (b *Bucket) CheckWritable(ctx context.Context, key string) error {
	first, second := []byte("{}"), []byte("{ }")
	if err := b.Create(ctx, key, first); err != nil {
		return fmt.Errorf("try whether %s can be written: %w", b.location, err)
	}
	err := b.Create(ctx, key, second)
	if deleteErr := b.Delete(context.WithoutCancel(ctx), key); !errors.Is(deleteErr, ErrNotFound) && deleteErr != nil {
		return fmt.Errorf("try whether %s can be written: %w", b.location, deleteErr)
	}
	switch {
	case err == nil:
		return fmt.Errorf("%s creates an object over one that is there: it ignores the condition If-None-Match: *, by which writers agree who was first", b.location)
	case !errors.Is(err, ErrExists):
		return fmt.Errorf("try whether %s can be written: %w", b.location, err)
	}
	return nil
}

// MakeDir makes a folder of a bucket that is a folder, named as objects are, and those
// above it, durably, and returns its path. It does not make the bucket's own.
func (b *Bucket) MakeDir(name string) (string, error) {
	if b.folder == nil {
		return "", fmt.Errorf("make %s: %s is no folder", name, b.location)
	}
	err := b.folder.here()
	if err == nil {
		err = b.folder.explain(b.folder.makeDir(name))
	}
	if err != nil {
		return "", fmt.Errorf("make %s: %w", b.folder.path(name), err)
	}
	return b.folder.path(name), nil
}
