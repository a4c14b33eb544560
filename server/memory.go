package server

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
)

// memoryShare is the part of the memory that snapshots may take by default.
const memoryShare = 0.8

// memoryBound is how many bytes of memory there are, and what says so.
type memoryBound struct {
	bytes int64 // math.MaxInt64 if nothing bounds them
	from  string
}

// lower returns the lower of two bounds, b if they are equal.
func (b memoryBound) lower(o memoryBound) memoryBound {
	if o.bytes < b.bytes {
		return o
	}
	return b
}

// share returns how much of the memory snapshots may take by default.
func (b memoryBound) share() int64 {
	if b.bytes == math.MaxInt64 {
		return b.bytes
	}
	return int64(float64(b.bytes) * memoryShare)
}

// memoryOf returns how much memory this process may use: what the machine has, or the
// least that a control group allows that it is in. root is the file system of the
// machine. An error says what could not be read; the bound is then that of the rest.
func memoryOf(root fs.FS) (memoryBound, error) {
	bound := memoryBound{math.MaxInt64, "nothing"}
	machine, err := machineMemory(root)
	if err == nil {
		bound = bound.lower(machine)
	}
	groups, groupsErr := controlGroups(root, "memory")
	all := errors.Join(err, groupsErr)
	for _, g := range groups {
		limit, err := g.limit(root)
		bound = bound.lower(limit)
		all = errors.Join(all, err)
	}
	return bound, all
}

// machineMemory returns the memory of the machine, or of the container where its
// meminfo is a file of LXC's.
func machineMemory(root fs.FS) (memoryBound, error) {
	const name = "proc/meminfo"
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return memoryBound{}, err
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return memoryBound{}, fmt.Errorf("read /%s: %w", name, err)
			}
			return memoryBound{kib << 10, "/" + name}, nil
		}
	}
	return memoryBound{}, fmt.Errorf("read /%s: it has no MemTotal", name)
}
