// Package fleet asks servers what they serve and what they know of the live log, finds what
// is wrong with that, and waits until they serve a release, or have read the log so far.
//
// A server is believed of hashes, not of generation numbers: a store that was restored
// from a copy uses a number again. So a server serves a release if it names the hash of the
// release's entry, or one that the log has behind it.
//
// Errors say what a server does in words for people; what can be done about one is for the
// caller to say, who knows how it was asked: see [NotFollowingError].
package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
)

// answerTimeout is how long a server may take to say what it serves.
const answerTimeout = 5 * time.Second

// MaxAnswer is how many bytes of an answer, or of a message of a stream, are read from a server:
// whatever is at its address may never end.
const MaxAnswer = 64 << 20

// Bounded is how clients of servers read no more than [MaxAnswer].
func Bounded() connect.ClientOption { return connect.WithReadMaxBytes(MaxAnswer) }

// Server is one that follows the releases of a store.
type Server struct {
	Name string // by which people know it
	URL  string // of its RPCs, without a slash at the end
}

// Fleet is servers that follow the releases of one store. It is immutable.
type Fleet struct {
	HTTP    connect.HTTPClient // asks them
	Servers []Server
}

// Answer is what one server says of itself.
type Answer struct {
	Server Server
	Status *tandemv1.GetStatusResponse // nil if there is an error
	// Err is why it has said nothing: a [*connect.Error], or one that says that it took too
	// long.
	Err error
}

// Ask asks all servers at once, and returns their answers in the order of the servers. A
// server that has not answered within 5 seconds is not waited for.
func (f *Fleet) Ask(ctx context.Context) []Answer {
	return each(f, func(s Server) Answer { return f.ask(ctx, s) })
}

// each asks all servers at once, and returns what they say in the order of the servers.
func each[T any](f *Fleet, ask func(Server) T) []T {
	list := make([]T, len(f.Servers))
	var asking sync.WaitGroup
	for i, s := range f.Servers {
		asking.Go(func() { list[i] = ask(s) })
	}
	asking.Wait()
	return list
}

// ask asks one server.
func (f *Fleet) ask(ctx context.Context, s Server) Answer {
	client := tandemv1connect.NewAdminServiceClient(f.HTTP, s.URL, Bounded())
	status, err := bounded(ctx, answerTimeout, client.GetStatus, &tandemv1.GetStatusRequest{})
	return Answer{Server: s, Status: status, Err: err}
}

// bounded calls a method of a server, which has some time to answer.
func bounded[Q, A any](ctx context.Context, limit time.Duration, call func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), request *Q) (*A, error) {
	asking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, err := call(asking, connect.NewRequest(request))
	switch {
	case err == nil:
		return answer.Msg, nil
	case ctx.Err() == nil && errors.Is(asking.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("no answer within %s", limit)
	}
	return nil, err
}
