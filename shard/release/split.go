package release

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// SplitOptions say how traffic is divided anew.
type SplitOptions struct {
	Change
	// Weights are per mille, by the name of the arm. Those of the others are scaled to
	// what is left. An arm of weight 0 serves those who are pinned to it, or to its
	// model version.
	Weights map[string]int
	// Pins are keys that fall into an arm from now on, and Unpin those that no longer
	// do.
	Pins  map[string][]string
	Unpin []string
	// Remove are the names of arms that end.
	Remove []string
	// Variants decide the arm of requests that name them from now on, and Unmap are those that
	// no longer do, whose Arms do not matter.
	Variants []Variant
	Unmap    []Variant
	// Interleaving and Exploration are as they are from now on; nil is as they were.
	Interleaving *Interleaving
	Exploration  *Exploration
	// EndInterleaving and EndExploration end them.
	EndInterleaving, EndExploration bool
}

// empty reports whether nothing is to be divided anew.
func (o *SplitOptions) empty() bool {
	return len(o.Weights) == 0 && len(o.Pins) == 0 && len(o.Unpin) == 0 && len(o.Remove) == 0 && len(o.Variants) == 0 && len(o.Unmap) == 0 &&
		o.Interleaving == nil && o.Exploration == nil && !o.EndInterleaving && !o.EndExploration
}

// Split divides the traffic anew. The snapshot of an arm that gets more of it, or more
// pins, is judged.
func (r *Releases) Split(ctx context.Context, o SplitOptions) (*Release, error) {
	return r.change(ctx, o.Change, Divided, nil, func(ctx context.Context, next *Release) error {
		now := *next
		now.Arms = slices.Clone(next.Arms)
		if err := o.divide(next); err != nil {
			return err
		}
		for i := range next.Arms {
			a := &next.Arms[i]
			if was := now.Arm(a.Name); a.Weight > was.Weight || gains(a.Pins, was.Pins) || gainsVariants(a.Name, next, &now) || gainsInterleaving(a.Name, next, &now) {
				if err := r.admit(ctx, &now, a, o.Override); err != nil {
					return fmt.Errorf("arm %s gets more traffic: %w", a.Name, err)
				}
			}
		}
		return nil
	})
}

// gains reports whether there is a key among pins that was not before.
func gains(pins, before []string) bool {
	return slices.ContainsFunc(pins, func(key string) bool { return !slices.Contains(before, key) })
}

// divide gives the arms the weights and the pins, and removes those that end.
func (o *SplitOptions) divide(next *Release) error {
	for name := range o.Weights {
		if next.Arm(name) == nil {
			return unknownArm(next, name)
		}
	}
	for name := range o.Pins {
		if next.Arm(name) == nil {
			return unknownArm(next, name)
		}
	}
	if o.empty() {
		return fmt.Errorf("no weight, no pin, no variant, no interleaving and no exploration is given: %w", ErrChange)
	}
	if err := o.setVariants(next); err != nil {
		return err
	}
	if err := o.setExperiments(next); err != nil {
		return err
	}
	weights, err := o.weights(next)
	if err != nil {
		return err
	}
	divide(next.Arms, weights)
	gone := map[string]bool{}
	for _, keys := range append(slices.Collect(maps.Values(o.Pins)), o.Unpin) {
		for _, key := range keys {
			gone[key] = true
		}
	}
	for i := range next.Arms {
		a := &next.Arms[i]
		a.Pins = slices.DeleteFunc(slices.Clone(a.Pins), func(key string) bool { return gone[key] })
		a.Pins = append(a.Pins, o.Pins[a.Name]...)
		slices.Sort(a.Pins)
		a.Pins = slices.Compact(a.Pins)
	}
	for _, name := range o.Remove {
		if next.Arm(name) == nil {
			return unknownArm(next, name)
		}
		if slices.ContainsFunc(o.Variants, func(v Variant) bool { return slices.Contains(v.Arms, name) }) {
			return fmt.Errorf("arm %s is to end, and to answer a variant; accepted: one of the two: %w", name, ErrChange)
		}
		next.Arms = slices.DeleteFunc(next.Arms, func(a Arm) bool { return a.Name == name })
	}
	return nil
}

