package builder

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/manifest"
)

// Source is what a build reads in one role, as manifests name roles.
type Source struct {
	Role  string
	Paths []string // none if it reads nothing in that role
}

// Sources returns what a build reads, in the order of a manifest.
func (o *Options) Sources() []Source {
	return []Source{
		{"apps", o.Apps.Input.Paths},
		{"apps-ids", o.Apps.Input.IDs},
		{"apps-attributes", o.Apps.Attributes.Paths},
		{"apps-graph", paths(o.Apps.Graph)},
		{"users", o.Users.Input.Paths},
		{"users-ids", o.Users.Input.IDs},
		{"users-attributes", o.Users.Attributes.Paths},
		{"users-graph", paths(o.Users.Graph)},
		{"app-segments", paths(o.Segments)},
		{"gates", paths(o.Gates)},
		{"interactions", o.Interactions},
	}
}

// MissingInputsError says that a snapshot was built from inputs of roles in which a build
// is to read nothing.
type MissingInputsError struct {
	Inputs []manifest.Input // the first of each role
}

// Error implements [error].
func (e *MissingInputsError) Error() string {
	names := make([]string, len(e.Inputs))
	for i, in := range e.Inputs {
		names[i] = fmt.Sprintf("%s as %s", in.Name, in.Role)
	}
	return fmt.Sprintf("missing inputs: %s: the snapshot was built from them", strings.Join(names, ", "))
}

// ExtraInputError says that a build is to read something in a role in which a snapshot was
// built from nothing.
type ExtraInputError struct{ Source }

// Error implements [error].
func (e *ExtraInputError) Error() string {
	return fmt.Sprintf("%s is %s, the snapshot was built without", e.Role, strings.Join(e.Paths, ", "))
}

// CheckSources returns an error unless a build reads in the roles of the inputs that a
// snapshot was built from, and in no others: a [*MissingInputsError], an
// [*ExtraInputError], or one that names a role that this builder does not know. It opens no
// file.
func (o *Options) CheckSources(built []manifest.Input) error {
	sources := o.Sources()
	of := func(role string) int {
		return slices.IndexFunc(sources, func(s Source) bool { return s.Role == role })
	}
	var missing []manifest.Input
	for _, in := range built {
		if in.Role == manifest.ForgottenRole {
			continue // it is no file
		}
		i := of(in.Role)
		if i < 0 {
			return fmt.Errorf("the snapshot was built from %s of the role %.80q, which %s does not know", in.Name, in.Role, Version)
		}
		named := slices.ContainsFunc(missing, func(m manifest.Input) bool { return m.Role == in.Role })
		if len(sources[i].Paths) == 0 && !named {
			missing = append(missing, in)
		}
	}
	if len(missing) > 0 {
		return &MissingInputsError{missing}
	}
	for _, s := range sources {
		if len(s.Paths) > 0 && !slices.ContainsFunc(built, func(in manifest.Input) bool { return in.Role == s.Role }) {
			return &ExtraInputError{s}
		}
	}
	return nil
}

// InputsError says that the files of a role are not those that a snapshot was built from.
type InputsError struct {
	Role string
	// Want are all files of the role that the snapshot was built from, and Got those that
	// were found.
	Want, Got []manifest.Input
	// At is the first that differs, an index into both; -1 if one has more than the other,
	// and nothing else differs.
	At int
}

// Error implements [error].
func (e *InputsError) Error() string { return e.Role + " differs: " + e.Difference() }

// Difference says what differs, by the names of files.
func (e *InputsError) Difference() string {
	if e.At < 0 {
		return fmt.Sprintf("files are %d; the snapshot was built from %d", len(e.Got), len(e.Want))
	}
	want, got := e.Want[e.At], e.Got[e.At]
	if want.Digest == got.Digest {
		return fmt.Sprintf("%s has the content of %s, and the name is part of the snapshot: rename it", got.Name, want.Name)
	}
	return fmt.Sprintf("%s has the SHA-256 %s (%d bytes); the snapshot was built from %s with %s (%d bytes)",
		got.Name, got.Digest, got.Size, want.Name, want.Digest, want.Size)
}

// CompareInputs returns an [*InputsError] unless the inputs that were found are those that a
// snapshot was built from. Names count, as manifests have them: a name is part of the
// snapshot.
func CompareInputs(want, got []manifest.Input) error {
	for _, s := range new(Options).Sources() {
		e := &InputsError{Role: s.Role, Want: ofRole(want, s.Role), Got: ofRole(got, s.Role), At: -1}
		for i := range min(len(e.Want), len(e.Got)) {
			if w, g := e.Want[i], e.Got[i]; w.Digest != g.Digest || w.Name != g.Name {
				e.At = i
				return e
			}
		}
		if len(e.Want) != len(e.Got) {
			return e
		}
	}
	return nil
}

func ofRole(list []manifest.Input, role string) (out []manifest.Input) {
	for _, in := range list {
		if in.Role == role {
			out = append(out, in)
		}
	}
	return out
}
