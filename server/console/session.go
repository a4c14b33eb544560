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
	caller string
	token  [sha256.Size]byte // the hash of the token
	until  time.Time
	used   time.Time // the last time; of sessions.mu
}

// sessions are those that have begun and not ended. Their methods may be called from any number of
// goroutines.
type sessions struct {
	now func() time.Time

	mu    sync.Mutex
	byKey map[[sha256.Size]byte]*session
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, byKey: map[[sha256.Size]byte]*session{}}
}

// begin begins one of a caller with a token, and returns its id.
func (l *sessions) begin(caller string, token [sha256.Size]byte) (id string, s *session) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	id = base64.RawURLEncoding.EncodeToString(secret[:])
	now := l.now()
	s = &session{key: sha256.Sum256([]byte(id)), caller: caller, token: token, until: now.Add(maxSession), used: now}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.makeRoom(caller, now)
	l.byKey[s.key] = s
	return id, s
}

// makeRoom ends what is over, and what is too much for one more of a caller. The lock is held.
func (l *sessions) makeRoom(caller string, now time.Time) {
	var own, any *session
	n := 0
	for key, s := range l.byKey {
		if s.isOver(now) {
			delete(l.byKey, key)
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
		delete(l.byKey, own.key)
	case len(l.byKey) >= sessionsAll:
		delete(l.byKey, any.key)
	}
}

func (s *session) isOver(now time.Time) bool {
	return !now.Before(s.until) || now.Sub(s.used) >= maxIdle
}

// find returns the session of an id, nil if there is none or it has ended, and notes its use.
func (l *sessions) find(id string) *session {
	if id == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.byKey[sha256.Sum256([]byte(id))]
	if s == nil {
		return nil
	}
	now := l.now()
	if s.isOver(now) {
		delete(l.byKey, s.key)
		return nil
	}
	s.used = now
	return s
}

// end ends a session.
func (l *sessions) end(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byKey, s.key)
}

// cookieName is that of the cookie with the id of a session. A browser sends the cookies of a
// host to each of its ports, so the name has that.
func cookieName(r *http.Request) string {
	if _, port, err := net.SplitHostPort(r.Host); err == nil && port != "" {
		return "tandem_session_" + port
	}
	return "tandem_session"
}

// cookie returns one with a value that lasts for so many seconds; -1 takes it away.
func (c *console) cookie(r *http.Request, value string, seconds int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName(r), Value: value, Path: Path, MaxAge: seconds,
		HttpOnly: true, Secure: c.options.TLS, SameSite: http.SameSiteStrictMode,
	}
}

// cookieOf returns the id of the session that a request is of, empty without.
func cookieOf(r *http.Request) string {
	// Of several, as another path may have set, none is taken for the other.
	list := r.CookiesNamed(cookieName(r))
	if len(list) != 1 {
		return ""
	}
	return list[0].Value
}
