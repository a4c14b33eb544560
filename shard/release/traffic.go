package release

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Bucket returns the bucket of a key.
func Bucket(salt, key string) int {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(salt) // it never fails
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(key)
	return int(d.Sum64() % Total)
}

// Router finds the arm of a key. It is immutable.
type Router struct {
	salt string
	arms [Total]uint8 // by bucket
	pins map[string]uint8
	// versions lists the arms of each model version, those with traffic first.
	versions map[string][]uint8
	// variants has the arms of each variant.
	variants map[variantKey]Arms
	// interleaved are two arms, of whose keys a share per mille is interleaved; 0 for none.
	interleaved Arms
	share       uint64
	exploration *Exploration
}

// Arms are the numbers of the arms that answer a request: of two the answers are interleaved.
type Arms struct {
	First, Second int
	Two           bool
}

type variantKey struct{ experiment, variant string }

// NewRouter returns the router of a release.
func NewRouter(r *Release) *Router {
	t := &Router{salt: r.Salt, pins: map[string]uint8{}, versions: map[string][]uint8{}}
	for i, a := range r.Arms {
		for _, n := range a.Buckets {
			t.arms[n] = uint8(i)
		}
		for _, key := range a.Pins {
			t.pins[key] = uint8(i)
		}
		t.versions[a.ModelVersion] = append(t.versions[a.ModelVersion], uint8(i))
	}
	for _, v := range r.Variants {
		if t.variants == nil {
			t.variants = map[variantKey]Arms{}
		}
		t.variants[variantKey{v.Experiment, v.Variant}] = r.numbers(v.Arms)
	}
	if i := r.Interleaving; i != nil {
		t.interleaved, t.share = r.numbers(i.Arms), uint64(i.Share)
	}
	t.exploration = r.Exploration
	for _, list := range t.versions {
		slices.SortStableFunc(list, func(a, b uint8) int { return cmp.Compare(r.Arms[b].Weight, r.Arms[a].Weight) })
	}
	return t
}

// numbers returns the numbers of one or two arms.
func (r *Release) numbers(names []string) Arms {
	number := func(name string) int { return slices.IndexFunc(r.Arms, func(a Arm) bool { return a.Name == name }) }
	arms := Arms{First: number(names[0])}
	if len(names) > 1 {
		arms.Second, arms.Two = number(names[1]), true
	}
	return arms
}

// RouteVariant returns the arms that answer a variant, and false if none is said to.
func (t *Router) RouteVariant(experiment, variant string) (arms Arms, ok bool) {
	if len(t.variants) == 0 {
		return Arms{}, false
	}
	arms, ok = t.variants[variantKey{experiment, variant}]
	return arms, ok
}

// Interleaved returns the arms that answer a key which falls into an arm: two, if it is of the share
// that is interleaved.
func (t *Router) Interleaved(key string, arm int) Arms {
	if t.share == 0 || arm != t.interleaved.First && arm != t.interleaved.Second {
		return Arms{First: arm}
	}
	if _, pinned := t.pins[key]; pinned {
		return Arms{First: arm} // somebody wants to see what it answers
	}
	if t.hash("interleave", key)%Total >= t.share {
		return Arms{First: arm}
	}
	return t.interleaved
}

// Coins returns the seed of the coins by which the answer to a request is interleaved.
func (t *Router) Coins(requestID string) uint64 { return t.hash("coins", requestID) }

// Explores returns how requests explore, nil if none does, whether a request does, and the seed of
// its draw.
func (t *Router) Explores(requestID string) (x *Exploration, does bool, seed uint64) {
	if t.exploration == nil {
		return nil, false, 0
	}
	does = t.hash("explore", requestID)%Total < uint64(t.exploration.Share)
	return t.exploration, does, t.hash("draw", requestID)
}

// hash returns a hash of a key that is of nothing else than a purpose: so what falls into a bucket
// says nothing of what else is done with it.
func (t *Router) hash(purpose, key string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(t.salt) // it never fails
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(purpose)
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(key)
	return d.Sum64()
}

// Route returns the number of the arm that a key falls into.
func (t *Router) Route(key string) int {
	if len(t.pins) > 0 {
		if arm, ok := t.pins[key]; ok {
			return int(arm)
		}
	}
	return int(t.arms[Bucket(t.salt, key)])
}

// RouteVersion returns the number of the arm, of those that serve a model version, that
// a key falls into, and false if none serves it. It is the arm that Route returns
// if that serves the version, and else the one of those with the most traffic.
func (t *Router) RouteVersion(key, version string) (arm int, ok bool) {
	list := t.versions[version]
	if len(list) == 0 {
		return 0, false
	}
	if own := t.Route(key); slices.Contains(list, uint8(own)) {
		return own, true
	}
	return int(list[0]), true
}

// Versions lists the model versions that are served, ascending.
func (t *Router) Versions() []string {
	var list []string
	for v := range t.versions {
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}

// divide gives the arms their weights. Arms that shrink give up their last buckets, and
// those that grow take them in order. No other bucket moves.
func divide(arms []Arm, weights []int) {
	var free []int
	var owned [Total]bool
	for i := range arms {
		a := &arms[i]
		if n := weights[i]; n < len(a.Buckets) {
			a.Buckets = slices.Clone(a.Buckets[:n])
		}
		for _, n := range a.Buckets {
			owned[n] = true
		}
	}
	for n, taken := range owned {
		if !taken {
			free = append(free, n)
		}
	}
	for i := range arms {
		a := &arms[i]
		if grow := weights[i] - len(a.Buckets); grow > 0 {
			a.Buckets = append(slices.Clone(a.Buckets), free[:grow]...)
			slices.Sort(a.Buckets)
			free = free[grow:]
		}
		a.Weight = weights[i]
	}
}

// shrink returns weights that leave out a part of the traffic, in the proportions of
// arms: each is rounded down, and what is left goes to those that lost most by it, the
// first ones first.
func shrink(arms []Arm, part int) []int {
	weights := make([]int, len(arms))
	order := make([]int, len(arms))
	left := Total - part
	for i, a := range arms {
		weights[i] = a.Weight * (Total - part) / Total
		left -= weights[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(arms[b].Weight*(Total-part)%Total, arms[a].Weight*(Total-part)%Total)
	})
	for _, i := range order[:left] {
		weights[i]++
	}
	return weights
}
