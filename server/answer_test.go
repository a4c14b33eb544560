package server

import (
	"fmt"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// TestAnswersDoNotMix asks many queries at a time whose answers differ in all that a candidate
// has, some of them refused once they are made, and compares them with those of a service that
// is called without a handler, where nothing is used again.
func TestAnswersDoNotMix(t *testing.T) {
	s := smallTowers(index.Dot).loaded(t)
	asked := make([]*tandemv1.RetrieveRequest, 24)
	want := make([]*tandemv1.RetrieveResponse, len(asked))
	for i := range asked {
		asked[i] = &tandemv1.RetrieveRequest{UserId: fmt.Sprintf("u%d", i%5), K: uint32(1 + i*3), RequestId: fmt.Sprint(i)}
		switch i % 4 {
		case 1:
			asked[i].Attributes = []string{"developer", "price"}
		case 2:
			asked[i].Attributes = []string{"free"}
			asked[i].Filter = "free"
		case 3:
			asked[i].Filter = "nonsense" // which is refused
		}
		response, err := s.Retrieve(t.Context(), connect.NewRequest(asked[i]))
		if i%4 == 3 {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		want[i] = response.Msg
	}
	client := serve(t, s, Options{}).client()
	var all sync.WaitGroup
	defer all.Wait()
	for from := range 8 {
		all.Go(func() {
			for n := range 10 * len(asked) {
				if i := (from*7 + n*5) % len(asked); want[i] != nil {
					got, err := client.Retrieve(t.Context(), connect.NewRequest(proto.CloneOf(asked[i])))
					if err != nil {
						t.Error(err)
						return
					}
					if !proto.Equal(&tandemv1.RetrieveResponse{Candidates: want[i].Candidates}, &tandemv1.RetrieveResponse{Candidates: got.Msg.Candidates}) {
						t.Errorf("answer to query %d has %v, want %v", i, got.Msg.Candidates, want[i].Candidates)
						return
					}
				} else if _, err := client.Retrieve(t.Context(), connect.NewRequest(proto.CloneOf(asked[i]))); err == nil {
					t.Errorf("query %d was answered", i)
					return
				}
			}
		})
	}
}

// TestRowsAreUsedAgain counts what the candidates of an answer allocate, and that large answers
// keep nothing.
func TestRowsAreUsedAgain(t *testing.T) {
	rows := &candidateRows{}
	first := rows.take(100)
	for i := range first {
		require.Equal(t, "", first[i].Id)
		first[i].Id, first[i].Score, first[i].Attributes = "app", 1, map[string]*tandemv1.AttributeValue{}
	}
	rows.clear()
	require.Zero(t, testing.AllocsPerRun(10, func() {
		for _, c := range rows.take(60) {
			require.True(t, c.Id == "" && c.Score == 0 && c.Attributes == nil)
		}
	}))
	large := rows.take(keptRows + 1)
	require.Len(t, large, keptRows+1)
	require.NotSame(t, large[0], rows.take(1)[0])
	require.Len(t, rows.rows, 100)
	require.Len(t, (*candidateRows)(nil).take(3), 3)
}
