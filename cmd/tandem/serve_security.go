package main

import (
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/secure"
)

// securityFlags say who may reach a server, and what callers may do.
type securityFlags struct {
	TLSCert        string   `name:"tls-cert" type:"path" placeholder:"FILE" help:"Certificate of the server in PEM, with those between it and its authority: it speaks TLS. Read again when it changes, or at SIGHUP."`
	TLSKey         string   `name:"tls-key" type:"path" placeholder:"FILE" help:"Private key of --tls-cert in PEM."`
	TLSClientCA    string   `name:"tls-client-ca" type:"path" placeholder:"FILE" help:"Certificates in PEM of the authorities that sign those of clients: every caller needs one, probes aside."`
	TLSClientScope []string `name:"tls-client-scope" default:"query" placeholder:"SCOPE" help:"What callers may do that are known by their certificates, without --tokens: query, live, publish, admin, internal, feedback; may be repeated (default query)."`
	Tokens         string   `type:"path" placeholder:"FILE" help:"Tokens of callers, with what each may do, as tandem token new writes them: every caller needs one, probes aside. Read again when it changes, or at SIGHUP."`
	Insecure       bool     `help:"Listen beyond loopback though anybody who reaches the server may ask it."`
	LogIDs         bool     `name:"log-ids" help:"Log the texts of errors that name what callers have sent: ids of users, vectors, values."`
}

// authenticates reports whether callers have to say who they are.
func (f *securityFlags) authenticates() bool { return f.Tokens != "" || f.TLSClientCA != "" }

// check returns an error unless the flags go together, and with those of a server.
func (f *securityFlags) check(c *serveCommand) error {
	beyond, writes := !isLoopback(c.Listen), ""
	switch {
	case c.LiveWrites:
		writes = "--live-writes"
	case c.ReleaseWrites:
		writes = "--release-writes"
	case c.Outcomes:
		writes = "--outcomes"
	}
	switch {
	case (f.TLSCert == "") != (f.TLSKey == ""):
		return usagef("--tls-cert and --tls-key go together, and one is missing")
	case f.TLSClientCA != "" && f.TLSCert == "":
		return usagef("--tls-client-ca goes with --tls-cert and --tls-key")
	case beyond && writes != "" && !f.authenticates():
		return usagef("%s goes with a loopback address, or with --tokens or --tls-client-ca, since whoever reaches the server may write, and --listen is %s; want 127.0.0.1:PORT, [::1]:PORT or localhost:PORT", writes, c.Listen)
	case beyond && !f.authenticates() && !f.Insecure:
		return usagef("--listen is %s, which others reach than this machine, and nobody is asked who they are; want --tokens or --tls-client-ca, a loopback address such as 127.0.0.1:8080, or --insecure", c.Listen)
	case writes != "" && slices.Contains(c.CORSOrigin, "*") && f.Tokens == "":
		return usagef("%s does not go with --cors-origin *, unless with --tokens: any web page that is open in a browser on this machine could write", writes)
	}
	for _, name := range f.TLSClientScope {
		if _, err := auth.ParseScope(name); err != nil {
			return usagef("--tls-client-scope is %.100q: %w", name, err)
		}
	}
	return nil
}

// apply reads tokens and certificates and has a server use them. It is to call stop at its end.
func (f *securityFlags) apply(c *server.Config, log *slog.Logger) (stop func(), err error) {
	c.LogIDs = f.LogIDs
	if f.TLSCert != "" {
		if c.TLS, err = secure.Open(secure.Options{Cert: f.TLSCert, Key: f.TLSKey, ClientCA: f.TLSClientCA}); err != nil {
			return nil, err
		}
	}
	if f.authenticates() {
		o := auth.Options{TokenFile: f.Tokens, Certificates: f.TLSClientCA != ""}
		for _, name := range f.TLSClientScope {
			scope, _ := auth.ParseScope(name) // check has looked
			o.CertificateScopes |= scope
		}
		if c.Options.Guard, err = auth.Open(o); err != nil {
			return nil, err
		}
	}
	switch beyond := !isLoopback(c.Listen); {
	case beyond && !f.authenticates():
		log.Warn("LISTENING BEYOND THIS MACHINE WITHOUT AUTHENTICATION: whoever reaches the server may ask it", "listen", c.Listen)
	case beyond && f.TLSCert == "":
		log.Warn("tokens arrive in clear text, unless something before the server speaks TLS", "listen", c.Listen)
	}
	if c.TLS == nil && c.Options.Guard == nil {
		return func() {}, nil
	}
	reread := make(chan os.Signal, 1)
	signal.Notify(reread, syscall.SIGHUP)
	c.Reread = reread
	return func() { signal.Stop(reread) }, nil
}
