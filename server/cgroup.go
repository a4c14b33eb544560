package server

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// controlGroup is a control group that this process is in, as files show it. There may be
// several: one of version 2, one of version 1 with the controller that is asked for, and the
// same once more where its hierarchy is mounted again.
type controlGroup struct {
	version int
	dir     string // of its files, relative to the root of the file system
	top     string // where the hierarchy is mounted, dir or above it
}

// controlGroups returns the control groups of this process that a controller, such as memory,
// may be of.
func controlGroups(root fs.FS, controller string) ([]controlGroup, error) {
	own, err := ownGroups(root, controller)
	if err != nil || len(own) == 0 {
		return nil, err
	}
	const name = "proc/self/mountinfo"
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	var groups []controlGroup
	for line := range strings.Lines(string(data)) {
		// 36 35 98:0 /root /mount/point options optional... - type source superoptions
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		mount, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 6 || len(kind) < 3 {
			return nil, fmt.Errorf("read /%s: line %q is no mount", name, line)
		}
		version := 0
		switch {
		case kind[0] == "cgroup2":
			version = 2
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), controller):
			version = 1
		}
		// What is mounted is a part of the hierarchy: the container's, often.
		below, ok := within(unescape(mount[3]), own[version])
		if top := strings.TrimPrefix(unescape(mount[4]), "/"); ok && fs.ValidPath(top) {
			groups = append(groups, controlGroup{version, path.Join(top, below), top})
		}
	}
	return groups, nil
}

// ownGroups returns the path of this process in the hierarchies of control groups that a
// controller may be of, by version.
func ownGroups(root fs.FS, controller string) (map[int]string, error) {
	const name = "proc/self/cgroup"
	data, err := fs.ReadFile(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the kernel has no control groups
	}
	if err != nil {
		return nil, err
	}
	own := map[int]string{}
	for line := range strings.Lines(string(data)) {
		// 4:memory:/path of version 1, 0::/path of version 2
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) != 3:
			return nil, fmt.Errorf("read /%s: line %q is no control group", name, line)
		case fields[0] == "0" && fields[1] == "":
			own[2] = fields[2]
		case slices.Contains(strings.Split(fields[1], ","), controller):
			own[1] = fields[2]
		}
	}
	return own, nil
}

// within returns where a path is below another, and whether it is. What lies outside of
// the namespace of control groups begins with /.. and is below nothing that can be seen.
func within(root, name string) (below string, ok bool) {
	if name == "" || strings.HasPrefix(name, "/..") || strings.HasPrefix(root, "/..") {
		return "", false
	}
	below, ok = strings.CutPrefix(path.Clean(name), path.Clean(root))
	if !ok || below != "" && below[0] != '/' && path.Clean(root) != "/" {
		return "", false
	}
	return strings.TrimPrefix(below, "/"), true
}

// unescape undoes what mountinfo does to spaces and the like: \040.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// limit returns the least that the group, and those that it is in, may use.
func (g controlGroup) limit(root fs.FS) (memoryBound, error) {
	if g.version == 1 {
		// The kernel's own sum over the groups above, which a container may not see.
		bound, found, err := hierarchicalLimit(root, g.dir+"/memory.stat")
		if found || err != nil {
			return bound, err
		}
	}
	bound := memoryBound{bytes: math.MaxInt64}
	var all error
	for dir := g.dir; ; dir = path.Dir(dir) {
		// Above memory.high the kernel slows a group down until it uses less.
		names := []string{"memory.max", "memory.high"}
		if g.version == 1 {
			names = []string{"memory.limit_in_bytes"}
		}
		for _, name := range names {
			limit, err := readLimit(root, path.Join(dir, name))
			bound, all = bound.lower(limit), errors.Join(all, err)
		}
		if dir == g.top || dir == "." {
			return bound, all
		}
	}
}

// readLimit reads a file that has one limit. The root of a hierarchy has no such file.
func readLimit(root fs.FS, name string) (memoryBound, error) {
	none := memoryBound{bytes: math.MaxInt64}
	data, err := fs.ReadFile(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	n, err := parseLimit(strings.TrimSpace(string(data)))
	if err != nil {
		return none, fmt.Errorf("read /%s: %w", name, err)
	}
	return memoryBound{n, "/" + name}, nil
}

// hierarchicalLimit reads memory.stat of version 1, and reports whether it has the limit.
func hierarchicalLimit(root fs.FS, name string) (bound memoryBound, found bool, err error) {
	none := memoryBound{bytes: math.MaxInt64}
	data, err := fs.ReadFile(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return none, false, nil
	}
	if err != nil {
		return none, false, err
	}
	for line := range strings.Lines(string(data)) {
		text, ok := strings.CutPrefix(line, "hierarchical_memory_limit ")
		if !ok {
			continue
		}
		n, err := parseLimit(strings.TrimSpace(text))
		if err != nil {
			return none, false, fmt.Errorf("read /%s: %w", name, err)
		}
		return memoryBound{n, "/" + name}, true, nil
	}
	return none, false, nil
}

// parseLimit returns a number of bytes. No limit is "max" in version 2 and in version 1
// the largest multiple of a page, or more than fits.
func parseLimit(text string) (int64, error) {
	if text == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("limit %.40q: want a number of bytes, or max", text)
	}
	const page = 64 << 10 // the largest that processors use
	if n > math.MaxInt64-page {
		return math.MaxInt64, nil
	}
	return int64(n), nil
}
