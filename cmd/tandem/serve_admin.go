package main

import (
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/auth"
)

// adminFlags are those of the listener for those who operate a server.
//
// There is none by default: several servers on one machine would want the same port, and who
// has not asked for a listener does not look after it.
type adminFlags struct {
	Admin       string   `placeholder:"HOST:PORT" help:"Address to listen on for those who operate the server, such as 127.0.0.1:6060: the console for browsers, the documentation at /docs/, GET /metrics, /debug/pprof, /healthz, /readyz and /startupz; port 0 takes a free one. Profiles need the scope admin, and the documentation any but internal, where callers are asked who they are, and beyond loopback it goes with --tokens, --tls-client-ca or --insecure (default none; BASEPLATE_SIDECAR_ADMIN_PORT has it listen on 127.0.0.1, and sets the port whatever is said here)."`
	ConsoleHost []string `sep:"none" placeholder:"NAME" help:"Name by which browsers may ask for the console of --admin, such as tandem-0.prod.example, beside localhost and IP addresses; may be repeated (default none)."`

	MetricsScope string `placeholder:"SCOPE" help:"Scope that GET /metrics of --admin needs: query, live, publish, admin or internal (default none: it is open)."`
}

// adminPort is the variable that names the port in pods of Baseplate. It never names an
// address: a platform that sets it for every process must not open one to others.
const adminPort = "BASEPLATE_SIDECAR_ADMIN_PORT"

// options returns where to listen, nil if there is to be no such listener, and checks that the
// flags go together, and with those that say who may reach the server.
func (f *adminFlags) options(s *securityFlags) (*adminhttp.Options, error) {
	address := f.Admin
	if port := os.Getenv(adminPort); port != "" {
		host := "127.0.0.1"
		if address != "" {
			var err error
			if host, _, err = net.SplitHostPort(address); err != nil {
				return nil, usagef("--admin is %q, want HOST:PORT: %w", address, err)
			}
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, usagef("%s is %.100q, want a port from 1 to 65535", adminPort, port)
		}
		address = net.JoinHostPort(host, port)
	}
	if f.MetricsScope != "" {
		switch _, err := auth.ParseScope(f.MetricsScope); {
		case err != nil:
			return nil, usagef("--metrics-scope is %.100q: %w", f.MetricsScope, err)
		case address == "":
			return nil, usagef("--metrics-scope goes with --admin")
		case !s.authenticates():
			return nil, usagef("--metrics-scope goes with --tokens or --tls-client-ca: nobody is asked who they are")
		}
	}
	for _, name := range f.ConsoleHost {
		switch {
		case address == "":
			return nil, usagef("--console-host goes with --admin")
		case name == "" || strings.ContainsAny(name, ":/ "):
			return nil, usagef("--console-host is %.100q, want a name without a port, such as tandem-0.prod.example", name)
		}
	}
	if address == "" {
		return nil, nil
	}
	if err := adminhttp.CheckAddress(address, s.authenticates() || s.Insecure); err != nil {
		return nil, usagef("--admin: %w, or --tokens, --tls-client-ca or --insecure", err)
	}
	return &adminhttp.Options{Listen: address, Insecure: s.Insecure}, nil
}

// apply has the listener of a server ask who may scrape it, once its guard is there, and warns of
// what strangers reach.
func (f *adminFlags) apply(c *server.Config, log *slog.Logger) {
	if c.Admin == nil {
		return
	}
	if f.MetricsScope != "" {
		scope, _ := auth.ParseScope(f.MetricsScope) // options has looked
		c.Admin.ProtectMetrics = c.Options.Guard.Require(scope)
	}
	beyond := !isLoopback(c.Admin.Listen)
	if writes := c.Live.Writes || c.ReleaseWrites || c.Outcomes.Take; beyond && writes && c.Options.Guard == nil {
		log.Warn("there is no console: it would let whoever reaches it write; accepted: --admin on a loopback address, --tokens or --tls-client-ca", "admin", c.Admin.Listen)
	} else {
		c.Console = &server.Console{Hosts: f.ConsoleHost}
	}
	switch {
	case beyond && c.Options.Guard == nil:
		log.Warn("LISTENING FOR ADMIN BEYOND THIS MACHINE WITHOUT AUTHENTICATION: whoever reaches it may take profiles", "admin", c.Admin.Listen)
	case beyond && c.TLS == nil:
		log.Warn("tokens arrive in clear text, unless something before the server speaks TLS", "admin", c.Admin.Listen)
	}
}
