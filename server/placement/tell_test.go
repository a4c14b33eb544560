package placement_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/placement"
)

// fullInput is of two zones, of which one has less memory than it takes to hold all shards.
func fullInput() *input {
	in := &input{factor: 2}
	for n := range 5 {
		in.members = append(in.members, placement.Member{Name: fmt.Sprint("node-", n), Zone: string(rune('a' + n%2)), Weight: 5 * giB})
	}
	for n := range 11 {
		in.shards = append(in.shards, placement.Shard{Key: fmt.Sprint("apps/", n), Bytes: giB})
	}
	return in
}

// What is told of a shard says who holds it, and what was against those that it prefers.
func TestWhy(t *testing.T) {
	plan := fullInput().place(t)
	for key, want := range map[string]string{
		"apps/1": "apps/1 (1,073,741,824 bytes) has 2 of 2 copies; on node-2 (zone a), its choice 1; on node-3 (zone b), its choice 2",
		"apps/0": "apps/0 (1,073,741,824 bytes) has 2 of 2 copies; on node-4 (zone a), its choice 1; on node-1 (zone b), its choice 3; " +
			"not on node-0 (zone a), its choice 2: another copy is in its zone",
		"apps/7": "apps/7 (1,073,741,824 bytes) has 2 of 2 copies; on node-2 (zone a), its choice 2; on node-3 (zone b), its choice 4; " +
			"not on node-1 (zone b), its choice 1: no room, it holds 5,368,709,120 of 5,368,709,120 bytes; " +
			"not on node-4 (zone a), its choice 3: no room, it holds 5,368,709,120 of 5,368,709,120 bytes",
	} {
		why, ok := plan.Why(key)
		require.True(t, ok)
		require.Equal(t, want, why)
	}
	_, ok := plan.Why("apps/11")
	require.False(t, ok)
	_, ok = plan.Held("node-5")
	require.False(t, ok)
}

// A bound is a fourth above a share, and less than a shard where members have many; who takes
// what is above it is told.
func TestBounds(t *testing.T) {
	in := &input{factor: 1}
	for n := range 4 {
		in.members = append(in.members, placement.Member{Name: fmt.Sprint("node-", n)})
	}
	for n := range 100 {
		in.shards = append(in.shards, placement.Shard{Key: fmt.Sprint("users/", n), Bytes: giB})
	}
	plan := in.place(t)
	for _, load := range plan.Loads() {
		require.LessOrEqual(t, load.Shards, 32, load.Name)
		require.Equal(t, int64(25*giB), load.Share)
		require.Zero(t, load.Over)
	}
	bound := 0
	for _, s := range in.shards {
		why, _ := plan.Why(s.Key)
		if strings.Contains(why, ": at its bound, it holds 33,285,996,544 bytes, and its share is 26,843,545,600") {
			bound++
		}
	}
	require.NotZero(t, bound, "no shard was kept off by a bound")

	// One has a tenth of the weight, but no bound of memory, and the other has no room for two.
	in = &input{members: []placement.Member{{Name: "a"}, {Name: "b", Weight: 640 * giB}}, factor: 1}
	for n := range 8 {
		in.shards = append(in.shards, placement.Shard{Key: fmt.Sprint("apps/", n), Bytes: 600 * giB})
	}
	plan = in.place(t)
	loads := plan.Loads()
	require.Equal(t, []int{7, 1}, []int{loads[0].Shards, loads[1].Shards})
	require.Positive(t, loads[0].Over)
	above := 0
	for _, s := range in.shards {
		if why, _ := plan.Why(s.Key); strings.Contains(why, "on a, its choice 2 and above its bound, since nobody below theirs could take it; not on b, its choice 1: no room") {
			above++
		}
	}
	require.Equal(t, loads[0].Over, above)
}

// A shard that is short says of what.
func TestShort(t *testing.T) {
	node := func(name, zone string, weight int64) placement.Member {
		return placement.Member{Name: name, Zone: zone, Weight: weight}
	}
	one := []placement.Shard{{Key: "apps/0", Bytes: 1000}}
	for _, c := range []struct {
		in   *input
		want string // nothing is short if empty
	}{
		{&input{nil, one, 1}, "there are no members"},
		{&input{[]placement.Member{node("a", "", 0)}, one, 1}, ""},
		{&input{[]placement.Member{node("a", "", 0)}, one, 2}, "1 of 2 copies: there is no member beside the 1 that hold it"},
		{&input{[]placement.Member{node("a", "", 999)}, one, 1}, "0 of 1 copy: of 1 member elsewhere none has room for 1,000 bytes, the most is 999"},
		{&input{[]placement.Member{node("a", "", 7), node("b", "", 0), node("c", "", 9)}, one, 2}, "1 of 2 copies: of 2 members elsewhere none has room for 1,000 bytes, the most is 9"},
		{&input{[]placement.Member{node("a", "x", 0), node("b", "x", 0), node("c", "y", 1)}, one, 2}, "2 copies in 1 of 2 zones: of 1 member elsewhere none has room for 1,000 bytes, the most is 1"},
		{&input{[]placement.Member{node("a", "x", 0), node("b", "x", 0), node("c", "y", 0)}, one, 3}, ""},
	} {
		short := c.in.place(t).Short()
		if c.want == "" {
			require.Empty(t, short)
			continue
		}
		require.Len(t, short, 1)
		require.Equal(t, c.want, short[0].Reason)
	}
}
