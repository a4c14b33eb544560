package console_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/console"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a console with its clock, and what its API was asked.
type world struct {
	t     *testing.T
	h     *console.Console
	file  string // of tokens
	guard *auth.Guard
	now   time.Time
	asked []*http.Request
}

// newWorld returns a console whose callers need one of the tokens, by their names. Its API asks the
// guard as the server does.
func newWorld(t *testing.T, o console.Options, entries ...string) *world {
	w := &world{t: t, now: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return w.now }
	if entries != nil {
		w.file = filepath.Join(t.TempDir(), "tokens.yaml")
		w.tokens(entries...)
		var err error
		w.guard, err = auth.Open(auth.Options{TokenFile: w.file, Now: clock})
		require.NoError(t, err)
	}
	o.Guard, o.Now = w.guard, clock
	o.API = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked = append(w.asked, r)
		if denied := w.guard.Admit(r, auth.Needed(r.URL.Path)); denied != nil {
			rw.WriteHeader(denied.Status())
			return
		}
		_, _ = io.WriteString(rw, "answered")
	})
	w.h = console.New(o)
	return w
}

// secretOf is the token of a caller.
func secretOf(name string) string { return "tandem_" + name }

func entry(name, scopes string) string {
	return fmt.Sprintf("- {name: %s, hash: 'sha256:%x', scopes: [%s]}\n", name, auth.HashOf(secretOf(name)), scopes)
}

// tokens has the file be of these entries.
func (w *world) tokens(entries ...string) {
	text := strings.Join(entries, "")
	if text == "" {
		text = "[]\n"
	}
	require.NoError(w.t, os.WriteFile(w.file, []byte(text), 0o600))
	if w.guard != nil {
		require.NoError(w.t, w.guard.Files().Look())
	}
}

type change func(*http.Request)

func header(name, value string) change { return func(r *http.Request) { r.Header.Set(name, value) } }

func with(c *http.Cookie) change { return func(r *http.Request) { r.AddCookie(c) } }

func host(name string) change { return func(r *http.Request) { r.Host = name } }

// answer is what a request was answered with, whole.
type answer struct {
	StatusCode int
	Header     http.Header
	cookies    []*http.Cookie
	body       string
}

func (w *world) ask(method, path, body string, changes ...change) *answer {
	return ask(w.h, method, path, body, changes...)
}

func ask(h http.Handler, method, path, body string, changes ...change) *answer {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:6060"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range changes {
		c(r)
	}
	out := httptest.NewRecorder()
	h.ServeHTTP(out, r)
	result := out.Result()
	defer result.Body.Close()
	return &answer{result.StatusCode, result.Header, result.Cookies(), out.Body.String()}
}

// signIn begins a session of a caller, and returns its cookie.
func (w *world) signIn(name string, changes ...change) *http.Cookie {
	c, _ := w.signInToRead(name, changes...)
	return c
}

// signInToRead begins a session of a caller, and returns its cookie, and the one that reads.
func (w *world) signInToRead(name string, changes ...change) (c, reader *http.Cookie) {
	r := w.ask(http.MethodPost, "/console/session", fmt.Sprintf(`{"token": %q}`, secretOf(name)), changes...)
	require.Equal(w.t, http.StatusOK, r.StatusCode, r.body)
	require.Len(w.t, r.cookies, 2)
	return r.cookies[0], r.cookies[1]
}

// read asks for a page of the documentation.
func (w *world) read(changes ...change) *answer {
	page := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "a page") })
	return ask(w.h.Readable(page), http.MethodGet, "/docs/gates", "", changes...)
}

const (
	status   = "/console/api/tandem.v1.AdminService/GetStatus"
	retrieve = "/console/api/tandem.v1.RetrievalService/Retrieve"
	rollback = "/console/api/tandem.v1.ReleaseService/Rollback"
)

// TestEveryAnswerIsSecured holds what browsers are told with whatever is answered.
func TestEveryAnswerIsSecured(t *testing.T) {
	w := newWorld(t, console.Options{}, entry("ann", "admin"))
	for _, r := range []*answer{
		w.ask(http.MethodGet, "/console/", ""),
		w.ask(http.MethodGet, "/console/nothing", ""),
		w.ask(http.MethodGet, "/console/session", ""),
		w.ask(http.MethodPost, "/console/session", `{"token": "wrong"}`),
		w.ask(http.MethodPost, status, "{}"),
		w.ask(http.MethodPut, status, "{}"),
		w.ask(http.MethodPost, status, "{}", header("Sec-Fetch-Site", "cross-site")),
	} {
		policy := r.Header.Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'")
		require.Contains(t, policy, "frame-ancestors 'none'")
		require.Contains(t, policy, "require-trusted-types-for 'script'")
		require.NotContains(t, policy, "unsafe")
		require.NotContains(t, policy, "http")
		require.Equal(t, "nosniff", r.Header.Get("X-Content-Type-Options"))
		require.Equal(t, "no-referrer", r.Header.Get("Referrer-Policy"))
		require.Empty(t, r.Header.Get("Access-Control-Allow-Origin"))
		require.NotEmpty(t, r.Header.Get("Cache-Control"))
	}
}

