package auth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/server/filewatch"
)

// Identity is who has sent a request, and what it may do.
type Identity struct {
	Caller   *Caller
	Scopes   Scopes
	Priority Priority // of its requests that do not say a lower one
}

// Check returns an error unless the identity has one of the scopes that are needed.
func (i *Identity) Check(need Scopes) *DeniedError {
	if i.Scopes&need != 0 {
		return nil
	}
	return &DeniedError{NoScope, fmt.Sprintf("caller %q has the scopes %s; accepted: %s", i.Caller.Name, i.Scopes, need)}
}

// Denial is why a request is refused.
type Denial uint8

// The denials.
const (
	NoToken        Denial = iota + 1 // none was sent
	UnknownToken                     // one that is not in the file, or that is none
	ExpiredToken                     // its time is over
	NoCertificate                    // the connection began without one
	BadCertificate                   // it does not count, or not any more
	NoScope                          // the caller is known, and may not
	OtherHost                        // the request was meant for another host
)

// DeniedError is the error of a request that is refused. Its text has nothing of a token.
type DeniedError struct {
	Denial Denial
	text   string
}

// Error implements [error].
func (e *DeniedError) Error() string { return e.text }

// Status returns the status of HTTP.
func (e *DeniedError) Status() int {
	switch e.Denial {
	case NoScope:
		return http.StatusForbidden
	case OtherHost:
		return http.StatusMisdirectedRequest
	}
	return http.StatusUnauthorized
}

// Peer is the other end of a connection that began with certificates.
type Peer interface {
	// Client returns the name that its certificate has, empty if it has sent none, and an
	// error if that does not count any more.
	Client() (name string, err error)
}

type peerKey struct{}

// WithPeer makes the other end of a connection known to the handlers of its requests.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// Options say how callers are known.
type Options struct {
	// TokenFile is the file of tokens. Empty: certificates name callers.
	TokenFile string
	// Certificates has every caller come with a certificate, beside its token if there is a
	// file of those.
	Certificates bool
	// CertificateScopes are the scopes of callers that are known by their certificates.
	CertificateScopes Scopes
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Guard identifies callers. A nil Guard lets everybody do everything. It is for concurrent use.
type Guard struct {
	options Options
	file    *filewatch.Files // nil without tokens
	tokens  atomic.Pointer[Tokens]

	mu      sync.Mutex
	callers atomic.Pointer[map[string]*Caller] // of the file, replaced as a whole with mu held
}

// Open returns a guard whose tokens are read.
func Open(o Options) (*Guard, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	g := &Guard{options: o}
	g.callers.Store(&map[string]*Caller{})
	if o.TokenFile == "" {
		return g, nil
	}
	g.file = filewatch.New("tokens", MaxFileBytes+1, func(contents [][]byte) error {
		t, err := ParseTokens(contents[0])
		if err != nil {
			return err
		}
		g.use(t)
		return nil
	}, o.TokenFile)
	if err := g.file.Look(); err != nil {
		return nil, err
	}
	return g, nil
}

// Files returns what the guard has read from files, to be read again; nil without tokens.
func (g *Guard) Files() *filewatch.Files {
	if g == nil {
		return nil
	}
	return g.file
}

// Tokens returns how many tokens count now.
func (g *Guard) Tokens() int {
	if g == nil || g.file == nil {
		return 0
	}
	return g.tokens.Load().Len()
}

// use has tokens count from now on. A caller goes on with what it has taken.
func (g *Guard) use(t *Tokens) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, before, callers := g.options.Now(), *g.callers.Load(), map[string]*Caller{}
	for i := range t.list {
		token := &t.list[i]
		c := before[token.Name]
		if c == nil {
			c = newCaller(token.Name, token.Quota, now)
		} else if callers[token.Name] == nil {
			c.allow(token.Quota, now)
		}
		if callers[token.Name] == nil {
			callers[token.Name] = c
		}
	}
	g.callers.Store(&callers)
	g.tokens.Store(t)
}

