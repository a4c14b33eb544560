package placement_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/server/placement"
)

// Logarithms are those of the library, but for what interpolation costs.
func TestLogarithms(t *testing.T) {
	check := func(t require.TestingT, hash uint64) {
		got, fraction := placement.NegLog2(hash)
		want := 64 - math.Log2(float64(hash|1))
		require.InDelta(t, want, math.Ldexp(float64(got), -fraction), 1e-7, "%x", hash)
	}
	for _, hash := range []uint64{0, 1, 2, 3, 1 << 32, 1 << 63, 1<<63 - 1, 1<<64 - 1, 1<<64 - 1<<40, 0xc000 << 48} {
		check(t, hash)
	}
	rapid.Check(t, func(t *rapid.T) { check(t, rapid.Uint64().Draw(t, "hash")) })
	previous := uint64(math.MaxUint64)
	for hash := uint64(1); hash>>63 == 0; hash += hash/1000 + 1 { // it falls
		got, _ := placement.NegLog2(hash)
		require.LessOrEqual(t, got, previous, "%x", hash)
		previous = got
	}
}

// oracle is the plan made plainly: with floats, and every member ranked and tried for every
// rule.
type oracle struct {
	in     *input
	load   map[string]float64
	share  map[string]float64
	on     map[string][]string // by shard
	zone   map[string]string
	copies float64 // bytes of all
	unit   float64
}

// newOracle takes shares from the plan: another test holds them against what they are to be.
func newOracle(in *input, plan *placement.Plan) *oracle {
	o := &oracle{in: in, load: map[string]float64{}, share: map[string]float64{}, on: map[string][]string{}, zone: map[string]string{}}
	for _, l := range plan.Loads() {
		o.share[l.Name], o.zone[l.Name] = float64(l.Share), l.Zone
	}
	var squares, total float64
	for _, s := range in.shards {
		total += float64(s.Bytes)
		squares += float64(s.Bytes) * float64(s.Bytes)
	}
	o.unit, o.copies = squares/total, total*float64(min(in.factor, len(in.members)))
	return o
}

// place places one copy, and returns whether it could.
func (o *oracle) place(s placement.Shard) bool {
	score := func(m placement.Member) float64 {
		pair := binary.LittleEndian.AppendUint64(nil, xxhash.Sum64String(s.Key))
		pair = binary.LittleEndian.AppendUint64(pair, xxhash.Sum64String(m.Name))
		return (64 - math.Log2(float64(xxhash.Sum64(pair)))) / weight(m)
	}
	ranked := slices.Clone(o.in.members)
	slices.SortFunc(ranked, func(a, b placement.Member) int {
		if score(a) < score(b) {
			return -1
		}
		return 1
	})
	for rule := range 4 {
		for _, m := range ranked {
			size, unit, share := float64(s.Bytes), max(o.unit, float64(s.Bytes)), o.share[m.Name]
			own := float64(xxhash.Sum64String(m.Name)) / (1 << 64)
			bound := 1.25*share + unit*(own+min(2, unit*o.copies/share/share/2))
			apart := !slices.ContainsFunc(o.on[s.Key], func(name string) bool { return o.zone[name] == m.Zone })
			switch {
			case slices.Contains(o.on[s.Key], m.Name):
			case m.Weight != 0 && o.load[m.Name]+size > float64(m.Weight):
			case rule%2 == 0 && o.load[m.Name]+size > bound:
			case rule < 2 && !apart:
			default:
				o.load[m.Name] += size
				o.on[s.Key] = append(o.on[s.Key], m.Name)
				return true
			}
		}
	}
	return false
}

// A plan is what its rules say, made plainly.
func TestPlanIsTheOracles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, 40, 60)
		if rapid.Bool().Draw(t, "memory is short") {
			for i := range in.members {
				in.members[i].Weight = rapid.Int64Range(1, 40).Draw(t, "memory") * giB / 2
			}
		}
		plan := in.place(t)
		order := slices.Clone(in.shards)
		slices.SortFunc(order, func(a, b placement.Shard) int {
			if x, y := bits.Len64(uint64(a.Bytes)), bits.Len64(uint64(b.Bytes)); x != y {
				return y - x
			}
			if xxhash.Sum64String(a.Key) < xxhash.Sum64String(b.Key) {
				return -1
			}
			return 1
		})
		o := newOracle(in, plan)
		for _, s := range order {
			for range in.factor {
				o.place(s)
			}
		}
		if slices.ContainsFunc(order, func(s placement.Shard) bool { return len(o.on[s.Key]) == 0 }) {
			o = newOracle(in, plan)
			for range in.factor {
				for _, s := range order {
					o.place(s)
				}
			}
		}
		for _, s := range plan.Shards() {
			require.ElementsMatch(t, o.on[s.Key], s.Members, s.Key)
		}
	})
}

// Of few shards and members all plans are tried. If one has all shards of one size once, so
// does the plan; of several sizes, it nearly always does.
func TestPacksNearlyAsWellAsCanBe(t *testing.T) {
	possible, found := 0, 0
	for seed := range 600 {
		random := func(what string, n int) int64 {
			return int64(xxhash.Sum64String(fmt.Sprint(what, seed)) % uint64(n))
		}
		in := &input{factor: 1}
		for n := range 3 {
			in.members = append(in.members, placement.Member{Name: fmt.Sprint("node-", n), Weight: 4 + random(fmt.Sprint("m", n), 5)})
		}
		for n := range 6 {
			in.shards = append(in.shards, placement.Shard{Key: fmt.Sprint("apps/", n), Bytes: 1 + random(fmt.Sprint("s", n), 4)})
		}
		if !packs(in, 0, make([]int64, 3)) {
			continue
		}
		possible++
		if len(in.place(t).Short()) == 0 {
			found++
		}
	}
	t.Logf("%d of %d", found, possible)
	require.Greater(t, possible, 100)
	require.GreaterOrEqual(t, float64(found), 0.8*float64(possible), "%d of %d", found, possible)
}

// packs returns whether the shards from one on fit beside what members have.
func packs(in *input, from int, load []int64) bool {
	if from == len(in.shards) {
		return true
	}
	for j, m := range in.members {
		if load[j]+in.shards[from].Bytes <= m.Weight {
			load[j] += in.shards[from].Bytes
			ok := packs(in, from+1, load)
			load[j] -= in.shards[from].Bytes
			if ok {
				return true
			}
		}
	}
	return false
}