// TestFiles asks for each file that is embedded, as it is and compressed, and again.
func TestFiles(t *testing.T) {
	w := newWorld(t, console.Options{})
	compressed, scripts := 0, 0
	err := fs.WalkDir(os.DirFS("dist"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, err := os.ReadFile(filepath.Join("dist", name))
		require.NoError(t, err)
		path := "/console/" + name
		plain := w.ask(http.MethodGet, path, "")
		require.Equal(t, http.StatusOK, plain.StatusCode, path)
		require.Equal(t, string(want), plain.body)
		require.Empty(t, plain.Header.Get("Content-Encoding"))
		require.Equal(t, "Accept-Encoding", plain.Header.Get("Vary"))
		lasting := strings.HasPrefix(name, "assets/")
		require.Equal(t, lasting, strings.Contains(plain.Header.Get("Cache-Control"), "immutable"), path)
		zipped := w.ask(http.MethodGet, path, "", header("Accept-Encoding", "br, gzip;q=0.8"))
		data := []byte(zipped.body)
		compressed += len(data)
		if zipped.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(bytes.NewReader(data))
			require.NoError(t, err)
			data, err = io.ReadAll(z)
			require.NoError(t, err)
		}
		require.Equal(t, string(want), string(data))
		for _, first := range []*answer{plain, zipped} {
			again := w.ask(http.MethodGet, path, "", header("If-None-Match", first.Header.Get("Etag")), header("Accept-Encoding", map[bool]string{true: "gzip", false: "identity"}[first == zipped]))
			require.Equal(t, http.StatusNotModified, again.StatusCode, path)
		}
		if filepath.Ext(name) == ".js" {
			scripts++
			require.Equal(t, "text/javascript; charset=utf-8", plain.Header.Get("Content-Type"))
		}
		return nil
	})
	require.NoError(t, err)
	require.Positive(t, scripts)
	require.Less(t, compressed, 250_000, "bytes of all files, compressed")
	for _, none := range []string{"gzip;q=0", "gzip; q=0.0", "br", ""} {
		r := w.ask(http.MethodGet, "/console/", "", header("Accept-Encoding", none))
		require.Empty(t, r.Header.Get("Content-Encoding"), none)
	}
	for _, path := range []string{"/console/assets/", "/console/assets", "/console/index.htm", "/console/doc.go"} {
		require.Equal(t, http.StatusNotFound, w.ask(http.MethodGet, path, "").StatusCode, path)
	}
}

