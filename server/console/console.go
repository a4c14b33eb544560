package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/server/auth"
)

// Path is where the console is, and DocsPath where the documentation is that stands beside it.
const (
	Path     = "/console/"
	DocsPath = "/docs/"
)

const (
	sessionPath = Path + "session"
	apiPath     = Path + "api"
	// maxSignIn is how many bytes a token and what is around it have at most.
	maxSignIn = 1 << 10
)

// Options say what the console shows, and to whom.
type Options struct {
	// API answers the procedures of the contract, at their paths. It asks the guard who calls.
	API http.Handler
	// Guard says who callers are. Nil: whoever reaches the console may do everything.
	Guard *auth.Guard
	// Hosts are names by which browsers may ask, beside localhost and IP addresses.
	Hosts []string
	// TLS says that connections speak TLS: cookies are then sent by no other.
	TLS bool
	// Now is the clock of sessions. Default: time.Now.
	Now func() time.Time
}

// Console is the handler of all that is under [Path]. It is for concurrent use.
type Console struct {
	http.Handler
	console *console
}

// New returns a console.
func New(o Options) *Console {
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &console{options: o, sessions: newSessions(o.Now)}
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, newAssets())
	mux.HandleFunc("GET "+sessionPath, c.describe)
	mux.HandleFunc("POST "+sessionPath, c.signIn)
	mux.HandleFunc("DELETE "+sessionPath, c.signOut)
	mux.HandleFunc("POST "+apiPath+"/", c.call)
	others := http.NewCrossOriginProtection()
	others.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "permission_denied", "the request comes from another site; accepted: from the console itself")
	}))
	return &Console{c.ownHost(secured(others.Handler(mux))), c}
}

// Readable lets requests through to a handler of what is under [DocsPath] that are from a browser whose
// session of the console has not ended, and those whose callers may do anything that callers do: with a
// token of any scope but internal, or by their certificate. Others are answered with 401 or 403 and a line
// of text. Where nobody is asked who they are it lets all through.
func (c *Console) Readable(next http.Handler) http.Handler {
	g := c.console.options.Guard
	if g == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r
		var s *session
		if r.Header.Get("Authorization") == "" {
			s = c.console.sessions.findReader(cookieOf(r, readerName(r)))
		}
		if s != nil {
			asked = r.WithContext(auth.WithTokenHash(r.Context(), s.token))
		}
		denied := g.Admit(asked, auth.Any&^auth.Internal)
		if denied == nil {
			next.ServeHTTP(w, r)
			return
		}
		c.console.endIfGone(s, denied)
		text := denied.Error()
		if denied.Denial != auth.NoScope {
			w.Header().Set("WWW-Authenticate", "Bearer")
			if g.TakesTokens() {
				text += "; in a browser: sign in at " + Path + ", and open this page again"
			}
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, text, denied.Status())
	})
}

type console struct {
	options  Options
	sessions *sessions
}

// policy is the content security policy of all that is served.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// secured sets what browsers are to do with any answer.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // but for files
		next.ServeHTTP(w, r)
	})
}

