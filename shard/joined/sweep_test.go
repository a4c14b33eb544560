package joined_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// putSet writes a set of some parts, as a join does.
func putSet(t require.TestingT, store *objectstest.Faults, day time.Time, parts [][]joined.Row, at time.Time) *joined.Set {
	s := &joined.Set{Day: joined.DayOf(day), Generation: 1, Written: at, Joiner: 1, Inputs: "inputs-0123456789abcdef.txt"}
	folder := joined.Prefix + s.Day + "/"
	for n, rows := range parts {
		data, err := joined.Encode(rows)
		require.NoError(t, err)
		p := joined.Part{Name: joined.PartName(n, data), Rows: int64(len(rows)), Size: int64(len(data))}
		s.Parts = append(s.Parts, p)
		store.Put(folder+p.Name, data, at)
		for _, r := range rows {
			switch r.Role {
			case joined.RoleNext:
				s.Counts.Next++
			case joined.RoleEmpty:
				s.Counts.Empty++
				s.Counts.Requests++
			default:
				s.Counts.Shown++
				s.Counts.Joined += r.Opens
				if r.Rank == 1 {
					s.Counts.Requests++
				}
			}
		}
	}
	store.Put(folder+s.Inputs, []byte("queries/x 1\n"), at)
	data, err := joined.EncodeSet(s)
	require.NoError(t, err)
	store.Put(joined.SetKey(s.Day), data, at)
	return s
}

// answer returns the rows of a request of a user.
func answer(request, user string, opens ...int64) (rows []joined.Row) {
	for i, n := range opens {
		r := joined.Row{Time: noon, Day: "2026-11-25", RequestID: request, UserID: user, Role: joined.RoleShown, AppID: fmt.Sprint("a", i), Rank: int64(i + 1), Opens: n, Coverage: 1, Snapshot: "s", Tower: "apps"}
		if n > 0 {
			r.FirstOpen = noon.Add(time.Minute)
		}
		rows = append(rows, r)
	}
	if len(opens) == 0 {
		return []joined.Row{{Time: noon, Day: "2026-11-25", RequestID: request, UserID: user, Role: joined.RoleEmpty, Coverage: 1}}
	}
	next := rows[len(rows)-1]
	next.Role, next.AppID, next.Rank, next.Opens, next.FirstOpen = joined.RoleNext, "next", next.Rank+1, 0, time.Time{}
	return append(rows, next)
}

func is(ids ...string) func(string) bool {
	return func(id string) bool {
		for _, one := range ids {
			if one == id {
				return true
			}
		}
		return false
	}
}

func rowsOf(t require.TestingT, bucket *objects.Bucket, day string) (list []joined.Row, s *joined.Set) {
	s, err := joined.Read(context.Background(), bucket, day)
	require.NoError(t, err)
	for r, err := range s.Rows(context.Background(), bucket) {
		require.NoError(t, err)
		list = append(list, *r)
	}
	return list, s
}

// TestSweepOfForgottenUsers has the rows of users who are forgotten, and no others, be gone, and the
// counts be those of what is left.
func TestSweepOfForgottenUsers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts [][]joined.Row
		for p := range rapid.IntRange(1, 3).Draw(t, "parts") {
			var rows []joined.Row
			for i := range rapid.IntRange(1, 4).Draw(t, "requests") {
				user := rapid.StringMatching(`u[0-4]`).Draw(t, "user")
				rows = append(rows, answer(fmt.Sprint("r", p, i), user, rapid.SliceOfN(rapid.Int64Range(0, 2), 0, 3).Draw(t, "opens")...)...)
			}
			parts = append(parts, rows)
		}
		forgotten := is(rapid.SliceOf(rapid.StringMatching(`u[0-4]`)).Draw(t, "forgotten")...)
		store := objectstest.NewFaults()
		was := putSet(t, store, noon, parts, noon)
		bucket := store.Bucket("x")
		o := joined.SweepOptions{Now: noon.Add(30 * time.Hour), Forgotten: forgotten, Set: "1"}

		o.DryRun = true
		would, err := joined.Sweep(context.Background(), bucket, o)
		require.NoError(t, err)
		_, same := rowsOf(t, bucket, was.Day)
		require.Equal(t, was.Parts, same.Parts)
		o.DryRun = false
		done, err := joined.Sweep(context.Background(), bucket, o)
		require.NoError(t, err)
		require.Equal(t, would.Rows, done.Rows)

		var want []joined.Row
		gone := 0
		expected := joined.Set{}
		for _, rows := range parts {
			for _, r := range rows {
				if forgotten(r.UserID) {
					gone++
					continue
				}
				want = append(want, r)
			}
		}
		for _, r := range want {
			switch {
			case r.Role == joined.RoleNext:
				expected.Counts.Next++
				continue
			case r.Role == joined.RoleEmpty:
				expected.Counts.Empty++
			default:
				expected.Counts.Shown++
				expected.Counts.Joined += r.Opens
			}
			if r.Rank <= 1 {
				expected.Counts.Requests++
			}
		}
		got, s := rowsOf(t, bucket, was.Day)
		require.Equal(t, want, got)
		require.Equal(t, expected.Counts, s.Counts)
		require.Equal(t, int64(gone), s.Forgotten)
		require.Equal(t, gone, done.Rows)
		require.Len(t, store.Keys("joined/2026"), 2+len(s.Parts), "the set, its inputs, its parts")
		wants := 1
		if gone > 0 {
			wants = 2
		}
		require.Equal(t, wants, s.Generation)

		reads := store.Requests("x", objectstest.Read, "joined/2026-11-25/part-")
		o.Now = o.Now.Add(2 * time.Hour)
		done, err = joined.Sweep(context.Background(), bucket, o)
		require.NoError(t, err)
		require.Zero(t, done.Rows)
		if gone == 0 {
			require.Equal(t, reads, store.Requests("x", objectstest.Read, "joined/2026-11-25/part-"), "what was looked into is not read again")
		}
		left, err := joined.Unswept(context.Background(), bucket, "2")
		require.NoError(t, err)
		require.Equal(t, len(s.Parts), left, "others are forgotten")
	})
}

