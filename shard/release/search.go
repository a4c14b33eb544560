package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// maxPassed is how many generations that are passed over are told one by one.
const maxPassed = 10

// search looks in the history for what a rollback goes back to.
//
// It follows what served, not what was written: behind a rollback to generation N comes N,
// and then what was before it. But who has rolled back has said that what was taken off is
// bad, and the path behind N may lead to an earlier release of the same snapshot. So what
// was taken off keeps a generation from coming back, unless it was given traffic by a person
// after that; see Release.TakenOff.
type search struct {
	releases *Releases
	now      *Release
	// off is what is to have no traffic. Empty: what has all traffic, or came last of what
	// has some; then what comes back must be a snapshot that had all of it.
	off []manifest.Digest

	whole    bool // whether one snapshot must have had all traffic
	takenOff map[manifest.Digest]uint64
	passed   []string
	more     int // passed over, and not told
}

// run returns the release. The error is of class [ErrChange] if there is none.
func (s *search) run(ctx context.Context) (*Release, error) {
	serving := withTraffic(s.now)
	s.whole = len(s.off) == 0
	if s.whole && len(serving) == 1 {
		s.off = serving
	}
	var err error
	if s.takenOff, err = s.releases.takenOff(ctx, s.now); err != nil {
		return nil, err
	}
	at := s.now.Generation // the newest generation that may be on the path
	for one, err := range s.releases.History(ctx) {
		u, b := (*UnreadableError)(nil), (*BrokenError)(nil)
		switch {
		case errors.As(err, &u):
			s.pass(at, u.Generation, u.Err.Error())
			continue
		case errors.As(err, &b):
			s.pass(at, b.Generation, b.Err.Error())
			continue
		case err != nil:
			return nil, err
		case one.Generation > s.now.Generation:
			continue // another change was first, which the append will find
		}
		if one.Generation > at {
			continue
		}
		at = one.Generation - 1
		if one.Kind == RolledBack && one.Of < one.Generation {
			at = one.Of
		}
		if len(s.off) == 0 {
			s.off = without(serving, one)
		}
		if ok, err := s.comesBack(ctx, one); ok || err != nil {
			s.sumUp()
			return one, err
		}
	}
	s.sumUp()
	return nil, s.none()
}

// comesBack reports whether a release on the path is what is looked for.
func (s *search) comesBack(ctx context.Context, one *Release) (bool, error) {
	all := snapshotsOf(one)
	has := func(d manifest.Digest) bool { return slices.Contains(all, d) }
	if len(s.off) == 0 || slices.ContainsFunc(s.off, has) || s.whole && len(withTraffic(one)) != 1 {
		return false, nil
	}
	for d, generation := range s.takenOff {
		if has(d) {
			s.pass(one.Generation, one.Generation, fmt.Sprintf("it has snapshot %s, which generation %d took off", d.Short(), generation))
			return false, nil
		}
	}
	for _, d := range all {
		_, err := s.releases.servable(ctx, d)
		if errors.Is(err, snapshots.ErrNoSnapshot) || errors.Is(err, snapshots.ErrNoShard) || errors.Is(err, sections.ErrCorrupt) {
			s.pass(one.Generation, one.Generation, err.Error())
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// pass notes why a generation is passed over that could have come back.
func (s *search) pass(at, generation uint64, why string) {
	switch {
	case generation > at:
	case len(s.passed) == maxPassed:
		s.more++
	default:
		s.passed = append(s.passed, fmt.Sprintf("generation %d: %s", generation, why))
	}
}

// sumUp notes how many more were passed over.
func (s *search) sumUp() {
	if s.more > 0 {
		s.passed = append(s.passed, fmt.Sprintf("and %d more", s.more))
	}
}

// none says that there is nothing to go back to.
func (s *search) none() error {
	want := "without snapshot "
	if s.whole {
		want = "in which another snapshot had all traffic than "
	}
	var names []string
	for _, d := range s.off {
		names = append(names, d.Short())
	}
	text := fmt.Sprintf("there is no earlier generation %s%s that can come back", want, strings.Join(names, ", "))
	if len(s.off) == 0 {
		text = "there is no earlier generation in which one snapshot had all traffic that can come back"
	}
	if len(s.passed) > 0 {
		text += "; passed over were " + strings.Join(s.passed, "; ")
	}
	if n := len(s.now.Arms); n > 1 {
		text += fmt.Sprintf("; tandem release stop %s ends that arm alone", s.now.Arms[n-1].Name)
	}
	return fmt.Errorf("%s; name one of those that tandem release history lists: %w", text, ErrChange)
}

// resolve returns the snapshot of a release that a digest, or the beginning of one, means.
func resolve(r *Release, ref string) (manifest.Digest, error) {
	var found, all []string
	for _, d := range snapshotsOf(r) {
		if all = append(all, d.Short()); strings.HasPrefix(string(d), ref) {
			found = append(found, string(d))
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("snapshot %.80q does not serve; %s: %w", ref, strings.Join(all, ", ")+" do", ErrChange)
	case 1:
		return manifest.Digest(found[0]), nil
	}
	return "", fmt.Errorf("snapshot %.80q means any of %d that serve; give more digits: %w", ref, len(found), ErrChange)
}

// snapshotsOf returns the snapshots of a release, each once.
func snapshotsOf(r *Release) (list []manifest.Digest) {
	for _, a := range r.Arms {
		if !slices.Contains(list, a.Snapshot) {
			list = append(list, a.Snapshot)
		}
	}
	return list
}

// withTraffic returns those that have a share of it, each once.
func withTraffic(r *Release) (list []manifest.Digest) {
	for _, a := range r.Arms {
		if a.Weight > 0 && !slices.Contains(list, a.Snapshot) {
			list = append(list, a.Snapshot)
		}
	}
	return list
}

// without returns those of some snapshots that a release does not have.
func without(list []manifest.Digest, r *Release) []manifest.Digest {
	have := snapshotsOf(r)
	return slices.DeleteFunc(slices.Clone(list), func(d manifest.Digest) bool { return slices.Contains(have, d) })
}