// Identify returns who has sent a request, which is not nil unless the error is.
func (g *Guard) Identify(r *http.Request) (*Identity, *DeniedError) {
	name, denied := g.certificate(r.Context())
	if denied != nil {
		return nil, denied
	}
	if g.options.TokenFile == "" {
		// There is no quota by certificate, so nothing is kept of its caller.
		return &Identity{Caller: &Caller{Name: name}, Scopes: g.options.CertificateScopes}, nil
	}
	hash, held := r.Context().Value(hashKey{}).([sha256.Size]byte)
	if !held {
		secret, denied := bearer(r.Header)
		if denied != nil {
			return nil, denied
		}
		hash = HashOf(secret)
	}
	token := g.tokens.Load().byHash[hash]
	switch {
	case token == nil:
		return nil, &DeniedError{UnknownToken, "the token is not known"}
	case !token.Expires.IsZero() && !g.options.Now().Before(token.Expires):
		return nil, &DeniedError{ExpiredToken, fmt.Sprintf("the token of caller %q has expired at %s", token.Name, token.Expires.UTC().Format(time.RFC3339))}
	}
	c := (*g.callers.Load())[token.Name]
	if c == nil { // the file has changed just now
		return nil, &DeniedError{UnknownToken, "the token is not known"}
	}
	return &Identity{Caller: c, Scopes: token.Scopes, Priority: token.Priority}, nil
}

// certificate returns the name that the certificate of a connection has, if one is needed.
func (g *Guard) certificate(ctx context.Context) (string, *DeniedError) {
	if !g.options.Certificates {
		return "", nil
	}
	peer, ok := ctx.Value(peerKey{}).(Peer)
	if !ok {
		return "", &DeniedError{NoCertificate, "the connection is without TLS; accepted: one with a client certificate"}
	}
	name, err := peer.Client()
	switch {
	case err != nil:
		return "", &DeniedError{BadCertificate, "the client certificate does not count: " + err.Error()}
	case name == "":
		return "", &DeniedError{NoCertificate, "the connection is without a client certificate; accepted: one that the authority of the server has signed, with a name (SAN)"}
	}
	return name, nil
}

// bearer returns the token of a request.
func bearer(header http.Header) (string, *DeniedError) {
	values := header["Authorization"]
	if len(values) == 0 {
		return "", &DeniedError{NoToken, "there is no token; accepted: header authorization with Bearer and a token"}
	}
	scheme, secret, _ := strings.Cut(values[0], " ")
	if secret = strings.TrimSpace(secret); len(values) > 1 || !strings.EqualFold(scheme, "bearer") || secret == "" || len(secret) > maxToken {
		return "", &DeniedError{UnknownToken, "header authorization has no token; accepted: Bearer and a token, once"}
	}
	return secret, nil
}

type hashKey struct{}

// WithTokenHash has a request be from whoever has the token of a hash (see [HashOf]), whatever its
// header says. It is for what has seen the token before, and does not keep it.
func WithTokenHash(ctx context.Context, hash [sha256.Size]byte) context.Context {
	return context.WithValue(ctx, hashKey{}, hash)
}

// TakesTokens reports whether callers need a token.
func (g *Guard) TakesTokens() bool { return g != nil && g.options.TokenFile != "" }

type refusalsKey struct{}

// WithRefusals has [Guard.Require] tell of a request that it refuses, with the name of its
// caller, empty if that is not known.
func WithRefusals(ctx context.Context, told func(r *http.Request, caller string, denied *DeniedError)) context.Context {
	return context.WithValue(ctx, refusalsKey{}, told)
}

// tellRefusal tells of a request that is refused, if anybody is to know.
func tellRefusal(r *http.Request, id *Identity, denied *DeniedError) {
	told, ok := r.Context().Value(refusalsKey{}).(func(*http.Request, string, *DeniedError))
	if !ok {
		return
	}
	caller := ""
	if id != nil {
		caller = id.Caller.Name
	}
	told(r, caller, denied)
}

// Admit returns why a request is refused whose callers are to have one of the scopes, and tells of
// it; nil if it is not. A nil guard lets all through.
func (g *Guard) Admit(r *http.Request, need Scopes) *DeniedError {
	if g == nil || need == 0 {
		return nil
	}
	id, denied := g.Identify(r)
	if denied == nil {
		denied = id.Check(need)
	}
	if denied != nil {
		tellRefusal(r, id, denied)
	}
	return denied
}

// Require returns what lets requests through to a handler whose callers have one of the
// scopes, and answers others with 401 or 403 and a line of text. It is for handlers that are no
// procedures of the contract. A nil guard lets all through.
func (g *Guard) Require(need Scopes) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		if g == nil || need == 0 {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			denied := g.Admit(r, need)
			if denied == nil {
				next.ServeHTTP(w, r)
				return
			}
			if denied.Denial != NoScope {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, denied.Error(), denied.Status())
		})
	}
}
