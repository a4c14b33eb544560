package manual_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/docs"
	"github.com/tandem-ann/tandem/server/manual"
)

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

var (
	address = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	id      = regexp.MustCompile(` id="([^"]*)"`)
)

// Every page is there in HTML and in Markdown; every link of it leads to something that is there,
// and nothing is asked of elsewhere.
func TestPages(t *testing.T) {
	h := manual.New()
	ids := map[string][]string{}
	for _, p := range docs.Pages() {
		w := get(h, "/docs/"+p.Name)
		require.Equal(t, http.StatusOK, w.Code, p.Name)
		for _, m := range id.FindAllStringSubmatch(w.Body.String(), -1) {
			ids[p.Name] = append(ids[p.Name], m[1])
		}
	}
	for _, p := range docs.Pages() {
		w := get(h, "/docs/"+p.Name)
		html := w.Body.String()
		require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		require.NotContains(t, html, "<script")
		require.NotContains(t, html, " style=")
		for _, s := range p.Sections() {
			require.Contains(t, ids[p.Name], s.Anchor, "%s: %s", p.Name, s.Heading)
		}
		for _, m := range address.FindAllStringSubmatch(html, -1) {
			to, fragment, _ := strings.Cut(m[1], "#")
			switch {
			case to == "/console/":
				continue
			case strings.Contains(to, "://"):
				require.NotContains(t, m[0], "src=", "%s asks elsewhere", p.Name)
				continue
			case to == "":
				to = "/docs/" + p.Name
			case !strings.HasPrefix(to, "/"):
				to = "/docs/" + to
			}
			require.Equal(t, http.StatusOK, get(h, to).Code, "%s leads to %s", p.Name, m[1])
			if fragment != "" {
				require.Contains(t, ids[strings.TrimPrefix(to, "/docs/")], fragment, "%s leads to %s", p.Name, m[1])
			}
		}

		w = get(h, "/docs/"+p.Name+".md")
		require.Equal(t, "text/markdown; charset=utf-8", w.Header().Get("Content-Type"))
		require.Equal(t, p.Text, w.Body.String())
		require.Contains(t, get(h, "/docs/llms.txt").Body.String(), "(/docs/"+p.Name+".md): "+p.Title+"\n")
	}
	require.Equal(t, get(h, "/docs/index").Body.String(), get(h, "/docs/").Body.String())
	require.Equal(t, "text/css; charset=utf-8", get(h, "/docs/style.css").Header().Get("Content-Type"))
	require.Equal(t, "image/svg+xml", get(h, "/docs/recall.svg").Header().Get("Content-Type"))
}

// What is not there is not found, whatever it is called; nothing is changed by asking.
func TestOthers(t *testing.T) {
	h := manual.New()
	for _, path := range []string{"/docs/none", "/docs/none.md", "/docs/docs.go", "/docs/..%2fgo.mod", "/docs/gates/", "/docs/<b>"} {
		w := get(h, path)
		require.Equal(t, http.StatusNotFound, w.Code, path)
		require.NotContains(t, w.Body.String(), "<b>")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/docs/gates", nil))
	require.Equal(t, http.StatusMethodNotAllowed, w.Code)
}
