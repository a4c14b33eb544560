package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Connect decompresses a body without the context of its request, and that may take a
// second. So a body is decompressed by its call, once it has arrived, and Connect sees none
// that is compressed.

// takeEncoding returns how the body of a request is compressed, empty if it is not, and
// has Connect take it for one that is not. What it is compressed with stays what the answer
// is, as Connect has it.
func takeEncoding(r *http.Request) string {
	name, accept := "Content-Encoding", "Accept-Encoding"
	if isGRPC(r.Header) {
		name, accept = "Grpc-Encoding", "Grpc-Accept-Encoding"
	}
	encoding := r.Header.Get(name)
	if encoding != "gzip" && encoding != "zstd" {
		return ""
	}
	r.Header.Del(name)
	r.Header.Set(accept, encoding)
	return encoding
}

// takeQuery takes a message that is compressed out of the URL of a GET, and has Connect take it
// for an empty one. What is none is left to Connect, which says so.
func (c *call) takeQuery(r *http.Request) {
	if !strings.Contains(r.URL.RawQuery, "compression=") {
		return
	}
	query := r.URL.Query()
	encoding, data := query.Get("compression"), []byte(query.Get("message"))
	if encoding != "gzip" && encoding != "zstd" || len(data) == 0 {
		return
	}
	if query.Get("base64") == "1" {
		n, err := base64.RawURLEncoding.Decode(data, bytes.TrimRight(data, "="))
		if err != nil {
			return
		}
		data = data[:n]
	}
	c.data = c.limits.buffers.take(len(data))
	if !c.limits.bytes.take(c, int64(cap(c.data))) {
		c.free()
		c.err = c.limits.bytes.full()
		return
	}
	c.data, c.length = append(c.data, data...), -1
	c.packed, c.taken, c.json = encoding, true, isJSON(query.Get("encoding"))
	query.Del("compression")
	query.Del("base64")
	query.Set("message", "")
	r.URL.RawQuery = query.Encode()
	r.Header.Set("Accept-Encoding", encoding)
}

// inflaters are decompressors of each encoding, for messages of up to so many bytes.
type inflaters struct{ gzip, zstd sync.Pool }

func newInflaters(limit int) *inflaters {
	return &inflaters{
		gzip: sync.Pool{New: func() any { return newDecompressor("gzip", limit) }},
		zstd: sync.Pool{New: func() any { return newDecompressor("zstd", limit) }},
	}
}

// of returns the decompressors of an encoding.
func (i *inflaters) of(encoding string) *sync.Pool {
	if encoding == "gzip" {
		return &i.gzip
	}
	return &i.zstd
}

// inflate decompresses the message that has arrived.
func (c *call) inflate(ctx context.Context) error {
	if c.head > 0 && c.data[0] == 0 {
		return nil // this one is not compressed
	}
	if len(c.data) == c.head {
		return nil // as Connect has it
	}
	packed := c.data
	defer c.limits.buffers.give(packed)
	pool := c.limits.inflaters.of(c.packed)
	d, _ := pool.Get().(*decompressor) // it has no others
	d.begin(ctx, bytes.NewReader(packed[c.head:]))
	err := c.inflateFrom(d)
	_ = d.Close()                              // what was wrong is told
	d.begin(context.Background(), http.NoBody) // it keeps nothing of the call
	pool.Put(d)
	return err
}

// inflateFrom reads the message.
func (c *call) inflateFrom(d *decompressor) error {
	c.data, c.head, c.length = nil, 0, -1
	for {
		if len(c.data) == cap(c.data) {
			if err := c.grow(c.limits.maxBytes); err != nil {
				return err
			}
		}
		n, err := d.Read(c.data[len(c.data):cap(c.data)])
		c.data = c.data[:len(c.data)+n]
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