// TestPageIsOfThisOrigin holds that the page has no script and no style within it, and asks for
// nothing elsewhere.
func TestPageIsOfThisOrigin(t *testing.T) {
	page, err := os.ReadFile("dist/index.html")
	require.NoError(t, err)
	require.NotRegexp(t, `<style|style=|\son\w+=|https?://`, string(page))
	for _, m := range regexp.MustCompile(`<script[^>]*>([^<]*)`).FindAllStringSubmatch(string(page), -1) {
		require.Empty(t, strings.TrimSpace(m[1]))
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(string(page), -1) {
		require.True(t, strings.HasPrefix(m[1], "./"), m[1])
	}
}

// TestHost asks by names that are not of the server, on loopback too, whoever is signed in.
func TestHost(t *testing.T) {
	open := newWorld(t, console.Options{Hosts: []string{"tandem.example"}})
	asking := newWorld(t, console.Options{Hosts: []string{"tandem.example"}}, entry("ann", "admin"))
	for name, want := range map[string]int{
		"127.0.0.1:6060": 200, "localhost:6060": 200, "LOCALHOST.": 200, "[::1]:6060": 200, "10.1.2.3": 200,
		"tandem.example": 200, "Tandem.Example:6060": 200, "tandem.example.": 200,
		"evil.example": 421, "evil.example:6060": 421, "xtandem.example": 421, "tandem.example.evil.example": 421, "": 421,
	} {
		for _, w := range []*world{open, asking} {
			for _, path := range []string{"/console/", "/console/session"} {
				require.Equal(t, want, w.ask(http.MethodGet, path, "", host(name)).StatusCode, name)
			}
		}
		r := open.ask(http.MethodPost, status, "{}", host(name))
		require.Equal(t, want, r.StatusCode, name)
	}
	long := open.ask(http.MethodGet, "/console/", "", host(strings.Repeat("x", 5000)))
	require.Less(t, len(long.body), 400)
}

// TestOtherSites holds that what another site sends is refused, as browsers mark it, and that
// nothing is asked of the API by GET.
func TestOtherSites(t *testing.T) {
	w := newWorld(t, console.Options{})
	for _, c := range []struct {
		want    int
		changes []change
	}{
		{200, nil},
		{200, []change{header("Sec-Fetch-Site", "same-origin"), header("Origin", "http://127.0.0.1:6060")}},
		{403, []change{header("Sec-Fetch-Site", "cross-site")}},
		{403, []change{header("Sec-Fetch-Site", "same-site")}},
		{403, []change{header("Origin", "http://evil.example")}},
		{403, []change{header("Origin", "http://127.0.0.1:8080")}},
	} {
		require.Equal(t, c.want, w.ask(http.MethodPost, rollback, "{}", c.changes...).StatusCode)
	}
	require.Len(t, w.asked, 2)
	require.Empty(t, w.asked[1].Header.Get("Origin"), "so that no rule of other listeners counts")
	require.Equal(t, http.StatusNotFound, w.ask(http.MethodGet, status+"?message={}", "").StatusCode)
	require.Equal(t, http.StatusMethodNotAllowed, w.ask(http.MethodOptions, status, "").StatusCode)
	require.Len(t, w.asked, 2)
}

// TestScopes holds that each procedure needs the scope that it needs elsewhere, and that a token in
// a header is not what a session is.
func TestScopes(t *testing.T) {
	w := newWorld(t, console.Options{}, entry("ranker", "query"), entry("oncall", "admin"), entry("peer", "internal"), entry("releaser", "publish"))
	for path, need := range auth.Procedures {
		for name, has := range map[string]auth.Scopes{"ranker": auth.Query, "oncall": auth.Admin, "releaser": auth.Publish} {
			r := w.ask(http.MethodPost, "/console/api"+path, "{}", with(w.signIn(name)))
			if need&has != 0 {
				require.Equal(t, http.StatusOK, r.StatusCode, "%s by %s", path, name)
			} else {
				require.Equal(t, http.StatusForbidden, r.StatusCode, "%s by %s", path, name)
			}
		}
	}
	asked := len(w.asked)
	for _, r := range []*answer{
		w.ask(http.MethodPost, status, "{}"),
		w.ask(http.MethodPost, status, "{}", header("Authorization", "Bearer "+secretOf("oncall"))),
		w.ask(http.MethodPost, status, "{}", with(&http.Cookie{Name: "tandem_session_6060", Value: "made-up"})),
	} {
		require.Equal(t, http.StatusUnauthorized, r.StatusCode)
		require.Contains(t, r.body, `"code":"unauthenticated"`)
	}
	require.Len(t, w.asked, asked, "the API is not asked")

	r := w.ask(http.MethodPost, retrieve, "{}", with(w.signIn("ranker")), header("Authorization", "Bearer "+secretOf("oncall")))
	require.Equal(t, http.StatusOK, r.StatusCode)
	last := w.asked[len(w.asked)-1]
	require.Equal(t, "/tandem.v1.RetrievalService/Retrieve", last.URL.Path)
	require.Empty(t, last.Header.Get("Authorization"))
	require.Empty(t, last.Header.Get("Cookie"))
	require.Equal(t, "batch", last.Header.Get("Tandem-Priority"))

	r = w.ask(http.MethodPost, "/console/session", fmt.Sprintf(`{"token": %q}`, secretOf("peer")))
	require.Equal(t, http.StatusForbidden, r.StatusCode, "a node has nothing to look at")
}

// said is what GET /console/session says.
func (w *world) said(changes ...change) (out struct {
	SignIn, Caller, Why string
	Scopes              []string
	Until               *time.Time
}) {
	r := w.ask(http.MethodGet, "/console/session", "", changes...)
	require.Equal(w.t, http.StatusOK, r.StatusCode)
	require.NoError(w.t, json.NewDecoder(strings.NewReader(r.body)).Decode(&out))
	return out
}

// TestSession follows one from its beginning to each of its ends.
func TestSession(t *testing.T) {
	all := []string{entry("ann", "admin, query"), entry("bob", "live")}
	w := newWorld(t, console.Options{}, all...)
	before := w.said()
	require.Equal(t, "token", before.SignIn)
	require.Empty(t, before.Caller)
	require.Empty(t, before.Why)

	c := w.signIn("ann")
	require.True(t, c.HttpOnly)
	require.Equal(t, http.SameSiteStrictMode, c.SameSite)
	require.Equal(t, "/console/", c.Path)
	require.Equal(t, "tandem_session_6060", c.Name)
	require.False(t, c.Secure, "the connection is in clear text")
	require.NotContains(t, c.String(), secretOf("ann"))
	during := w.said(with(c))
	require.Equal(t, "ann", during.Caller)
	require.Equal(t, []string{"query", "admin"}, during.Scopes)
	require.Equal(t, w.now.Add(12*time.Hour), *during.Until)
	works := func(c *http.Cookie) bool {
		r := w.ask(http.MethodPost, status, "{}", with(c))
		require.Contains(t, []int{http.StatusOK, http.StatusUnauthorized}, r.StatusCode)
		return r.StatusCode == http.StatusOK
	}
	require.True(t, works(c))
	require.Empty(t, w.said(with(c), host("127.0.0.1:6061")).Caller, "another server of the host is another one")

	// At sign-out.
	require.Equal(t, http.StatusNoContent, w.ask(http.MethodDelete, "/console/session", "", with(c)).StatusCode)
	require.False(t, works(c))

	// When it is not used, and when it is used for long.
	c = w.signIn("ann")
	w.now = w.now.Add(time.Hour - time.Second)
	require.True(t, works(c))
	w.now = w.now.Add(time.Hour)
	require.False(t, works(c))
	c = w.signIn("ann")
	for range 23 {
		w.now = w.now.Add(30 * time.Minute)
		require.True(t, works(c))
	}
	w.now = w.now.Add(30 * time.Minute)
	require.False(t, works(c))

	// When its token does not count any more; and it does not come back with it.
	c = w.signIn("ann")
	other := w.signIn("bob")
	w.tokens(all[1])
	gone := w.said(with(c))
	require.Empty(t, gone.Caller)
	require.Equal(t, "the token is not known", gone.Why)
	require.False(t, works(c))
	w.tokens(all...)
	require.False(t, works(c))
	require.True(t, works(other))

	// What a caller may do is looked at each time.
	w.tokens(entry("ann", "admin"), entry("bob", "query"))
	require.Equal(t, http.StatusForbidden, w.ask(http.MethodPost, status, "{}", with(other)).StatusCode)
	require.Equal(t, http.StatusOK, w.ask(http.MethodPost, retrieve, "{}", with(other)).StatusCode)

	// A second sign-in in one browser ends the first.
	c = w.signIn("ann")
	again := w.signIn("ann", with(c))
	require.False(t, works(c))
	require.True(t, works(again))
}

// TestReadable has the documentation read by who has signed in, for as long as that lasts, and by who
// sends a token; by what a browser sends to it nothing else is done.
func TestReadable(t *testing.T) {
	all := []string{entry("ann", "query"), entry("bob", "admin"), entry("peer", "internal")}
	w := newWorld(t, console.Options{TLS: true}, all...)
	none := w.read()
	require.Equal(t, http.StatusUnauthorized, none.StatusCode)
	require.Contains(t, none.body, "there is no token")
	require.Contains(t, none.body, "sign in at /console/")
	require.Equal(t, "Bearer", none.Header.Get("WWW-Authenticate"))
	require.Equal(t, http.StatusForbidden, w.read(header("Authorization", "Bearer "+secretOf("peer"))).StatusCode)
	require.Equal(t, "a page", w.read(header("Authorization", "Bearer "+secretOf("ann"))).body)

	c, reader := w.signInToRead("ann")
	require.Equal(t, "/docs/", reader.Path)
	require.True(t, reader.HttpOnly && reader.Secure)
	require.NotEqual(t, c.Value, reader.Value)
	require.NotContains(t, reader.String(), secretOf("ann"))
	require.Equal(t, "a page", w.read(with(reader)).body)
	require.Equal(t, http.StatusUnauthorized, w.read(with(c)).StatusCode, "the id of the session is not for this path")
	// Under whichever name it is sent, it is no session.
	for _, name := range []string{reader.Name, c.Name} {
		sent := &http.Cookie{Name: name, Value: reader.Value}
		require.Equal(t, http.StatusUnauthorized, w.ask(http.MethodPost, retrieve, "{}", with(sent)).StatusCode)
		require.Empty(t, w.said(with(sent)).Caller)
		require.Equal(t, http.StatusNoContent, w.ask(http.MethodDelete, "/console/session", "", with(sent)).StatusCode)
	}
	require.Equal(t, "a page", w.read(with(reader)).body)
	require.Equal(t, http.StatusUnauthorized, w.read(with(reader), with(reader)).StatusCode)
	require.Equal(t, http.StatusUnauthorized, w.read(with(reader), host("127.0.0.1:6061")).StatusCode)
	require.Equal(t, http.StatusUnauthorized, w.read(with(reader), header("Authorization", "Bearer wrong")).StatusCode, "a token that is sent counts")

	// It ends with the session, whichever way that ends.
	out := w.ask(http.MethodDelete, "/console/session", "", with(c))
	require.Len(t, out.cookies, 2)
	for i, path := range []string{"/console/", "/docs/"} {
		require.Equal(t, path, out.cookies[i].Path)
		require.Negative(t, out.cookies[i].MaxAge)
	}
	require.Equal(t, http.StatusUnauthorized, w.read(with(reader)).StatusCode)
	_, reader = w.signInToRead("ann")
	for range 23 { // reading is use
		w.now = w.now.Add(30 * time.Minute)
		require.Equal(t, http.StatusOK, w.read(with(reader)).StatusCode)
	}
	w.now = w.now.Add(30 * time.Minute)
	require.Equal(t, http.StatusUnauthorized, w.read(with(reader)).StatusCode)
	_, reader = w.signInToRead("ann")
	for range 16 {
		w.now = w.now.Add(time.Second)
		w.signIn("ann")
	}
	require.Equal(t, http.StatusUnauthorized, w.read(with(reader)).StatusCode, "it was one too many")
	_, reader = w.signInToRead("ann")
	w.tokens(all[1:]...)
	gone := w.read(with(reader))
	require.Equal(t, http.StatusUnauthorized, gone.StatusCode)
	require.Contains(t, gone.body, "the token is not known")

	open := newWorld(t, console.Options{})
	require.Equal(t, "a page", open.read().body)
}

// TestSessionsAreBounded has a caller begin many, which end its own and nobody else's.
func TestSessionsAreBounded(t *testing.T) {
	w := newWorld(t, console.Options{TLS: true}, entry("ann", "admin"), entry("bob", "admin"))
	others := w.signIn("bob")
	require.True(t, others.Secure)
	var list []*http.Cookie
	for range 40 {
		w.now = w.now.Add(time.Second)
		list = append(list, w.signIn("ann"))
	}
	n := 0
	for i, c := range list {
		if w.said(with(c)).Caller != "" {
			require.GreaterOrEqual(t, i, 40-16)
			n++
		}
	}
	require.Equal(t, 16, n)
	require.Equal(t, "bob", w.said(with(others)).Caller)
}

// TestSignInIsRefused says why, and nothing of the token.
func TestSignInIsRefused(t *testing.T) {
	w := newWorld(t, console.Options{}, entry("ann", "admin"))
	for body, want := range map[string]string{
		`{"token": "tandem_wrong"}`: "the token is not known",
		`{"token": ""}`:             "there is no token",
		`{}`:                        "there is no token",
		`tandem_wrong`:              "the message cannot be read",
		`{"token": "` + strings.Repeat("tandem_wrong", 200) + `"}`: "the message cannot be read",
		`{"token": "tandem_wrong\n"}`:                              "the token is not known",
		`{"token": "tandem_wrong, tandem_wrong"}`:                  "the token is not known",
	} {
		r := w.ask(http.MethodPost, "/console/session", body)
		said := r.body
		require.Contains(t, said, want)
		require.NotContains(t, said, "tandem_wrong")
		require.Empty(t, r.cookies)
		require.GreaterOrEqual(t, r.StatusCode, 400)
	}
	r := w.ask(http.MethodPost, "/console/session", `{"token": "`+secretOf("ann")+`"}`, header("Content-Type", "text/plain"))
	require.Equal(t, http.StatusUnsupportedMediaType, r.StatusCode, "a form of another site can send that")
	open := newWorld(t, console.Options{})
	require.Equal(t, http.StatusBadRequest, open.ask(http.MethodPost, "/console/session", `{"token": "x"}`).StatusCode)
	require.Equal(t, "none", open.said().SignIn)
	require.Equal(t, strings.Split(auth.Any.String(), ", "), open.said().Scopes)
}
