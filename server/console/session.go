package console

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxSession is how long a session lasts, and maxIdle how long without a request.
	maxSession = 12 * time.Hour
	maxIdle    = time.Hour
	// sessionsEach is how many sessions a caller has at a time, and sessionsAll how many there are:
	// one more ends that which was used least of late.
	sessionsEach = 16
	sessionsAll  = 1024
)

// session is somebody who has signed in.
type session struct {
	key    [sha256.Size]byte // the hash of its id
	reader [sha256.Size]byte // the hash of the id with which the documentation is read, and nothing else
	caller string
	token  [sha256.Size]byte // the hash of the token
	until  time.Time
	used   time.Time // the last time; of sessions.mu
}

// sessions are those that have begun and not ended. Their methods may be called from any number of
// goroutines.
type sessions struct {
	now func() time.Time

	mu       sync.Mutex
	byKey    map[[sha256.Size]byte]*session
	byReader map[[sha256.Size]byte]*session
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, byKey: map[[sha256.Size]byte]*session{}, byReader: map[[sha256.Size]byte]*session{}}
}

// newID returns an id that nobody guesses, and its hash.
func newID() (id string, hash [sha256.Size]byte) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	id = base64.RawURLEncoding.EncodeToString(secret[:])
	return id, sha256.Sum256([]byte(id))
}

// begin begins one of a caller with a token, and returns its id, and the one that reads.
func (l *sessions) begin(caller string, token [sha256.Size]byte) (id, reader string, s *session) {
	now := l.now()
	s = &session{caller: caller, token: token, until: now.Add(maxSession), used: now}
	id, s.key = newID()
	reader, s.reader = newID()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.makeRoom(caller, now)
	l.byKey[s.key], l.byReader[s.reader] = s, s
	return id, reader, s
}

// remove takes a session out. The lock is held.
func (l *sessions) remove(s *session) {
	delete(l.byKey, s.key)
	delete(l.byReader, s.reader)
}

// makeRoom ends what is over, and what is too much for one more of a caller. The lock is held.
func (l *sessions) makeRoom(caller string, now time.Time) {
	var own, any *session
	n := 0
	for _, s := range l.byKey {
		if s.isOver(now) {
			l.remove(s)
			continue
		}
		if any == nil || s.used.Before(any.used) {
			any = s
		}
		if s.caller != caller {
			continue
		}
		if n++; own == nil || s.used.Before(own.used) {
			own = s
		}
	}
	switch {
	case n >= sessionsEach:
		l.remove(own)
	case len(l.byKey) >= sessionsAll:
		l.remove(any)
	}
}

func (s *session) isOver(now time.Time) bool {
	return !now.Before(s.until) || now.Sub(s.used) >= maxIdle
}

// find returns the session of an id, nil if there is none or it has ended, and notes its use.
func (l *sessions) find(id string) *session { return l.findIn(l.byKey, id) }

// findReader returns the session of an id that reads, likewise.
func (l *sessions) findReader(id string) *session { return l.findIn(l.byReader, id) }

func (l *sessions) findIn(list map[[sha256.Size]byte]*session, id string) *session {
	if id == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := list[sha256.Sum256([]byte(id))]
	if s == nil {
		return nil
	}
	now := l.now()
	if s.isOver(now) {
		l.remove(s)
		return nil
	}
	s.used = now
	return s
}

// end ends a session.
func (l *sessions) end(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(s)
}

// cookieName is that of the cookie with the id of a session, and readerName that of the one which
// reads. A browser sends the cookies of a host to each of its ports, so the names have that.
func cookieName(r *http.Request) string { return ofPort("tandem_session", r) }
func readerName(r *http.Request) string { return ofPort("tandem_reader", r) }

func ofPort(name string, r *http.Request) string {
	if _, port, err := net.SplitHostPort(r.Host); err == nil && port != "" {
		return name + "_" + port
	}
	return name
}

// setCookies has a browser keep the ids of a session for so many seconds; -1 takes them away.
//
// The documentation has an id of its own, since other servers of the host may have pages at its
// path, to which a browser sends that cookie too: with it nothing is done but read what is no secret. So
// links that lead there from elsewhere may have it.
func (c *console) setCookies(w http.ResponseWriter, r *http.Request, id, reader string, seconds int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r), Value: id, Path: Path, MaxAge: seconds,
		HttpOnly: true, Secure: c.options.TLS, SameSite: http.SameSiteStrictMode,
	})
	http.SetCookie(w, &http.Cookie{
		Name: readerName(r), Value: reader, Path: DocsPath, MaxAge: seconds,
		HttpOnly: true, Secure: c.options.TLS, SameSite: http.SameSiteLaxMode,
	})
}

// cookieOf returns the value that a request has of a cookie, empty without.
func cookieOf(r *http.Request, name string) string {
	// Of several, as another path may have set, none is taken for the other.
	list := r.CookiesNamed(name)
	if len(list) != 1 {
		return ""
	}
	return list[0].Value
}
