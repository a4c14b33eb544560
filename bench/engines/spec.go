package engines

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/index"
)

// The engines that need no driver. Any other name is that of a driver.
const (
	Tandem = "tandem" // ours
	Coder  = "coder"  // github.com/coder/hnsw, in this process
)

// Spec is an engine and how to build it. Its text form is
// "hnswlib m=16 ef_construction=200 augmented"; all but the name may be left out.
type Spec struct {
	Name           string
	M              int
	EfConstruction int
	// Augmented builds on vectors that turn inner product into L2. It suits the
	// dot metric, and engines other than ours.
	Augmented bool
}

// DefaultSpecs returns the engines to compare on a metric, ours first.
func DefaultSpecs(metric index.Metric) []Spec {
	var specs []Spec
	for _, name := range []string{Tandem, "hnswlib", "faiss", "usearch"} {
		s := Spec{Name: name}.withDefaults()
		specs = append(specs, s)
		if name == "hnswlib" && metric == index.Dot {
			s.Augmented = true
			specs = append(specs, s)
		}
	}
	return specs
}

// Defaults of a spec, which are those of [index.DefaultParams].
const (
	defaultM              = 16
	defaultEfConstruction = 200
)

func (s Spec) withDefaults() Spec {
	if s.M == 0 {
		s.M = defaultM
	}
	if s.EfConstruction == 0 {
		s.EfConstruction = max(defaultEfConstruction, s.M)
	}
	return s
}

// ParseSpec reads the text form.
func ParseSpec(text string) (Spec, error) {
	var s Spec
	words := strings.Fields(text)
	if len(words) == 0 {
		return s, fmt.Errorf("engine %q has no name", text)
	}
	s.Name = words[0]
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "m":
			s.M, err = strconv.Atoi(value)
		case "ef_construction":
			s.EfConstruction, err = strconv.Atoi(value)
		case "augmented":
			s.Augmented = true
			if word != key {
				err = fmt.Errorf("it takes no value")
			}
		default:
			err = fmt.Errorf("want m, ef_construction or augmented")
		}
		if err != nil {
			return s, fmt.Errorf("engine %q: %q: %w", text, word, err)
		}
	}
	s = s.withDefaults()
	return s, s.Validate()
}

// Validate returns an error that names what is out of bounds.
func (s Spec) Validate() error {
	switch {
	case s.Name == "" || strings.ContainsAny(s.Name, "./\\= \t"):
		return fmt.Errorf("engine name is %q, want %s, %s or that of a driver", s.Name, Tandem, Coder)
	case s.M < 2 || s.M > 128:
		return fmt.Errorf("engine %s: m is %d, want 2 to 128", s.Name, s.M)
	case s.EfConstruction < s.M || s.EfConstruction > 10_000:
		return fmt.Errorf("engine %s: ef_construction is %d, want m (%d) to 10000", s.Name, s.EfConstruction, s.M)
	case s.Augmented && s.Name == Tandem:
		return fmt.Errorf("engine %s takes inner product as it is: it cannot be augmented", s.Name)
	}
	return nil
}

// String returns the text form, without what is as by default.
func (s Spec) String() string {
	text := s.Name
	if s.M != defaultM {
		text += fmt.Sprintf(" m=%d", s.M)
	}
	if s.EfConstruction != defaultEfConstruction {
		text += fmt.Sprintf(" ef_construction=%d", s.EfConstruction)
	}
	if s.Augmented {
		text += " augmented"
	}
	return text
}

// MarshalText implements [encoding.TextMarshaler].
func (s Spec) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Spec) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSpec(string(text))
	return err
}
