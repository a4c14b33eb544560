package input

import (
	"path"
	"slices"
	"strings"
)

// pattern is a glob below a folder, in parts: * and ? and [a-z] match within a part, **
// matches any number of parts. nil matches everything.
type pattern []string

// splitPattern divides a glob into the folder before its first part that has a
// metacharacter, and the rest.
func splitPattern(glob string) (root string, p pattern, err error) {
	parts := strings.Split(glob, "/")
	i := 0
	for i < len(parts)-1 && !hasMeta(parts[i]) {
		i++
	}
	for _, part := range parts[i:] {
		if part == "" {
			continue
		}
		if _, err := path.Match(part, ""); err != nil {
			return "", nil, err
		}
		p = append(p, part)
	}
	if root = strings.Join(parts[:i], "/"); root == "" && strings.HasPrefix(glob, "/") {
		root = "/"
	}
	return root, p, nil
}

func hasMeta(text string) bool { return strings.ContainsAny(text, "*?[") }

// matches reports whether a name, in parts, or a folder that it is in, matches. What is
// hidden in a folder that matches does not.
func (p pattern) matches(name []string) bool {
	switch {
	case len(p) == 0:
		return !slices.ContainsFunc(name, hidden)
	case len(name) == 0:
		return false
	case p[0] == "**":
		return !hidden(name[0]) && (len(p) == 1 || p.matches(name[1:])) || len(p) > 1 && p[1:].matches(name)
	}
	return matchPart(p[0], name[0]) && p[1:].matches(name[1:])
}

// reaches reports whether something in a folder may match.
func (p pattern) reaches(folder []string) bool {
	switch {
	case len(folder) == 0:
		return true
	case len(p) == 0:
		return !slices.ContainsFunc(folder, hidden)
	case p[0] == "**":
		return !hidden(folder[0]) && p.reaches(folder[1:]) || p[1:].reaches(folder)
	}
	return matchPart(p[0], folder[0]) && p[1:].reaches(folder[1:])
}

// matchPart matches one part. A name that is hidden it matches only if the pattern begins
// as it does.
func matchPart(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil && (!hidden(name) || pattern[0] == name[0])
}

// copying ends the name of a file that Hadoop is still writing.
const copying = "._COPYING_"

// hidden reports whether a name is one that jobs leave beside their output, by the rule of
// Spark and Hive.
func hidden(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") && !strings.Contains(name, "=") || strings.HasSuffix(name, copying)
}
