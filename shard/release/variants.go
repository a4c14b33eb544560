package release

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of variants.
const (
	// MaxVariants is how many a release has at most.
	MaxVariants = 64
	// MaxVariantName is how many bytes the name of an experiment has at most, and that of a
	// variant.
	MaxVariantName = 128
)

// Variant says which arm answers requests that name a variant of an experiment of callers,
// whatever bucket their keys are in. Callers who have an experiment system of their own deal users
// to variants by its hash and not by ours.
type Variant struct {
	Experiment string `json:"experiment"`
	Variant    string `json:"variant"`
	// Arms are the names of the arms that answer: one, or two whose answers are interleaved.
	Arms []string `json:"arms"`
}

// String returns the text of a variant: "ranker-7:treatment".
func (v *Variant) String() string { return v.Experiment + ":" + v.Variant }

// compareVariants is their order in a release.
func compareVariants(a, b Variant) int {
	return cmp.Or(strings.Compare(a.Experiment, b.Experiment), strings.Compare(a.Variant, b.Variant))
}

func (v *Variant) validate(r *Release) error {
	for _, name := range []struct{ of, text string }{{"experiment", v.Experiment}, {"variant", v.Variant}} {
		if n := len(name.text); n < 1 || n > MaxVariantName {
			return fmt.Errorf("%s %.80q has %d bytes; accepted: 1 to %d", name.of, name.text, n, MaxVariantName)
		}
		if !utf8.ValidString(name.text) {
			return fmt.Errorf("%s is %.80q; accepted: UTF-8", name.of, name.text)
		}
	}
	if n := len(v.Arms); n < 1 || n > 2 {
		return fmt.Errorf("%.80q has %d arms; accepted: 1 or 2", v, n)
	}
	return r.checkPair(v.Arms, fmt.Sprintf("%.80q", v))
}

// checkVariants returns an error unless the variants of a release are what its version can say.
func (r *Release) checkVariants() error {
	if len(r.Variants) > MaxVariants {
		return fmt.Errorf("%d variants; accepted: up to %d", len(r.Variants), MaxVariants)
	}
	for i := range r.Variants {
		if err := r.Variants[i].validate(r); err != nil {
			return fmt.Errorf("variants[%d]: %w", i, err)
		}
		if i > 0 && compareVariants(r.Variants[i-1], r.Variants[i]) >= 0 {
			return fmt.Errorf("variants[%d]: %.80q does not come after the one before; accepted: ascending, each once", i, &r.Variants[i])
		}
	}
	return nil
}

// versionOf returns the lowest version of the encoding that says all of a release: servers that
// know no variants, or nothing of interleaving, must not serve one that has some.
func versionOf(r *Release) int {
	two := slices.ContainsFunc(r.Variants, func(v Variant) bool { return len(v.Arms) > 1 })
	if two || r.Interleaving != nil || r.Exploration != nil {
		return withExperiments
	}
	if len(r.Variants) > 0 {
		return withVariants
	}
	return version
}

// keepVariants takes those out that are of arms which are no more, and an interleaving.
func (r *Release) keepVariants() {
	if i := r.Interleaving; i != nil && slices.ContainsFunc(i.Arms, func(name string) bool { return r.Arm(name) == nil }) {
		r.Interleaving = nil
	}
	r.Variants = slices.DeleteFunc(slices.Clone(r.Variants), func(v Variant) bool {
		return slices.ContainsFunc(v.Arms, func(name string) bool { return r.Arm(name) == nil })
	})
}

// setVariants gives variants to arms, and takes others from theirs.
func (o *SplitOptions) setVariants(next *Release) error {
	list := slices.Clone(next.Variants)
	for i, v := range o.Unmap {
		at := slices.IndexFunc(list, func(other Variant) bool { return compareVariants(v, other) == 0 })
		if at < 0 {
			return fmt.Errorf("variant %.300q decides no arm; there are: %s: %w", &o.Unmap[i], listVariants(next.Variants), ErrChange)
		}
		list = slices.Delete(list, at, at+1)
	}
	for i, v := range o.Variants {
		if slices.ContainsFunc(o.Variants[:i], func(other Variant) bool { return compareVariants(v, other) == 0 }) {
			return fmt.Errorf("variant %.300q is given twice: %w", &v, ErrChange)
		}
		for _, name := range v.Arms {
			if next.Arm(name) == nil {
				return unknownArm(next, name)
			}
		}
		if err := v.validate(next); err != nil {
			return fmt.Errorf("%w: %w", err, ErrChange)
		}
		list = slices.DeleteFunc(list, func(other Variant) bool { return compareVariants(v, other) == 0 })
		list = append(list, v)
	}
	slices.SortFunc(list, compareVariants)
	if next.Variants = list; len(list) > MaxVariants {
		return fmt.Errorf("%d variants; accepted: up to %d: %w", len(list), MaxVariants, ErrChange)
	}
	return nil
}

func listVariants(list []Variant) string {
	if len(list) == 0 {
		return "none"
	}
	var names []string
	for i := range list[:min(len(list), 10)] {
		names = append(names, fmt.Sprintf("%.80q", &list[i]))
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// gainsVariants reports whether an arm gets requests of a variant that it did not have.
func gainsVariants(name string, next, now *Release) bool {
	return slices.ContainsFunc(next.Variants, func(v Variant) bool {
		return slices.Contains(v.Arms, name) && !slices.ContainsFunc(now.Variants, func(was Variant) bool {
			return compareVariants(v, was) == 0 && slices.Contains(was.Arms, name)
		})
	})
}

// ErrNoVariant is the class of the error that says that a text names no variant.
var ErrNoVariant = errors.New("no variant")

// ParseVariant reads EXPERIMENT:VARIANT. The name of the experiment has no colon then, and the variant
// has no arms yet.
func ParseVariant(text string) (v Variant, err error) {
	var ok bool
	if v.Experiment, v.Variant, ok = strings.Cut(text, ":"); !ok || v.Experiment == "" || v.Variant == "" {
		return v, fmt.Errorf("%.300q: %w; accepted: EXPERIMENT:VARIANT", text, ErrNoVariant)
	}
	return v, nil
}
