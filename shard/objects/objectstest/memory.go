package objectstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

var (
	errNotFound = errors.New("no such object in the store")
	errExists   = errors.New("the object is in the store")
)

// version is what an object was from a time on. Nothing changes it.
type version struct {
	time time.Time
	data []byte
	gone bool
}

// current returns the object of a key.
func (f *Faults) current(key string) (version, bool) {
	list := f.objects[key]
	if len(list) == 0 || list[len(list)-1].gone {
		return version{}, false
	}
	return list[len(list)-1], true
}

// Keys lists the objects whose keys begin with prefix, without a request.
func (f *Faults) Keys(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var keys []string
	for key := range f.objects {
		if _, ok := f.current(key); ok && strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Data returns an object's bytes, and whether it is there, without a request.
func (f *Faults) Data(key string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v, ok := f.current(key)
	return slices.Clone(v.data), ok
}

// Put writes an object of some time, without a request.
func (f *Faults) Put(key string, data []byte, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.objects[key] = append(f.objects[key], version{time: at, data: slices.Clone(data)})
}

// Remove deletes an object, if it is there, without a request.
func (f *Faults) Remove(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(key)
}

func (f *Faults) remove(key string) bool {
	_, ok := f.current(key)
	if ok {
		f.objects[key] = append(f.objects[key], version{time: f.clock(), gone: true})
	}
	return ok
}

// connection is the driver of one client.
type connection struct {
	faults *Faults
	client string
}

func (c *connection) meet(ctx context.Context, op Op, key string) (Rule, error) {
	return c.faults.meet(ctx, Request{Client: c.client, Op: op, Key: key})
}

func (c *connection) ErrorCode(err error) gcerrors.ErrorCode { return errorCode(err) }
func (c *connection) As(any) bool                            { return false }
func (c *connection) ErrorAs(err error, target any) bool     { return errors.As(err, target) }
func (c *connection) Close() error                           { return nil }

var errUnused = errors.New("not a request that package objects makes")

// Copy fails: nobody copies so.
func (c *connection) Copy(context.Context, string, string, *driver.CopyOptions) error {
	return errUnused
}

// SignedURL fails: nobody signs.
func (c *connection) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errUnused
}

// Attributes looks an object up.
func (c *connection) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	r, err := c.meet(ctx, Stat, key)
	if err != nil {
		return nil, err
	}
	if err := r.after(ctx); err != nil {
		return nil, err
	}
	c.faults.mu.Lock()
	defer c.faults.mu.Unlock()
	v, ok := c.faults.current(key)
	if !ok {
		return nil, errNotFound
	}
	return &driver.Attributes{Size: int64(len(v.data)), ModTime: v.time, ETag: fmt.Sprintf("%x", sha256.Sum256(v.data))}, nil
}

// ListPaged lists a page. A page token is the last key of the page before.
func (c *connection) ListPaged(ctx context.Context, o *driver.ListOptions) (*driver.ListPage, error) {
	r, err := c.meet(ctx, List, o.Prefix)
	if err != nil {
		return nil, err
	}
	if err := r.after(ctx); err != nil {
		return nil, err
	}
	f := c.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	page := &driver.ListPage{}
	if r.Fault == Empty {
		return page, nil
	}
	for key, versions := range f.objects {
		if r.Fault == Lag {
			then := f.clock().Add(-r.Delay)
			versions = slices.Clone(versions)
			versions = slices.DeleteFunc(versions, func(v version) bool { return v.time.After(then) })
		}
		if len(versions) == 0 || !strings.HasPrefix(key, o.Prefix) || key <= string(o.PageToken) {
			continue
		}
		if v := versions[len(versions)-1]; !v.gone {
			page.Objects = append(page.Objects, &driver.ListObject{Key: key, Size: int64(len(v.data)), ModTime: v.time})
		}
	}
	slices.SortFunc(page.Objects, func(a, b *driver.ListObject) int { return strings.Compare(a.Key, b.Key) })
	size := f.pageSize
	if o.PageSize > 0 {
		size = min(size, o.PageSize)
	}
	if len(page.Objects) > size {
		page.Objects = page.Objects[:size]
		page.NextPageToken = []byte(page.Objects[size-1].Key)
	}
	return page, nil
}

