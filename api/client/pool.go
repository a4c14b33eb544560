package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// pool is the servers there are.
type pool struct {
	source  Source
	options *options
	now     atomic.Pointer[[]*endpoint]
	first   chan struct{} // closed once the source was asked for the first time
	failed  atomic.Pointer[error]
}

// look asks the source, and takes in what it says.
func (p *pool) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, max(p.options.lookEvery, time.Second))
	defer cancel()
	list, err := p.source.Servers(ctx)
	if err == nil && len(list) == 0 {
		err = errors.New("the source has no servers")
	}
	var next []*endpoint
	if err == nil {
		next, err = p.merge(list)
	}
	if err != nil {
		p.failed.Store(&err)
		return
	}
	p.failed.Store(nil)
	p.swap(next)
}

// merge returns the servers of a list: those that are known as they are, and new ones.
func (p *pool) merge(list []Server) ([]*endpoint, error) {
	known := map[Server]*endpoint{}
	for _, e := range p.list() {
		known[e.Server] = e
	}
	var next []*endpoint
	seen := map[Server]bool{}
	for i, s := range list {
		if seen[s] {
			continue
		}
		seen[s] = true
		if e := known[s]; e != nil {
			next = append(next, e)
			continue
		}
		if err := p.options.allows(s); err != nil {
			return nil, fmt.Errorf("servers[%d]: %w", i, err)
		}
		next = append(next, newEndpoint(s, p.options))
	}
	return next, nil
}

// allows returns an error for a server that may not be asked.
func (o *options) allows(s Server) error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return fmt.Errorf("URL is %.200q; accepted: http://HOST:PORT or https://HOST:PORT", s.URL)
	}
	if _, err := parseURL(s.URL); err != nil {
		return fmt.Errorf("URL is %.200q; %w", s.URL, err)
	}
	if !o.tokenGiven && !o.tokenFileOpen || o.tokenInClear || u.Scheme == "https" {
		return nil
	}
	host := u.Hostname()
	if s.Dial != "" {
		if host, _, err = net.SplitHostPort(s.Dial); err != nil {
			return fmt.Errorf("dial is %.200q; accepted: HOST:PORT", s.Dial)
		}
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("URL is %.200q, where a token would be sent in clear text; accepted: https://, this machine, or WithTokenInClear", s.URL)
}

// swap replaces what there is, and lets go of servers that are gone. Calls to them that are under
// way go on.
func (p *pool) swap(next []*endpoint) {
	kept := map[*endpoint]bool{}
	for _, e := range next {
		kept[e] = true
	}
	before := p.list()
	p.now.Store(&next)
	for _, e := range before {
		if !kept[e] {
			e.close()
		}
	}
}

func (p *pool) list() []*endpoint {
	if list := p.now.Load(); list != nil {
		return *list
	}
	return nil
}

// probe asks all servers at once whether they are ready.
func (p *pool) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, max(p.options.probeEvery, 100*time.Millisecond))
	defer cancel()
	var group sync.WaitGroup
	for _, e := range p.list() {
		group.Go(func() { e.probe(ctx) })
	}
	group.Wait()
}

// asked is a server that a call has asked, and when it may be asked again at the earliest.
type asked struct {
	*endpoint
	again time.Time
}

// pick returns the server to ask next, and how long to wait before, as it was asked already; nil
// if there is none. Of those that were not asked the better of two that are drawn is taken; one that
// is left alone, or not ready, only if there is no other, and one that was asked only then.
func (p *pool) pick(before []asked) (next *endpoint, wait time.Duration) {
	list := p.list()
	now := time.Now()
	var best [2]*endpoint
	nBest := 0
	var spare *endpoint
	var spareUntil time.Time
	for _, e := range list {
		if has(before, e) {
			continue
		}
		until := e.alone(now)
		if until.IsZero() && !e.unready.Load() {
			if nBest < 2 {
				best[nBest] = e
			} else if i := rand.IntN(nBest + 1); i < 2 {
				best[i] = e
			}
			nBest++
			continue
		}
		if spare == nil || until.Before(spareUntil) {
			spare, spareUntil = e, until
		}
	}
	switch {
	case nBest == 1:
		return best[0], 0
	case nBest > 1:
		a, b := best[0].rank(now), best[1].rank(now)
		if b < a || a == b && rand.IntN(2) == 0 {
			return best[1], 0
		}
		return best[0], 0
	case spare != nil:
		return spare, 0
	}
	for i := range before {
		a := &before[i]
		if next == nil || a.again.Sub(now) < wait {
			next, wait = a.endpoint, max(a.again.Sub(now), 0)
		}
	}
	return next, wait
}

// has reports whether a server was asked.
func has(before []asked, e *endpoint) bool {
	for i := range before {
		if before[i].endpoint == e {
			return true
		}
	}
	return false
}

// allowsName is what allows says of a URL whose host is not looked up yet: a name that is not
// localhost may be that of this machine, which is seen later.
func (o *options) allowsName(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err // it was made from one
	}
	if net.ParseIP(u.Hostname()) == nil {
		return nil
	}
	return o.allows(Server{URL: text})
}
