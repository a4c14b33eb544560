package server

import (
	"context"
	"net"

	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/filewatch"
)

// handshakesFor is how many handshakes of TLS are computed at a time: half of the processors
// are for those who are connected.
func handshakesFor(processors int) int { return (processors + 1) / 2 }

// withPeer makes the other end of a connection by TLS known to the handlers of its requests.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if unread := unreadOf(c); unread != nil {
		if peer, ok := unread.Conn.(auth.Peer); ok {
			return auth.WithPeer(ctx, peer)
		}
	}
	return ctx
}

// rereadSecrets reads tokens and certificates again when their files change, until ctx ends.
func (s *Service) rereadSecrets(ctx context.Context, c *Config) {
	var list []*filewatch.Files
	if files := c.Options.Guard.Files(); files != nil {
		list = append(list, files)
	}
	if c.TLS != nil {
		list = append(list, c.TLS.Files())
	}
	if len(list) == 0 {
		return
	}
	tokens := c.Options.Guard.Tokens()
	filewatch.Run(ctx, c.Reread, func(name string, err error) {
		before := tokens
		tokens = c.Options.Guard.Tokens()
		s.events.Secrets(events.Secrets{Name: name, Err: err, Before: before, After: tokens})
	}, list...)
}