// TestSweepByAge has days go that ended long ago, and what no set names once no join can be at it.
func TestSweepByAge(t *testing.T) {
	store := objectstest.NewFaults()
	putSet(t, store, noon, [][]joined.Row{answer("r", "u", 1)}, noon)
	old := "joined/2026-11-23/"
	store.Put(old+"part-0000-0123456789abcdef.parquet", []byte("x"), noon)
	store.Put(old+"notes.txt", []byte("somebody's"), noon)
	store.Put("joined/2026-11-25/part-0007-0123456789abcdef.parquet", []byte("x"), noon)
	bucket := store.Bucket("x")
	sweep := func(now time.Time) *joined.Swept {
		done, err := joined.Sweep(t.Context(), bucket, joined.SweepOptions{Now: now, Keep: 48 * time.Hour})
		require.NoError(t, err)
		return done
	}
	midnight := noon.Truncate(24 * time.Hour)
	require.Equal(t, &joined.Swept{}, sweep(midnight.Add(24*time.Hour-1)), "2026-11-23 ended at its midnight")
	require.Equal(t, &joined.Swept{Deleted: []string{"2026-11-23"}}, sweep(midnight.Add(24*time.Hour)))
	require.Equal(t, []string{old + "notes.txt"}, store.Keys(old))
	require.Equal(t, &joined.Swept{Left: []string{"joined/2026-11-25/part-0007-0123456789abcdef.parquet"}}, sweep(noon.Add(24*time.Hour)))
	rowsOf(t, bucket, "2026-11-25")
	require.Equal(t, &joined.Swept{Deleted: []string{"2026-11-25"}}, sweep(midnight.Add(72*time.Hour)))
	require.Empty(t, store.Keys("joined/2026-11-25"))
}

// TestSweepOnFaultyStore has a sweep fail at each of its requests: there is a whole set at any time,
// with the rows of the forgotten user or without, and the next sweep takes them out.
func TestSweepOnFaultyStore(t *testing.T) {
	parts := [][]joined.Row{answer("r1", "u1", 1, 0), answer("r2", "u2", 1), append(answer("r3", "u1"), answer("r4", "u3", 0)...)}
	for _, op := range []objectstest.Op{objectstest.Read, objectstest.List, objectstest.Write, objectstest.Delete} {
		for _, fault := range []objectstest.Fault{objectstest.Fail, objectstest.Lose} {
			for skip := 0; ; skip++ {
				store := objectstest.NewFaults()
				putSet(t, store, noon, parts, noon)
				store.Inject(objectstest.Rule{Op: op, Client: "faulty", Skip: skip, Fault: fault, Err: objectstest.ErrDenied})
				o := joined.SweepOptions{Now: noon.Add(time.Hour), Forgotten: is("u1"), Set: "1"}
				_, err := joined.Sweep(t.Context(), store.Bucket("faulty"), o)
				if store.Requests("faulty", op, "") <= skip {
					require.NoError(t, err)
					break
				}
				require.Error(t, err, "%s %s %d", op, fault, skip)
				bucket := store.Bucket("x")
				rows, s := rowsOf(t, bucket, "2026-11-25")
				require.Contains(t, []int{8, 4}, len(rows), "generation %d", s.Generation)
				_, err = joined.Sweep(t.Context(), bucket, o)
				require.NoError(t, err)
				rows, _ = rowsOf(t, bucket, "2026-11-25")
				require.Len(t, rows, 4)
			}
		}
	}
}

// TestSweepBesideJoin has a day that was joined meanwhile be left as it is, and said.
func TestSweepBesideJoin(t *testing.T) {
	store := objectstest.NewFaults()
	putSet(t, store, noon, [][]joined.Row{answer("r1", "u1", 1)}, noon)
	bucket := store.Bucket("x")
	once := false
	forgotten := func(id string) bool {
		if !once { // the set was read
			once = true
			putSet(t, store, noon, [][]joined.Row{answer("r1", "u1", 2)}, noon.Add(time.Second))
		}
		return id == "u1"
	}
	done, err := joined.Sweep(t.Context(), bucket, joined.SweepOptions{Now: noon.Add(time.Hour), Forgotten: forgotten, Set: "1"})
	require.ErrorIs(t, err, joined.ErrChanged)
	require.Len(t, done.Failed, 1)
	rows, _ := rowsOf(t, bucket, "2026-11-25")
	require.Equal(t, int64(2), rows[0].Opens)

	damaged := objectstest.NewFaults()
	damaged.Put(joined.SetKey("2026-11-25"), []byte("{"), noon)
	_, err = joined.Sweep(t.Context(), damaged.Bucket("x"), joined.SweepOptions{Now: noon, Forgotten: is("u"), Set: "1"})
	require.ErrorIs(t, err, joined.ErrDamaged)
	require.True(t, strings.HasPrefix(err.Error(), "sweep joined sets: 1 of them could not be looked into: "), err.Error())
}
