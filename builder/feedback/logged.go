package feedback

import (
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/shard/joined"
)

// explored is what an answer says of how it was drawn. Only answers of which places were drawn, or
// could have been, have it.
type explored struct {
	_          struct{} `cbor:",toarray"`
	Generation int64    // of the release, which says how it explores
	Drawn      bool
	// Propensities are those of each place, above 0 and up to 1. A place is open if its own is
	// below 1.
	Propensities []float32
	Target       []byte // of each place, of match; nil without an answer of the target
}

// newExplored returns what the first row of an answer says, nil if it has no propensity.
func newExplored(r *joined.Row) *explored {
	if r.Propensity == 0 {
		return nil
	}
	return &explored{Generation: r.Generation, Drawn: r.Explored}
}

// with adds the next place. An answer of which not every place has a propensity has none.
func (e *explored) with(r *joined.Row) *explored {
	if e == nil || r.Propensity == 0 || int64(len(e.Propensities)) != r.Rank-1 {
		return nil
	}
	e.Propensities = append(e.Propensities, r.Propensity)
	return e
}

// class is where the candidate at a place is from.
type class uint8

const (
	ranked class = iota // it ranks there
	drawn               // it was drawn from those that rank after the answer
)

// class returns that of a place.
func (e *explored) class(place int) class {
	if e.Drawn && e.open(place) {
		return drawn
	}
	return ranked
}

func (e *explored) open(place int) bool { return e.Propensities[place] < 1 }

// generation is how a release explores, as far as its propensities tell.
type generation struct {
	requests int64
	share    float64 // of requests that are drawn; 0 while it is not known
	differs  bool    // that share is not one
	// pools are what open places were drawn from, by the number of places of the answer, and drawn
	// the fewest candidates that are known after drawn answers, with those that were drawn, by the
	// propensity too.
	pools map[int]*pool
	drawn map[drawnFrom]int64
}

// pool is how many candidates after the answer places are drawn from.
type pool struct {
	most  int64
	short bool // of an answer not all of them are known
}

type drawnFrom struct {
	places     int
	propensity float32
}

// cell is what rewards are alike in, and which half of the users is not in it.
type cell struct {
	fold  uint8
	place int
	class class
}

// logged is what the propensities of exposures amount to.
type logged struct {
	requests, without, explored int64
	generations                 map[int64]*generation
	cells                       map[cell]*[2]int64 // exposures and hits
	policies                    map[policyArm]*policySums
}

type policyArm struct {
	policy policy
	all    bool // arms
	arm    string
}

func newLogged() *logged {
	return &logged{generations: map[int64]*generation{}, cells: map[cell]*[2]int64{}, policies: map[policyArm]*policySums{}}
}

// shareStep is what shares of requests are whole multiples of: a propensity has 24 bits, and a share
// that is what it lacks of 1 is to be exact.
const shareStep = 1e-3

// shareOf returns the share of requests that are drawn, of the propensity of a place that was open
// and is as ranked.
func shareOf(propensity float32) float64 {
	share := 1 - float64(propensity)
	if near := math.Round(share/shareStep) * shareStep; near > 0 && math.Abs(near-share) < 1e-6 {
		return near
	}
	return share
}

// take takes in an answer that is whole.
func (l *logged) take(r *request) {
	e := r.Explored
	if e == nil {
		if r.Shown > 0 {
			l.without++
		}
		return
	}
	l.requests++
	if e.Drawn {
		l.explored++
	}
	g := at(l.generations, e.Generation)
	g.requests++
	hits := r.hits()
	for place, p := range e.Propensities {
		c := cell{fold(r.User), place, e.class(place)}
		n := at(l.cells, c)
		n[0]++
		if hits[place] {
			n[1]++
		}
		if !e.open(place) {
			continue
		}
		if c.class == ranked {
			share := shareOf(p)
			g.differs = g.differs || g.share != 0 && g.share != share
			g.share = share
		}
	}
}

// hits returns which places have a hit.
func (r *request) hits() map[int]bool {
	hits := map[int]bool{}
	for _, a := range r.Acts {
		if a.Hit {
			hits[int(a.Rank-1)] = true
		}
	}
	return hits
}

// fold is which half of the users one is in.
func fold(user string) uint8 { return uint8(xxhash.Sum64String(user) & 1) }

// expect returns the rate of hits at a place that the other half of the users has, 0 where it has
// none: what is expected of a user does not come of what the user did, or estimates would lean to
// that.
func (l *logged) expect(of uint8, place int, c class) float64 {
	n := l.cells[cell{1 - of, place, c}]
	if n == nil {
		return 0
	}
	return float64(n[1]) / float64(n[0])
}

// candidates returns how many candidates the one at an open place was drawn from.
func (g *generation) candidates(propensity float32) int64 {
	return int64(math.Round(g.share / float64(propensity)))
}

// seen takes in how many candidates came next after a drawn answer, which those that were drawn are
// not among.
func (g *generation) seen(e *explored, next int64) {
	for place := range e.Propensities {
		if e.open(place) {
			next++
		}
	}
	for place, p := range e.Propensities {
		if !e.open(place) {
			continue
		}
		of := drawnFrom{len(e.Propensities), p}
		if fewest, known := g.drawn[of]; !known || next < fewest {
			if g.drawn == nil {
				g.drawn = map[drawnFrom]int64{}
			}
			g.drawn[of] = next
		}
	}
}

// settle ends taking in: what is reckoned of a generation is known from here on.
func (l *logged) settle() {
	for _, g := range l.generations {
		for of, fewest := range g.drawn {
			if g.pools == nil {
				g.pools = map[int]*pool{}
			}
			p := at(g.pools, of.places)
			n := g.candidates(of.propensity)
			p.most, p.short = max(p.most, n), p.short || fewest < n
		}
	}
}

// refused says why a generation tells nothing of other policies; empty if it does.
func (g *generation) refused() string {
	switch {
	case g.differs:
		return "its propensities are of several shares of requests"
	case g.share == 0:
		return "it is not known which share of its requests is drawn: no answer is there that could have been and was not"
	}
	return ""
}
