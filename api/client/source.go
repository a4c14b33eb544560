package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Server is where one server is.
type Server struct {
	// URL is its base URL, http or https. Its host is what certificates are checked for.
	URL string
	// Dial is the HOST:PORT to connect to; empty for that of URL.
	Dial string
}

// String is the server's name in errors.
func (s Server) String() string {
	if s.Dial != "" {
		return s.Dial
	}
	return strings.TrimPrefix(strings.TrimPrefix(s.URL, "http://"), "https://")
}

// Source says where servers are, as a discovery of your own does. [Addresses] is one.
type Source interface {
	// Servers returns where servers are now. It is called by one goroutine, again and again, and
	// must return when ctx ends. After an error, or if there are none, the client goes on with
	// those that it knows.
	Servers(ctx context.Context) ([]Server, error)
}

// Addresses returns a source of servers by URL, such as https://tandem.example, or by HOST:PORT,
// which means http:// unless there is [WithTLS]. The IP addresses of a host are looked up, each is
// a server, and they are looked up again all the time; if it has addresses of IPv4, those of IPv6
// are left out, since both are likely to be of the same servers.
func Addresses(list ...string) Source {
	return &addresses{list: list, lookup: net.DefaultResolver.LookupNetIP}
}

type addresses struct {
	list   []string
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	urls   []*url.URL
}

// prepare reads the addresses; secure says what HOST:PORT means.
func (a *addresses) prepare(secure bool) error {
	if len(a.list) == 0 {
		return errors.New("addresses: there are none; accepted: URLs or HOST:PORT")
	}
	for i, text := range a.list {
		full := text
		if !strings.Contains(text, "://") {
			full = "http://" + text
			if secure {
				full = "https://" + text
			}
		}
		u, err := parseURL(full)
		if err != nil {
			if at := strings.LastIndex(text, "@"); at >= 0 {
				text = "..." + text[at:] // what is before may be a password
			}
			return fmt.Errorf("addresses[%d] is %.200q: %w", i, text, err)
		}
		a.urls = append(a.urls, u)
	}
	return nil
}

// parseURL returns a server's base URL.
func parseURL(text string) (*url.URL, error) {
	const accepted = "accepted: http://HOST:PORT, https://HOST:PORT or HOST:PORT"
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New(accepted) // url.Parse repeats the text
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New(accepted)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

// Servers implements [Source].
func (a *addresses) Servers(ctx context.Context) ([]Server, error) {
	var list []Server
	var failed error
	for _, u := range a.urls {
		host := u.Hostname()
		// The dialer knows what localhost is, whichever of its addresses the server listens on.
		if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
			list = append(list, Server{URL: u.String()})
			continue
		}
		ips, err := a.lookup(ctx, "ip", host)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("look up %.200q: %w", host, err))
			continue
		}
		for i := range ips {
			ips[i] = ips[i].Unmap()
		}
		if slices.ContainsFunc(ips, netip.Addr.Is4) {
			ips = slices.DeleteFunc(ips, func(ip netip.Addr) bool { return !ip.Is4() })
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		for _, ip := range ips {
			list = append(list, Server{URL: u.String(), Dial: net.JoinHostPort(ip.String(), port)})
		}
	}
	if failed != nil {
		return nil, failed // half of the servers would be asked for what all are to answer
	}
	return list, nil
}
