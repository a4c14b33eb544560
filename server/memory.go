package server

import (
	"math"
	"os"
	"strconv"
	"strings"
)

// memoryShare is the part of the machine's memory that snapshots may take by default.
const memoryShare = 0.8

// DefaultMemoryLimit returns how many bytes of snapshots may be mapped by default: four
// fifths of the machine's memory, or of the control group's where that has less. Where
// neither is known there is no limit.
func DefaultMemoryLimit() int64 {
	limit := int64(math.MaxInt64)
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" {
				if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
					limit = kib << 10
				}
			}
		}
	}
	// Version 2 of control groups. "max" is no number.
	if data, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil {
			limit = min(limit, n)
		}
	}
	if limit == math.MaxInt64 {
		return limit
	}
	return int64(float64(limit) * memoryShare)
}
