package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// faultReport counts trials.
type faultReport struct {
	trials, failed int
	counts         map[string]map[string]*faultCount // by command and fault
}

type faultCount struct {
	trials       int
	acknowledged int // exited with 0 all the same
	refused      int // exited with an error
	killed       int
	failed       int // something was wrong
}

func (r *faultReport) add(f *faultTrial) {
	if r.counts == nil {
		r.counts = map[string]map[string]*faultCount{}
	}
	if r.counts[f.name()] == nil {
		r.counts[f.name()] = map[string]*faultCount{}
	}
	c := r.counts[f.name()][f.fault.kind]
	if c == nil {
		c = &faultCount{}
		r.counts[f.name()][f.fault.kind] = c
	}
	r.trials++
	c.trials++
	switch first := f.runs[0]; {
	case first.killed:
		c.killed++
	case first.code == 0:
		c.acknowledged++
	default:
		c.refused++
	}
	if len(f.problems) > 0 {
		r.failed++
		c.failed++
	}
}

// String is a table.
func (r *faultReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d trials with seed %d, %d failed\n", r.trials, *trialSeed, r.failed)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "command\tfault\ttrials\tacknowledged\trefused\tkilled\tfailed")
	for _, command := range slices.Sorted(maps.Keys(r.counts)) {
		for _, kind := range slices.Sorted(maps.Keys(r.counts[command])) {
			c := r.counts[command][kind]
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%d\n", command, kind, c.trials, c.acknowledged, c.refused, c.killed, c.failed)
		}
	}
	_ = t.Flush() // to memory
	return b.String()
}
