package axes

import (
	"fmt"
	"math"
)

// State is what a comparison amounts to.
type State int

// The states.
const (
	Inconclusive State = iota // towers of one training, and of two, look like that
	Together                  // towers of two trainings do not look like that
	Apart                     // towers of one training do not look like that
)

// String returns the state's name.
func (s State) String() string { return [...]string{"inconclusive", "together", "apart"}[s] }

// Agreed is how many standard deviations, of turns and of permutations, an agreement is
// above chance that does not come by it, in two forms. Where few directions hold all
// variance, chance has a long tail in one form, and less of it in the others.
const Agreed = 4.5

const (
	// signed is how many of them the signs of axes agree that are the coordinates.
	signed = 4
	// aligned is the share of a form on its diagonal from which the coordinates are axes.
	aligned = 0.5

	// By itself a comparison finds towers apart if in no form the agreement is further
	// from 0 than chance, either way, while axes stand out of the noise, and agreements of
	// which nearly all trainings have more would be far above chance.
	chance     = 2
	reliable   = 0.8
	usual      = 0.3
	foreseen   = 12
	permutable = 3 // the same for permutations, of which far fewer are drawn

	// Beside a reference it finds them apart if the reference agrees in two forms this
	// far, and they less than a quarter of that, and no more than by chance.
	exemplary  = 6
	coincident = 3
	part       = 0.25
)

// Alone says what the comparison amounts to by itself, and in a sentence why. It is
// known of most trainings that their towers agree, and not how far; see [Result.Beside].
func (r *Result) Alone() (State, string) {
	if len(r.Agreements) == 0 {
		return Inconclusive, fmt.Sprintf("%d apps and %d users of %d dimensions are too few to tell: at least %d of each and 2 dimensions are needed", r.Rows[0], r.Rows[1], r.Dim, minRows)
	}
	found := r.found()
	switch agreeing := r.agreeing(); {
	case agreeing >= 2 && r.Aligned && r.Signs < signed:
		return Inconclusive, found + fmt.Sprintf("; but the axes are the coordinates, which other trainings share but for their signs, and those agree by %.1f standard deviations only, of %d", r.Signs, signed)
	case agreeing >= 2:
		return Together, found
	}
	if r.byChance() {
		return Apart, found + ", no more than those of two trainings"
	}
	return Inconclusive, found + "; " + r.unclear()
}

// Sigmas is the second highest of the forms' agreements, in standard deviations above
// chance: of turns or of permutations, whichever are fewer. 0 if none was measured.
func (r *Result) Sigmas() float64 {
	first, second := math.Inf(-1), math.Inf(-1)
	for _, g := range r.Agreements {
		x := min(g.Sigmas, g.PermutedSigmas)
		first, second = max(first, x), max(second, min(first, x))
	}
	if math.IsInf(second, -1) {
		return 0
	}
	return second
}

// best returns the agreement furthest above chance.
func (r *Result) best() Agreement {
	best := r.Agreements[0]
	for _, g := range r.Agreements {
		if g.Sigmas > best.Sigmas {
			best = g
		}
	}
	return best
}

// agreeing returns in how many forms the agreement is above all controls.
func (r *Result) agreeing() (n int) {
	for _, g := range r.Agreements {
		if min(g.Sigmas, g.PermutedSigmas) >= Agreed && g.Value > max(g.Turned, g.Permuted) {
			n++
		}
	}
	return n
}

// scale is how many standard deviations of random turns an agreement of 1 is.
func scale(dim int) float64 { return math.Sqrt(float64((dim-1)*(dim+2)) / 2) }

// byChance reports whether the agreement is none in any form, where there should be some.
func (r *Result) byChance() bool {
	for _, g := range r.Agreements {
		if math.Abs(g.Sigmas) >= chance || math.Abs(g.PermutedSigmas) >= permutable || g.Reliable < reliable || usual*g.Reliable*scale(r.Used) < foreseen {
			return false
		}
	}
	return true
}

// Beside says what the comparison amounts to beside that of two towers which were trained
// in the same way and belong together, such as those that serve now: whether of their
// agreement hardly anything is left. It is inconclusive if the reference does not agree.
func (r *Result) Beside(reference *Result) (State, string) {
	if len(r.Agreements) == 0 || reference.Used != r.Used || reference.agreeing() < 2 {
		return Inconclusive, "the axes of the previous snapshot's towers do not agree well enough to compare with"
	}
	byChance, left, lost := true, 0, 0
	for i, g := range r.Agreements {
		was := reference.Agreements[i]
		byChance = byChance && max(g.Sigmas, g.PermutedSigmas) < coincident
		switch {
		case g.Sigmas >= part*was.Sigmas:
			left++
		case was.Sigmas >= exemplary && g.Reliable >= was.Reliable/2:
			lost++
		}
	}
	was := reference.best()
	text := fmt.Sprintf("%s; those of the previous snapshot agree by %.2f (%.1f)", r.found(), was.Value, was.Sigmas)
	switch {
	case byChance && lost >= 2:
		return Apart, text
	case left >= 2:
		return Together, text
	}
	return Inconclusive, text + ", which is too little of it left to be sure, and too much to be chance"
}

// Least returns how many standard deviations above chance towers should agree beside r.
func (r *Result) Least() float64 { return part * max(r.Sigmas(), 0) }

// found says how far the towers agree.
func (r *Result) found() string {
	best := r.best()
	return fmt.Sprintf("the towers' axes agree by %.2f, in a space turned at random by up to %.2f (%.1f standard deviations)", best.Value, best.Turned, best.Sigmas)
}

// unclear says why a comparison tells nothing.
func (r *Result) unclear() string {
	least, anti := 1.0, false
	for _, g := range r.Agreements {
		least = min(least, g.Reliable)
		anti = anti || g.Sigmas <= -Agreed
	}
	switch {
	case anti:
		return "in a form they disagree more than by chance, which is not known of towers of two trainings, nor of most of one"
	case least < reliable:
		return fmt.Sprintf("the axes hardly stand out of the noise: halves of the same tower agree by %.2f", least)
	case usual*least*scale(r.Used) < foreseen:
		return fmt.Sprintf("%d dimensions are too few to tell little agreement from none", r.Used)
	}
	return "that is too much for two trainings and too little for one"
}
