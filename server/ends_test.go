package server

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// looks is a context that counts how often it is asked whether it has ended, and ends
// after so many times.
type looks struct {
	context.Context
	n    atomic.Int64
	ends int64 // never if 0
}

func (l *looks) Err() error {
	if n := l.n.Add(1); l.ends > 0 && n > l.ends {
		return context.DeadlineExceeded
	}
	return nil
}

// TestRequestsEndAnywhere ends the context of requests at each place where they look at
// it: no part goes on, and the error is the caller's deadline whichever part it is.
func TestRequestsEndAnywhere(t *testing.T) {
	s := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 4, 5000, 10, 2).loaded(t)
	ids := make([]string, 4000)
	for i := range ids {
		ids[i] = "nobody"
	}
	ask := &tandemv1.RetrieveRequest{
		UserId: "u1", K: 4000, Attributes: []string{"*"}, RecallTarget: new(1.0), ExcludeIds: ids,
		Filter: "min_age >= user.age || !has(min_age)", Bindings: map[string]*structpb.Value{"age": structpb.NewNumberValue(0)},
		ExplainIds: []string{"a1", "a2", "a3"},
	}
	run := func(ctx context.Context) error {
		r := connect.NewRequest(ask)
		_, err := s.observe(encoding(func(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
			return s.Retrieve(ctx, r)
		}))(ctx, r)
		return err
	}
	all := &looks{Context: t.Context()}
	require.NoError(t, run(all))
	total := all.n.Load()
	require.Greater(t, total, int64(4000*6/1024+4000*6/candidateStep))
	for ends := int64(1); ends < total; ends++ {
		l := &looks{Context: t.Context(), ends: ends}
		require.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(run(l)), "after %d of %d looks", ends, total)
		require.LessOrEqual(t, l.n.Load(), ends+10, "it went on")
	}
}
