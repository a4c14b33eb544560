package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/querylog"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// What recorded queries asked for is known by filter, segment, tower and types of bindings,
// with the bindings of the last of them.
func TestReadLiveFilters(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, b *objects.Bucket) {
		now := time.Now().UTC().Truncate(time.Microsecond)
		age := func(v *structpb.Value) map[string]*structpb.Value { return map[string]*structpb.Value{"age": v} }
		var queries []querylog.Query
		add := func(ago time.Duration, r *tandemv1.RetrieveRequest) {
			r.RequestId = fmt.Sprint(len(queries))
			q, err := querylog.New(now.Add(-ago), time.Millisecond, r, &tandemv1.RetrieveResponse{})
			require.NoError(t, err)
			queries = append(queries, q)
		}
		add(time.Hour, &tandemv1.RetrieveRequest{Filter: "free"})
		add(3*time.Minute, &tandemv1.RetrieveRequest{UserId: "u1"})
		add(3*time.Minute, &tandemv1.RetrieveRequest{Filter: "min_age <= user.age", Bindings: age(structpb.NewNumberValue(17))})
		add(1*time.Minute, &tandemv1.RetrieveRequest{Filter: "min_age <= user.age", Bindings: age(structpb.NewNumberValue(18))})
		add(2*time.Minute, &tandemv1.RetrieveRequest{Filter: "min_age <= user.age", Bindings: age(structpb.NewNumberValue(19))})
		add(2*time.Minute, &tandemv1.RetrieveRequest{Filter: "min_age <= user.age", Bindings: age(structpb.NewStringValue("18"))})
		add(2*time.Minute, &tandemv1.RetrieveRequest{Segment: "free"})
		add(2*time.Minute, &tandemv1.RetrieveRequest{Filter: "free", Target: tandemv1.Tower_TOWER_USERS})
		data, err := querylog.Encode(queries)
		require.NoError(t, err)
		require.NoError(t, b.Create(t.Context(), querylog.Key(now), data))

		got, err := ReadLiveFilters(t.Context(), querylog.Of(b), now.Add(-10*time.Minute))
		require.NoError(t, err)
		require.Equal(t, &LiveFilters{Queries: 7, List: []LiveFilter{
			{Tower: shard.Apps, Expression: "min_age <= user.age", Bindings: map[string]any{"age": 18.0}, Queries: 3, Last: now.Add(-time.Minute)},
			{Tower: shard.Apps, Expression: "min_age <= user.age", Bindings: map[string]any{"age": "18"}, Queries: 1, Last: now.Add(-2 * time.Minute)},
			{Tower: shard.Apps, Segment: "free", Queries: 1, Last: now.Add(-2 * time.Minute)},
			{Tower: shard.Users, Expression: "free", Queries: 1, Last: now.Add(-2 * time.Minute)},
		}}, got)

		queries[1].Request, queries[1].Filter = []byte("no protobuf"), "free"
		data, err = querylog.Encode(queries)
		require.NoError(t, err)
		require.NoError(t, b.Create(t.Context(), querylog.Key(now), data))
		_, err = ReadLiveFilters(t.Context(), querylog.Of(b), now.Add(-10*time.Minute))
		require.ErrorIs(t, err, querylog.ErrDamaged)
	})
}