// Delete deletes an object.
func (c *connection) Delete(ctx context.Context, key string, _ *driver.DeleteOptions) error {
	r, err := c.meet(ctx, Delete, key)
	if err != nil {
		return err
	}
	if r.Fault == Late {
		return r.late(ctx, func() { c.faults.Remove(key) })
	}
	c.faults.mu.Lock()
	there := c.faults.remove(key)
	c.faults.mu.Unlock()
	if err := r.after(ctx); err != nil {
		return err
	}
	if !there {
		return errNotFound
	}
	return nil
}

// NewRangeReader reads an object.
func (c *connection) NewRangeReader(ctx context.Context, key string, offset, length int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	r, err := c.meet(ctx, Read, key)
	if err != nil {
		return nil, err
	}
	if err := r.after(ctx); err != nil {
		return nil, err
	}
	c.faults.mu.Lock()
	defer c.faults.mu.Unlock()
	v, ok := c.faults.current(key)
	if !ok {
		return nil, errNotFound
	}
	data := v.data[min(offset, int64(len(v.data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	b := &body{ctx: ctx, rule: r, attributes: driver.ReaderAttributes{
		ContentType: "application/octet-stream", Size: int64(len(v.data)), ModTime: v.time,
	}}
	if r.Fault == Cut || r.Fault == Short || r.Fault == Stall {
		b.broken = r.Bytes < int64(len(data))
		data = data[:min(r.Bytes, int64(len(data)))]
	}
	b.data = bytes.NewReader(data)
	return b, nil
}

// body is what is read of an object.
type body struct {
	ctx        context.Context
	rule       Rule
	data       *bytes.Reader
	broken     bool // its end is not the object's
	attributes driver.ReaderAttributes
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.data.Read(p)
	if err == nil || !b.broken {
		return n, err
	}
	switch b.rule.Fault {
	case Cut:
		return 0, io.ErrUnexpectedEOF
	case Stall:
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	}
	return 0, io.EOF
}

func (b *body) Close() error                         { return nil }
func (b *body) Attributes() *driver.ReaderAttributes { return &b.attributes }
func (b *body) As(any) bool                          { return false }

// NewTypedWriter writes an object when it is closed.
func (c *connection) NewTypedWriter(ctx context.Context, key, _ string, o *driver.WriterOptions) (driver.Writer, error) {
	op := Write
	if o.IfNotExist {
		op = Create
	}
	r, err := c.meet(ctx, op, key)
	if err != nil {
		return nil, err
	}
	return &writer{ctx: ctx, connection: c, key: key, op: op, rule: r}, nil
}

// writer is an object that is being written.
type writer struct {
	ctx        context.Context
	connection *connection
	key        string
	op         Op
	rule       Rule
	data       bytes.Buffer
	err        error // the connection broke
}

// broken returns the error of a connection that has broken before n bytes.
func (w *writer) broken(n int) error {
	if w.err != nil || int64(n) <= w.rule.Bytes {
		return w.err
	}
	switch w.rule.Fault {
	case Cut:
		w.err = w.rule.Err
	case Stall:
		<-w.ctx.Done()
		w.err = w.ctx.Err()
	}
	return w.err
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.broken(w.data.Len() + len(p)); err != nil {
		return 0, err
	}
	return w.data.Write(p)
}

// Close writes the object, unless the context has ended.
func (w *writer) Close() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if err := w.broken(w.data.Len() + 1); err != nil { // a body that breaks at its end, too
		return err
	}
	if w.rule.Fault == Late {
		return w.rule.late(w.ctx, func() { _ = w.place() })
	}
	if err := w.place(); err != nil {
		return err
	}
	return w.rule.after(w.ctx)
}

func (w *writer) place() error {
	f := w.connection.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.current(w.key); ok && w.op == Create {
		return errExists
	}
	data := w.data.Bytes()
	if w.rule.Fault == Tear {
		data = data[:min(w.rule.Bytes, int64(len(data)))]
	}
	f.objects[w.key] = append(f.objects[w.key], version{time: f.clock(), data: data})
	return nil
}
