package querylog

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

type kinds = map[string]eligibility.Kind

// What recorded queries asked for is known by filter, segment, tower and kinds of bindings.
func TestReadLiveFilters(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, b *objects.Bucket) {
		now := time.Now().UTC().Truncate(time.Microsecond)
		var queries []Query
		add := func(ago time.Duration, q Query) {
			q.Time, q.Coverage = now.Add(-ago), 1
			if q.Tower == "" {
				q.Tower = shard.Apps
			}
			queries = append(queries, q)
		}
		const byAge = "min_age <= user.age"
		add(time.Hour, Query{Filter: "free"})
		add(3*time.Minute, Query{UserID: "u1"})
		add(3*time.Minute, Query{Filter: byAge, Bindings: kinds{"age": eligibility.KindFloat}})
		add(1*time.Minute, Query{Filter: byAge, Bindings: kinds{"age": eligibility.KindFloat}})
		add(2*time.Minute, Query{Filter: byAge, Bindings: kinds{"age": eligibility.KindFloat}})
		add(2*time.Minute, Query{Filter: byAge, Bindings: kinds{"age": eligibility.KindDecimal}})
		add(2*time.Minute, Query{Filter: byAge, Bindings: kinds{}})
		add(2*time.Minute, Query{Filter: byAge})
		add(2*time.Minute, Query{Filter: byAge, Bindings: kinds{"age": "matrix"}})
		add(2*time.Minute, Query{Segment: "free"})
		add(2*time.Minute, Query{Filter: "free", Tower: shard.Users})
		add(2*time.Minute, Query{Filter: "free", Tower: "developers"})
		require.NoError(t, b.Create(t.Context(), Key(now), encode(t, queries)))

		since := now.Add(-10 * time.Minute)
		got, err := ReadLiveFilters(t.Context(), Of(b), since)
		require.NoError(t, err)
		before := now.Add(-2 * time.Minute)
		require.Equal(t, &LiveFilters{Since: since, Queries: 11, List: []LiveFilter{
			{Tower: shard.Apps, Expression: byAge, Bindings: kinds{"age": eligibility.KindFloat}, Queries: 3, Last: now.Add(-time.Minute)},
			{Tower: shard.Apps, Expression: byAge, Bindings: kinds{"age": eligibility.KindDecimal}, Queries: 1, Last: before},
			{Tower: shard.Apps, Expression: byAge, Bindings: kinds{}, Queries: 1, Last: before},
			{Tower: shard.Apps, Expression: byAge, Queries: 2, Last: before},
			{Tower: shard.Apps, Segment: "free", Queries: 1, Last: before},
			{Tower: shard.Users, Expression: "free", Queries: 1, Last: before},
			{Expression: "free", Queries: 1, Last: before},
		}}, got)

		// A damaged file does not hide the others.
		damaged := Key(now)
		require.NoError(t, b.Create(t.Context(), damaged, []byte("no file of queries")))
		more, err := ReadLiveFilters(t.Context(), Of(b), since)
		require.NoError(t, err)
		require.Contains(t, more.Unread, damaged)
		require.NotContains(t, more.Unread, "more of its files")
		more.Unread = ""
		require.Equal(t, got, more)
		require.NoError(t, b.Create(t.Context(), Key(now), nil))
		more, err = ReadLiveFilters(t.Context(), Of(b), since)
		require.NoError(t, err)
		require.Contains(t, more.Unread, "; and 1 more of its files")
	})
}

// Files that were written before towers and bindings were told say nothing of them.
func TestLiveFiltersOfFormerWriters(t *testing.T) {
	l, err := Open(t.Context(), "testdata/parquet-go.parquet")
	require.NoError(t, err)
	defer l.Close()
	got, err := ReadLiveFilters(t.Context(), l, time.Time{})
	require.NoError(t, err)
	require.Equal(t, []LiveFilter{{Segment: "teen", Expression: "free", Queries: 9, Last: began.Add(8 * time.Second)}}, got.List)
}

// TestFilesWithBindings reads a file of the first writer that told of towers and bindings.
func TestFilesWithBindings(t *testing.T) {
	want := some(3)
	for i := range want {
		want[i].Tower = shard.Apps
	}
	want[1].Filter, want[1].Bindings = "price < user.most", kinds{"most": eligibility.KindFloat, "<&>": eligibility.KindOther}
	want[2].Bindings, want[2].Tower = kinds{}, shard.Users
	const path = "testdata/bindings.parquet"
	if *update {
		require.NoError(t, os.WriteFile(path, encode(t, want), 0o644))
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	got, err := decode(data)
	require.NoError(t, err)
	require.Equal(t, want, got)
}