// ownHost refuses what is asked by a name that may be anybody's.
func (c *console) ownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Host
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		same := func(known string) bool { return strings.EqualFold(known, strings.TrimSuffix(name, ".")) }
		if r.Host == "" || !auth.IsOwnHost(r.Host) && !slices.ContainsFunc(c.options.Hosts, same) {
			refuse(w, http.StatusMisdirectedRequest, "permission_denied", fmt.Sprintf("host is %.100q; accepted: localhost, an IP address, or a name that the server was told the console has", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refuse answers with an error as Connect has it.
func refuse(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, status, map[string]string{"code": code, "message": text})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a browser that went away is nobody's error
}

// state is what the page is told of who it is.
type state struct {
	// SignIn is what a caller is known by: a token, which is to be signed in with, the
	// certificate of the connection, or nothing.
	SignIn string   `json:"signIn"` // "token", "certificate" or "none"
	Caller string   `json:"caller"` // empty if that is not known
	Scopes []string `json:"scopes"` // of the caller; all where nobody is asked
	// Until is when the session ends however much it is used; absent without one.
	Until *time.Time `json:"until,omitempty"`
	// Why is why there is no caller though one is needed.
	Why string `json:"why,omitempty"`
}

func (c *console) describe(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, c.state(r))
}

// state returns who a request is from.
func (c *console) state(r *http.Request) *state {
	g := c.options.Guard
	if g == nil {
		return &state{SignIn: "none", Scopes: strings.Split(auth.Any.String(), ", ")}
	}
	out := &state{SignIn: "certificate", Scopes: []string{}}
	if g.TakesTokens() {
		out.SignIn = "token"
	}
	ctx, s, err := c.identified(r)
	if err == nil {
		id, denied := g.Identify(r.WithContext(ctx))
		if denied == nil {
			out.Caller, out.Scopes = id.Caller.Name, strings.Split(id.Scopes.String(), ", ")
			if s != nil {
				out.Until = &s.until
			}
			return out
		}
		err = denied
	}
	if !errors.Is(err, errNoSession) {
		out.Why = err.Error()
	}
	return out
}

// errNoSession is of a request without a session, where one is needed.
var errNoSession = errors.New("there is no session, or it has ended; sign in")

// identified returns the context in which a request is from who has signed in, and the session;
// nil where there are none, as callers are known otherwise or not asked.
func (c *console) identified(r *http.Request) (context.Context, *session, error) {
	g := c.options.Guard
	if !g.TakesTokens() {
		return r.Context(), nil, nil
	}
	s := c.sessions.find(cookieOf(r, cookieName(r)))
	if s == nil {
		return nil, nil, errNoSession
	}
	ctx := auth.WithTokenHash(r.Context(), s.token)
	if _, denied := g.Identify(r.WithContext(ctx)); denied != nil {
		c.endIfGone(s, denied)
		return nil, nil, denied
	}
	return ctx, s, nil
}

// endIfGone ends a session, if there is one, whose token does not count any more.
func (c *console) endIfGone(s *session, denied *auth.DeniedError) {
	if s != nil && (denied.Denial == auth.UnknownToken || denied.Denial == auth.ExpiredToken) {
		c.sessions.end(s)
	}
}

// signIn begins a session.
func (c *console) signIn(w http.ResponseWriter, r *http.Request) {
	if !c.options.Guard.TakesTokens() {
		refuse(w, http.StatusBadRequest, "failed_precondition", "callers are not known by tokens here: there is nothing to sign in with")
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "invalid_argument", fmt.Sprintf("content type is %.100q; accepted: application/json", r.Header.Get("Content-Type")))
		return
	}
	var message struct {
		Token string `json:"token"`
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSignIn))
	if err := d.Decode(&message); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_argument", fmt.Sprintf("the message cannot be read; accepted: {\"token\": \"...\"}, up to %d bytes", maxSignIn))
		return
	}
	// As any other client sends it: a refusal is told of as any other.
	asked := r.Clone(r.Context())
	asked.Header = http.Header{}
	if message.Token != "" {
		asked.Header.Set("Authorization", "Bearer "+message.Token)
	}
	if denied := c.options.Guard.Admit(asked, auth.Any&^auth.Internal); denied != nil {
		code := "unauthenticated"
		if denied.Denial == auth.NoScope {
			code = "permission_denied"
		}
		text := denied.Error()
		if denied.Denial == auth.NoToken {
			text = "there is no token; accepted: one that tandem token new has printed"
		}
		refuse(w, denied.Status(), code, text)
		return
	}
	id, denied := c.options.Guard.Identify(asked)
	if denied != nil { // the file has changed just now
		refuse(w, denied.Status(), "unauthenticated", denied.Error())
		return
	}
	if old := c.sessions.find(cookieOf(r, cookieName(r))); old != nil {
		c.sessions.end(old)
	}
	secret, reader, s := c.sessions.begin(id.Caller.Name, auth.HashOf(strings.TrimSpace(message.Token)))
	c.setCookies(w, r, secret, reader, int(maxSession.Seconds()))
	writeJSON(w, http.StatusOK, &state{SignIn: "token", Caller: id.Caller.Name, Scopes: strings.Split(id.Scopes.String(), ", "), Until: &s.until})
}

func (c *console) signOut(w http.ResponseWriter, r *http.Request) {
	if s := c.sessions.find(cookieOf(r, cookieName(r))); s != nil {
		c.sessions.end(s)
	}
	c.setCookies(w, r, "", "", -1)
	w.WriteHeader(http.StatusNoContent)
}

// call has a procedure answered for who has signed in.
func (c *console) call(w http.ResponseWriter, r *http.Request) {
	ctx, _, err := c.identified(r)
	if err != nil {
		refuse(w, http.StatusUnauthorized, "unauthenticated", err.Error())
		return
	}
	asked := r.Clone(ctx)
	asked.URL.Path, asked.URL.RawPath = strings.TrimPrefix(r.URL.Path, apiPath), ""
	// What a browser has for us is nobody else's, and a token in a header is not of the session.
	for _, name := range []string{"Authorization", "Cookie", "Origin"} {
		asked.Header.Del(name)
	}
	// Whoever looks is served after those who are served with candidates.
	if asked.Header.Get(priorityHeader) == "" {
		asked.Header.Set(priorityHeader, auth.BatchPriority.String())
	}
	c.options.API.ServeHTTP(w, asked)
}

// priorityHeader is [server.PriorityHeader].
const priorityHeader = "Tandem-Priority"
