package placement_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/server/placement"
)

const giB = 1 << 30

// input is what a plan is made of.
type input struct {
	members []placement.Member
	shards  []placement.Shard
	factor  int
}

func (in *input) place(t require.TestingT) *placement.Plan {
	plan, err := placement.Place(in.members, in.shards, in.factor)
	require.NoError(t, err)
	return plan
}

// drawMember draws one that is none of those with a lower number.
func drawMember(t *rapid.T, number, zones int, skewed bool) placement.Member {
	weight := int64(0)
	if skewed {
		weight = rapid.Int64Range(1, 64).Draw(t, "weight") << 40
	}
	return placement.Member{
		Name:   fmt.Sprintf("node-%x-%d", rapid.Uint32().Draw(t, "name"), number),
		Zone:   fmt.Sprint("zone-", rapid.IntRange(1, zones).Draw(t, "zone")),
		Weight: weight,
	}
}

// drawInput draws up to some members and shards, equal or skewed. Members have memory for
// all shards.
func drawInput(t *rapid.T, members, shards int) *input {
	in := &input{factor: rapid.IntRange(1, 4).Draw(t, "factor")}
	zones := rapid.IntRange(1, 5).Draw(t, "zones")
	weights := rapid.Bool().Draw(t, "weights differ")
	for n := range rapid.IntRange(1, members).Draw(t, "members") {
		in.members = append(in.members, drawMember(t, n, zones, weights))
	}
	sizes := rapid.Bool().Draw(t, "sizes differ")
	seed := rapid.Uint64().Draw(t, "sizes")
	for n := range rapid.IntRange(1, shards).Draw(t, "shards") {
		size := int64(giB)
		if sizes { // by a factor of up to 256
			size = giB >> (xxhash.Sum64String(fmt.Sprint(seed, n)) % 9)
		}
		in.shards = append(in.shards, placement.Shard{Key: fmt.Sprint("apps/", n), Bytes: size})
	}
	return in
}

// Whatever there is, copies are apart, members have the memory, and what is told of a plan is
// what it is.
func TestPlanIsWithinItsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, 30, 100)
		if rapid.Bool().Draw(t, "memory is short") {
			for i := range in.members {
				in.members[i].Weight = rapid.Int64Range(1, 40).Draw(t, "memory") * giB / 2
			}
		}
		plan := in.place(t)
		checkRules(t, in, plan)
		checkTold(t, in, plan)
	})
}

// checkRules holds a plan against what it was made of. It counts all for itself.
func checkRules(t *rapid.T, in *input, plan *placement.Plan) {
	members, loads := map[string]placement.Member{}, map[string]int64{}
	zones := map[string]bool{}
	for _, m := range in.members {
		members[m.Name], zones[m.Zone] = m, true
	}
	placed := plan.Shards()
	require.Len(t, placed, len(in.shards))
	for _, s := range placed {
		for _, name := range s.Members {
			loads[name] += s.Bytes
		}
	}
	room := func(name string, size int64) bool {
		return members[name].Weight == 0 || loads[name]+size <= members[name].Weight
	}
	for name, load := range loads {
		require.Contains(t, members, name)
		require.True(t, room(name, 0), "%s holds %d", name, load)
	}
	short := map[string]placement.Short{}
	for _, s := range plan.Short() {
		require.NotEmpty(t, s.Reason)
		short[s.Key] = s
	}
	for _, s := range placed {
		in1, on := map[string]bool{}, map[string]bool{}
		for _, name := range s.Members {
			in1[members[name].Zone], on[name] = true, true
		}
		require.Len(t, s.Members, len(on), "%s twice on one member", s.Key)
		require.LessOrEqual(t, len(on), in.factor)
		told, isShort := short[s.Key]
		wantZones := min(in.factor, len(zones))
		require.Equal(t, len(on) < in.factor || len(in1) < wantZones, isShort, s.Key)
		if isShort {
			require.Equal(t, []int{len(on), in.factor, len(in1), wantZones}, []int{told.Copies, told.WantCopies, told.Zones, told.WantZones})
		}
		for name, m := range members { // nobody could take what is not placed
			missing := len(on) < in.factor && !on[name] || len(in1) < wantZones && len(on) < in.factor && !in1[m.Zone]
			require.False(t, missing && room(name, s.Bytes), "%s has room for %s", name, s.Key)
		}
	}
}

