package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed all:dist
var built embed.FS

// asset is one file of the page.
type asset struct {
	kind    string // its content type
	plain   []byte
	tag     string // a hash of it
	lasting bool   // its name changes when it does
	gzipped func() []byte
}

// kinds are the content types of the files that there are, by the ends of their names.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

// assets serves the files of the page.
type assets map[string]*asset

// newAssets returns the files that are embedded.
func newAssets() assets {
	list := assets{}
	err := fs.WalkDir(built, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := built.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		a := &asset{kind: kinds[path.Ext(name)], plain: data, tag: fmt.Sprintf("%x", sum[:8])}
		if a.kind == "" {
			return fmt.Errorf("%s has no content type", name)
		}
		name = strings.TrimPrefix(name, "dist/")
		a.lasting = strings.HasPrefix(name, "assets/")
		a.gzipped = sync.OnceValue(func() []byte { return compress(data) })
		list[name] = a
		return nil
	})
	if err != nil {
		panic(err) // what is embedded is known when this is built
	}
	return list
}

// compress returns data compressed with gzip, nil if that is no less.
func compress(data []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // there is such a level
	_, _ = w.Write(data)                                  // a buffer takes all
	_ = w.Close()
	if b.Len() >= len(data) {
		return nil
	}
	return b.Bytes()
}

// ServeHTTP implements [http.Handler].
func (l assets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, Path)
	if name == "" {
		name = "index.html"
	}
	a := l[name]
	if a == nil {
		http.Error(w, fmt.Sprintf("there is no %.100q here; accepted: %s", r.URL.Path, Path), http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("Vary", "Accept-Encoding")
	if h.Set("Cache-Control", "no-cache"); a.lasting {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	data, tag := a.plain, a.tag
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		if zipped := a.gzipped(); zipped != nil {
			h.Set("Content-Encoding", "gzip")
			data, tag = zipped, a.tag+"-gzip"
		}
	}
	h.Set("Etag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// acceptsGzip reports whether a header accept-encoding names gzip, and not with a weight of 0.
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			weight = strings.ReplaceAll(weight, " ", "")
			return strings.Trim(strings.TrimPrefix(strings.ToLower(weight), "q="), "0.") != "" || weight == ""
		}
	}
	return false
}