// weights returns the weight of each arm.
func (o *SplitOptions) weights(next *Release) ([]int, error) {
	given, rest := 0, 0
	var others []Arm
	for _, a := range next.Arms {
		w, ok := o.Weights[a.Name]
		if slices.Contains(o.Remove, a.Name) {
			w, ok = 0, true
		}
		switch {
		case ok && (w < 0 || w > Total):
			return nil, fmt.Errorf("the weight of arm %s is %d; accepted: 0 to %d per mille: %w", a.Name, w, Total, ErrChange)
		case ok:
			given += w
		default:
			others = append(others, a)
			rest += a.Weight
		}
	}
	if given > Total || given < Total && rest == 0 {
		return nil, fmt.Errorf("the weights add up to %d per mille, and no other arm has traffic; accepted: %d: %w", given, Total, ErrChange)
	}
	// Scaled to the whole first, so that shrink keeps the proportions.
	whole := slices.Clone(others)
	left := Total
	for i := range whole {
		whole[i].Weight = others[i].Weight * Total / max(rest, 1)
		left -= whole[i].Weight
	}
	for i := range whole {
		if left > 0 && others[i].Weight > 0 {
			whole[i].Weight++
			left--
		}
	}
	scaled := shrink(whole, given)
	weights := make([]int, 0, len(next.Arms))
	for _, a := range next.Arms {
		w, ok := o.Weights[a.Name]
		if !ok && !slices.Contains(o.Remove, a.Name) {
			w, scaled = scaled[0], scaled[1:]
		} else if slices.Contains(o.Remove, a.Name) {
			w = 0
		}
		weights = append(weights, w)
	}
	return weights, nil
}

func unknownArm(r *Release, name string) error {
	var names []string
	for _, a := range r.Arms {
		names = append(names, a.Name)
	}
	return fmt.Errorf("there is no arm %s; there are: %s: %w", name, strings.Join(names, ", "), ErrChange)
}

// StopOptions say which arm ends.
type StopOptions struct {
	Change
	// Arm is its name; that of the control does not end.
	Arm string
	// Before, if set, is called with what will serve, before it is written.
	Before func(Plan)
}

// Stop ends an arm. The control takes its traffic; the others do in proportion where there
// is none. It asks nobody's leave: the plan says what is not fit.
func (r *Releases) Stop(ctx context.Context, o StopOptions) (*Release, error) {
	o.as = "stop"
	return r.change(ctx, o.Change, Divided, nil, func(ctx context.Context, next *Release) error {
		now := *next
		now.Arms = slices.Clone(next.Arms)
		stopped := next.Arm(o.Arm)
		switch {
		case stopped == nil:
			return unknownArm(next, o.Arm)
		case len(next.Arms) == 1:
			return fmt.Errorf("arm %s is the only one; roll back: %w", o.Arm, ErrChange)
		case o.Arm == Control:
			return fmt.Errorf("arm %s is the one that the others are tried beside; promote one of them, or roll back: %w", o.Arm, ErrChange)
		}
		split := SplitOptions{Remove: []string{o.Arm}}
		if next.Arm(Control) != nil {
			split.Weights = map[string]int{}
			for _, a := range next.Arms {
				split.Weights[a.Name] = a.Weight
			}
			split.Weights[Control] += stopped.Weight
			delete(split.Weights, o.Arm)
		} else if stopped.Weight == Total {
			return fmt.Errorf("arm %s has all traffic, and there is no control that could take it; promote another, or roll back: %w", o.Arm, ErrChange)
		}
		if err := split.divide(next); err != nil {
			return err
		}
		next.Stopped = o.Arm
		if o.Before != nil {
			o.Before(r.plan(ctx, &now, next, nil))
		}
		return nil
	})
}

// Promote gives one arm all traffic, if its gates let it pass; the others end, and it is
// named control. Arm may be empty where there are two: the one that is not control.
func (r *Releases) Promote(ctx context.Context, c Change, arm string) (*Release, error) {
	return r.change(ctx, c, Promoted, nil, func(ctx context.Context, next *Release) error {
		if arm == "" {
			others := slices.DeleteFunc(slices.Clone(next.Arms), func(a Arm) bool { return a.Name == Control })
			if len(others) != 1 {
				return fmt.Errorf("%d arms could be promoted; name one: %w", len(others), ErrChange)
			}
			arm = others[0].Name
		}
		promoted := next.Arm(arm)
		if promoted == nil {
			return unknownArm(next, arm)
		}
		one := []Arm{*promoted}
		if err := r.admit(ctx, next, &one[0], c.Override); err != nil {
			return fmt.Errorf("arm %s gets all traffic: %w", arm, err)
		}
		one[0].Name, one[0].Pins = Control, nil
		next.Variants, next.Interleaving, next.Exploration = nil, nil, nil
		divide(one, []int{Total})
		next.Arms = one
		return nil
	})
}