// checkTold compares the views of a plan with one another.
func checkTold(t *rapid.T, in *input, plan *placement.Plan) {
	held, whys := map[string][]placement.Shard{}, map[string]string{}
	for _, s := range plan.Shards() {
		for _, name := range s.Members {
			held[name] = append(held[name], s.Shard)
		}
		why, ok := plan.Why(s.Key)
		require.True(t, ok)
		for _, name := range s.Members {
			require.Contains(t, why, name)
		}
		whys[s.Key] = why
	}
	loads := plan.Loads()
	require.Len(t, loads, len(in.members))
	for _, load := range loads {
		list, ok := plan.Held(load.Name)
		require.True(t, ok)
		require.Equal(t, held[load.Name], list)
		require.Equal(t, len(list), load.Shards)
		sum := int64(0)
		for _, s := range list {
			sum += s.Bytes
		}
		require.Equal(t, sum, load.Bytes)
		require.True(t, load.Bytes <= load.Bound || load.Over > 0, "%+v", load)
		for _, s := range in.shards { // who is said to be at its bound is
			if _, of, told := strings.Cut(whys[s.Key], "not on "+load.Name+" (zone "+load.Zone+"), "); told {
				_, reason, _ := strings.Cut(of, ": ")
				atBound := strings.HasPrefix(reason, "at its bound")
				require.False(t, atBound && load.Bytes+s.Bytes <= load.Share+load.Share/4, "%s: %s", s.Key, whys[s.Key])
			}
		}
	}
}

// Where all have memory, every shard has its copies in as many zones as can be.
func TestAllArePlacedWhereThereIsRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, 40, 200)
		for _, s := range in.place(t).Short() {
			require.Equal(t, len(in.members), s.Copies)
			require.Less(t, s.Copies, in.factor)
			require.Equal(t, min(in.factor, s.WantZones), s.Zones)
		}
	})
}

// A first copy goes before any second: while all shards fit once, none is nowhere.
func TestFirstCopiesGoFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, 20, 60)
		slots := 0
		for i := range in.members {
			n := rapid.IntRange(1, 10).Draw(t, "memory")
			in.members[i].Weight, slots = int64(n)*giB, slots+n
		}
		in.shards = in.shards[:min(slots, len(in.shards))]
		for i := range in.shards {
			in.shards[i].Bytes = giB
		}
		for _, s := range in.place(t).Shards() {
			require.NotEmpty(t, s.Members, s.Key)
		}
	})
}

// A plan does not depend on the order of what it is made of.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, 30, 60)
		other := &input{members: rapid.Permutation(in.members).Draw(t, "members"), shards: rapid.Permutation(in.shards).Draw(t, "shards"), factor: in.factor}
		a, b := in.place(t), other.place(t)
		require.Equal(t, a.Shards(), b.Shards())
		require.Equal(t, a.Loads(), b.Loads())
	})
}

// A plan is the same on every machine and with every release of Tandem, or nodes of two would
// not agree.
func TestPlanIsTheSameEverywhere(t *testing.T) {
	in := largeInput()
	hash := xxhash.New()
	for _, s := range in.place(t).Shards() {
		fmt.Fprintln(hash, s.Key, strings.Join(s.Members, " "))
	}
	require.Equal(t, "178bab2de5d7df", fmt.Sprintf("%x", hash.Sum64()))
}

// largeInput is 1,000 shards and 200 members of 5 zones, with 3 copies.
func largeInput() *input {
	in := &input{factor: 3}
	for n := range 200 {
		in.members = append(in.members, placement.Member{Name: fmt.Sprint("node-", n), Zone: fmt.Sprint("zone-", n%5), Weight: int64(64+n%3*32) * giB})
	}
	for n := range 1000 {
		in.shards = append(in.shards, placement.Shard{Key: fmt.Sprint("apps/", n), Bytes: int64(giB + n%10*giB/20)})
	}
	return in
}

// Shares are by weight as far as copies can be apart: the zones or members that this gives all
// they can have aside, all have the same for each byte of weight.
func TestShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, 20, 20)
		total := 0.0
		for _, s := range in.shards {
			total += float64(s.Bytes)
		}
		type group struct{ share, weight float64 }
		zones := map[string]*group{}
		sum := 0.0
		loads := in.place(t).Loads()
		for _, m := range loads {
			if zones[m.Zone] == nil {
				zones[m.Zone] = &group{}
			}
			zones[m.Zone].share += float64(m.Share)
			zones[m.Zone].weight += weight(m.Member)
			sum += float64(m.Share)
			require.LessOrEqual(t, float64(m.Share), total)
		}
		copies := min(in.factor, len(in.members))
		require.InEpsilon(t, float64(copies)*total, sum, 1e-6)
		if len(zones) < copies {
			for _, z := range zones {
				require.GreaterOrEqual(t, z.share, total*(1-1e-6))
			}
			return
		}
		highest := 0.0
		for _, z := range zones {
			highest = max(highest, z.share/z.weight)
		}
		for _, z := range zones {
			full := z.share >= total*(1-1e-6)
			require.True(t, full || z.share/z.weight >= highest*(1-1e-6), "%+v of %g", z, total)
			require.LessOrEqual(t, z.share, total*(1+1e-6))
		}
		for _, m := range loads {
			want := zones[m.Zone].share * weight(m.Member) / zones[m.Zone].weight
			require.InDelta(t, want, float64(m.Share), 20+want*1e-6) // rounded down, to bytes
		}
	})
}

