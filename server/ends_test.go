package server

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
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

	mu     sync.Mutex
	places map[[24]uintptr][]int64 // which looks came from where, unless nil
}

func (l *looks) Err() error {
	n := l.n.Add(1)
	if l.places != nil {
		var place [24]uintptr
		runtime.Callers(2, place[:])
		l.mu.Lock()
		defer l.mu.Unlock()
		l.places[place] = append(l.places[place], n)
	}
	if l.ends > 0 && n > l.ends {
		return context.DeadlineExceeded
	}
	return nil
}

// sample returns the first and the last look from each place, and some of those between.
func (l *looks) sample(random *rand.Rand) []int64 {
	const between = 4
	var out []int64
	for _, from := range l.places {
		out = append(out, from[0], from[len(from)-1])
		for range between {
			out = append(out, from[random.IntN(len(from))])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestRequestsEndAnywhere ends the context of requests at each place where they look at
// it, the first time, the last and some times between: no part goes on, and the error is
// the caller's deadline whichever part it is.
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
	all := &looks{Context: t.Context(), places: map[[24]uintptr][]int64{}}
	require.NoError(t, run(all))
	total := all.n.Load()
	require.Greater(t, total, int64(4000*6/1024+4000*6/candidateStep))
	require.Greater(t, len(all.places), 10)
	for _, ends := range all.sample(rand.New(rand.NewPCG(1, 2))) {
		if ends >= total {
			continue // nothing asks any more
		}
		l := &looks{Context: t.Context(), ends: ends}
		require.Equal(t, connect.CodeDeadlineExceeded, connect.CodeOf(run(l)), "after %d of %d looks", ends, total)
		require.LessOrEqual(t, l.n.Load(), ends+10, "it went on")
	}
}
