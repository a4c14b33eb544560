package release

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Interleaving has a share of the keys of two arms answered by both: the answer is drawn from
// theirs, see package interleave.
type Interleaving struct {
	// Arms are the names of two arms.
	Arms []string `json:"arms"`
	// Share is how many of the keys that fall into one of them are interleaved, per mille: 1 to
	// [Total]. Pinned ones are not. Which these are does not depend on the buckets.
	Share int `json:"share"`
}

// String returns its text: "control+candidate=50".
func (i *Interleaving) String() string {
	return strings.Join(i.Arms, "+") + "=" + strconv.Itoa(i.Share)
}

func (i *Interleaving) validate(r *Release) error {
	if i == nil {
		return nil
	}
	if i.Share < 1 || i.Share > Total {
		return fmt.Errorf("the share that is interleaved is %d; accepted: 1 to %d per mille", i.Share, Total)
	}
	if len(i.Arms) != 2 {
		return fmt.Errorf("%d arms are interleaved; accepted: 2", len(i.Arms))
	}
	return r.checkPair(i.Arms, "interleaving")
}

// checkPair returns an error unless those are one or two different arms of the release.
func (r *Release) checkPair(names []string, what string) error {
	for i, name := range names {
		if r.Arm(name) == nil {
			return fmt.Errorf("%.300s is of arm %.80q, which there is not", what, name)
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("%.300s is of arm %s twice; accepted: two that differ", what, name)
		}
	}
	return nil
}

// Bounds of an exploration.
const (
	MaxPlaces = 10
	MaxPool   = 10_000
	// MaxExplored is the largest share: with all requests nobody would be shown what is
	// displaced.
	MaxExplored = Total - 1
)

// Exploration has the last places of a share of the answers drawn from what ranks after them, so
// that what the model ranks there is shown too; see package explore.
type Exploration struct {
	// Share is how many requests explore, per mille: 1 to [MaxExplored].
	Share int `json:"share"`
	// Places is how many of the last places of an answer are drawn, 1 to [MaxPlaces].
	Places int `json:"places"`
	// Pool is the last rank that they are drawn from, counted from 1: up to [MaxPool], and above
	// Places.
	Pool int `json:"pool"`
}

// String returns its text: "20,2,200".
func (x *Exploration) String() string { return fmt.Sprintf("%d,%d,%d", x.Share, x.Places, x.Pool) }

func (x *Exploration) validate() error {
	switch {
	case x == nil:
	case x.Share < 1 || x.Share > MaxExplored:
		return fmt.Errorf("the share that explores is %d; accepted: 1 to %d per mille", x.Share, MaxExplored)
	case x.Places < 1 || x.Places > MaxPlaces:
		return fmt.Errorf("%d places are explored; accepted: 1 to %d", x.Places, MaxPlaces)
	case x.Pool <= 2*x.Places || x.Pool > MaxPool:
		// k is above Places, and there are as many after it.
		return fmt.Errorf("places are drawn up to rank %d; accepted: above twice the %d places, up to %d", x.Pool, x.Places, MaxPool)
	}
	return nil
}

// ErrNoExperiment is the class of the errors that say that a text names no interleaving, or no
// exploration.
var ErrNoExperiment = errors.New("not of that form")

// ParseInterleaving reads ARM+ARM=SHARE.
func ParseInterleaving(text string) (*Interleaving, error) {
	names, share, _ := strings.Cut(text, "=")
	n, err := strconv.Atoi(share)
	a, b, ok := strings.Cut(names, "+")
	if err != nil || !ok || a == "" || b == "" || strings.Contains(b, "+") {
		return nil, fmt.Errorf("%.300q: %w; accepted: ARM+ARM=SHARE per mille, such as control+candidate=50", text, ErrNoExperiment)
	}
	return &Interleaving{Arms: []string{a, b}, Share: n}, nil
}

// ParseExploration reads SHARE,PLACES,POOL.
func ParseExploration(text string) (*Exploration, error) {
	var n [3]int
	parts := strings.Split(text, ",")
	for i, part := range parts[:min(len(parts), len(n))] {
		var err error
		if n[i], err = strconv.Atoi(part); err != nil {
			parts = nil
			break
		}
	}
	if len(parts) != len(n) {
		return nil, fmt.Errorf("%.300q: %w; accepted: SHARE,PLACES,POOL, such as 20,2,200", text, ErrNoExperiment)
	}
	return &Exploration{Share: n[0], Places: n[1], Pool: n[2]}, nil
}

// setExperiments begins and ends interleaving and exploration.
func (o *SplitOptions) setExperiments(next *Release) error {
	switch {
	case o.Interleaving != nil && o.EndInterleaving, o.Exploration != nil && o.EndExploration:
		return fmt.Errorf("what is to begin is to end, too: %w", ErrChange)
	case o.EndInterleaving && next.Interleaving == nil:
		return fmt.Errorf("nothing is interleaved but by variants; there is nothing to end: %w", ErrChange)
	case o.EndExploration && next.Exploration == nil:
		return fmt.Errorf("nothing explores; there is nothing to end: %w", ErrChange)
	}
	if o.Interleaving != nil {
		for _, name := range o.Interleaving.Arms {
			if next.Arm(name) == nil {
				return unknownArm(next, name)
			}
			if slices.Contains(o.Remove, name) {
				return fmt.Errorf("arm %s is to end, and to be interleaved; accepted: one of the two: %w", name, ErrChange)
			}
		}
		next.Interleaving = &Interleaving{slices.Clone(o.Interleaving.Arms), o.Interleaving.Share}
	}
	if o.Exploration != nil {
		x := *o.Exploration
		next.Exploration = &x
	}
	if o.EndInterleaving {
		next.Interleaving = nil
	}
	if o.EndExploration {
		next.Exploration = nil
	}
	if err := errors.Join(next.Interleaving.validate(next), next.Exploration.validate()); err != nil {
		return fmt.Errorf("%w: %w", err, ErrChange)
	}
	return nil
}

// gainsInterleaving reports whether an arm gets requests of the other one that it did not have.
func gainsInterleaving(name string, next, now *Release) bool {
	if next.Interleaving == nil || !slices.Contains(next.Interleaving.Arms, name) {
		return false
	}
	was := now.Interleaving
	return was == nil || next.Interleaving.Share > was.Share ||
		slices.ContainsFunc(next.Interleaving.Arms, func(arm string) bool { return !slices.Contains(was.Arms, arm) })
}