func weight(m placement.Member) float64 {
	if m.Weight == 0 {
		return placement.DefaultWeight
	}
	return float64(m.Weight)
}

// The first choices of many shards are divided by weight.
func TestChoicesGoByWeight(t *testing.T) {
	in := &input{factor: 1}
	for n := range 6 {
		in.members = append(in.members, placement.Member{Name: fmt.Sprint("node-", n), Weight: int64(1+n) * 1000 * giB})
	}
	for n := range 8000 {
		in.shards = append(in.shards, placement.Shard{Key: fmt.Sprint("users/", n), Bytes: giB})
	}
	plan := in.place(t)
	for n, load := range plan.Loads() {
		want := 8000 * float64(1+n) / 21
		require.InDelta(t, want, load.Shards, 5*math.Sqrt(want), load.Name)
		require.Zero(t, load.Over)
	}
	for _, s := range plan.Shards() {
		why, ok := plan.Why(s.Key)
		require.True(t, ok)
		require.True(t, strings.HasSuffix(why, "its choice 1"), "no bound is in the way: %s", why)
	}
}

// What is not accepted is named, with what is.
func TestRefusals(t *testing.T) {
	member, shard := placement.Member{Name: "a"}, placement.Shard{Key: "apps/0", Bytes: 1}
	for _, c := range []struct {
		in   input
		want string
	}{
		{input{nil, nil, 0}, "factor is 0, want 1 to 16"},
		{input{nil, nil, 17}, "factor is 17, want 1 to 16"},
		{input{[]placement.Member{{Zone: "z"}}, nil, 1}, "member number 0: name has 0 bytes, want 1 to 256"},
		{input{[]placement.Member{{Name: "a", Weight: -1}}, nil, 1}, `member "a": weight is -1 bytes, want 0 to`},
		{input{[]placement.Member{{Name: "a", Weight: placement.MaxBytes + 1}}, nil, 1}, `member "a": weight is 70368744177665 bytes, want 0 to 70368744177664`},
		{input{[]placement.Member{{Name: strings.Repeat("a", 257)}}, nil, 1}, "member number 0: name has 257 bytes, want 1 to 256"},
		{input{[]placement.Member{{Name: "a", Zone: strings.Repeat("z", 257)}}, nil, 1}, `member "a": zone has 257 bytes, want at most 256`},
		{input{[]placement.Member{member, member}, nil, 1}, `member "a" is there twice`},
		{input{make([]placement.Member, placement.MaxMembers+1), nil, 1}, "there are 4097 members, want at most 4096"},
		{input{nil, []placement.Shard{{Bytes: 1}}, 1}, "shard number 0: key has 0 bytes, want 1 to 256"},
		{input{nil, []placement.Shard{{Key: "apps/0"}}, 1}, `shard "apps/0" has 0 bytes, want 1 to`},
		{input{nil, []placement.Shard{{Key: strings.Repeat("a", 257), Bytes: 1}}, 1}, "shard number 0: key has 257 bytes, want 1 to 256"},
		{input{nil, []placement.Shard{{Key: "apps/0", Bytes: placement.MaxBytes + 1}}, 1}, `shard "apps/0" has 70368744177665 bytes, want 1 to 70368744177664`},
		{input{nil, []placement.Shard{shard, shard}, 1}, `shard "apps/0" is there twice`},
		{input{nil, make([]placement.Shard, placement.MaxShards+1), 1}, "there are 8193 shards, want at most 8192"},
	} {
		_, err := placement.Place(c.in.members, c.in.shards, c.in.factor)
		require.ErrorContains(t, err, c.want)
	}
}

// The largest numbers that are accepted do not leave 64 bits.
func TestLargest(t *testing.T) {
	in := &input{factor: placement.MaxFactor}
	for n := range 40 {
		in.members = append(in.members, placement.Member{Name: fmt.Sprint(n), Zone: fmt.Sprint(n % 3)})
	}
	in.members[0].Weight, in.members[1].Weight = placement.MaxBytes, 1
	for n := range placement.MaxShards {
		in.shards = append(in.shards, placement.Shard{Key: fmt.Sprint(n), Bytes: placement.MaxBytes})
	}
	loads := in.place(t).Loads()
	require.Equal(t, int64(placement.MaxBytes), loads[0].Bytes)
	for _, load := range loads {
		require.GreaterOrEqual(t, load.Share, int64(0))
		require.GreaterOrEqual(t, load.Bound, load.Share)
	}
}
