package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/tandem-ann/tandem/shard/release"
)

// The variables that stand for --store and --server. A flag names its variable by a tag of its
// own: to kong, a variable that is set to nothing would be a value.
const (
	storeVariable  = "TANDEM_STORE"
	serverVariable = "TANDEM_SERVER"
	variableTag    = "variable"
)

// variables gives flags that were not given the values of their variables, and knows which.
type variables struct {
	lookup func(string) string
	used   []usedVariable
}

// usedVariable is a variable that stands for a flag.
type usedVariable struct{ flag, name, value string }

// Validate implements [kong.Resolver].
func (v *variables) Validate(*kong.Application) error { return nil }

// Resolve implements [kong.Resolver].
func (v *variables) Resolve(c *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	name := variableOf(flag.Value)
	if name == "" || parent.Node() != c.Selected() {
		return nil, nil
	}
	value := v.lookup(name)
	if value == "" || v.passedOver(c, parent.Flags, name) {
		return nil, nil
	}
	v.used = append(v.used, usedVariable{flag.Name, name, value})
	return value, nil // of a list, one
}

// passedOver says whether a variable does not count for a command, since something else says
// what is meant.
func (v *variables) passedOver(c *kong.Context, flags []*kong.Flag, name string) bool {
	// Of a command that takes both, what is asked depends on which of them there are: one
	// that is given says it all, and else there is one variable, so that what is set for other
	// commands makes no other question of this one.
	var both []*kong.Flag
	for _, f := range flags {
		if variableOf(f.Value) != "" {
			both = append(both, f)
		}
	}
	target := c.Selected().Target.Addr().Interface()
	if _, isLoad := target.(*loadCommand); len(both) == 2 && !isLoad { // which asks a server with users of a store
		if slices.ContainsFunc(both, func(f *kong.Flag) bool { return isGiven(c, f) }) {
			return true
		}
		return name == serverVariable && v.lookup(storeVariable) != ""
	}
	if name != storeVariable {
		return false
	}
	// What these are called with says that no store is meant.
	_, orFiles := target.(interface{ orFiles() })
	_, byUsers := target.(*loadCommand)
	return slices.ContainsFunc(c.Path, func(p *kong.Path) bool {
		return orFiles && p.Positional != nil && namesFiles(positionals(c, p.Positional)) || byUsers && p.Flag != nil && p.Flag.Name == "users"
	})
}

// variableOf names the variable that stands for a flag, if there is one.
func variableOf(v *kong.Value) string {
	if v.Tag == nil {
		return ""
	}
	return v.Tag.Get(variableTag)
}

// isGiven says whether the arguments have a flag.
func isGiven(c *kong.Context, flag *kong.Flag) bool {
	return slices.ContainsFunc(c.Path, func(p *kong.Path) bool { return p.Flag == flag && !p.Resolved })
}

// positionals returns what the arguments have for a positional argument that is a list.
func positionals(c *kong.Context, p *kong.Positional) []string {
	list, _ := c.Value(&kong.Path{Positional: p}).Interface().([]string)
	return list
}

// digestLike is what names a snapshot, by its beginning too.
var digestLike = regexp.MustCompile(`^[0-9a-f]{1,64}$`)

// namesFiles says whether arguments of inspect and verify are files and no digest.
func namesFiles(list []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return !digestLike.MatchString(s) })
}

// tell writes which variables stood for flags, below an error of what they have led to.
func (v *variables) tell(w io.Writer) {
	for _, u := range v.used {
		fmt.Fprintf(w, "  %-9s %s, by %s\n", u.flag, release.Escape(shortened(u.value, 200)), u.name)
	}
}

// environ returns the value of a variable of the process, without the space around it.
func environ(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// check returns an error unless values of variables are text, as those of flags are.
func (v *variables) check() error {
	for _, name := range []string{storeVariable, serverVariable} {
		if err := checkLine(name, v.lookup(name)); err != nil {
			return err
		}
	}
	return nil
}
