package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/release"
)

// armNotes says of which gates nobody knows whether an arm's snapshot would have passed
// them, and which were easier to pass than by default: one text for each reason.
func armNotes(a *release.Arm) (notes []string) {
	if len(a.GatesOff) > 0 {
		notes = append(notes, "gates off: "+strings.Join(a.GatesOff, ", "))
	}
	if len(a.GatesLoosened) > 0 {
		notes = append(notes, "limits of gates loosened: "+strings.Join(a.GatesLoosened, "; "))
	}
	var reasons []string // each once, in the order of the gates
	gates := map[string][]string{}
	for _, g := range a.GatesUndecided {
		if slices.Contains(a.GatesOff, g.Gate) {
			continue
		}
		reason := fmt.Sprintf("%s: %s", g.State, g.Why)
		if gates[reason] == nil {
			reasons = append(reasons, reason)
		}
		gates[reason] = append(gates[reason], g.Gate)
	}
	for _, reason := range reasons {
		noun := "gate"
		if len(gates[reason]) > 1 {
			noun = "gates"
		}
		notes = append(notes, fmt.Sprintf("%s %s %s", noun, strings.Join(gates[reason], ", "), reason))
	}
	return notes
}

// gateNote says the same in a few words: "off: norms; not run: alignment, rows".
func gateNote(a *release.Arm) string {
	const most = 3
	names := map[string][]string{"failed": a.GatesFailed, "off": a.GatesOff}
	for _, text := range a.GatesLoosened {
		limit, _, _ := strings.Cut(text, ":")
		names["loosened"] = append(names["loosened"], limit)
	}
	for _, g := range a.GatesUndecided {
		if !slices.Contains(a.GatesOff, g.Gate) {
			names[string(g.State)] = append(names[string(g.State)], g.Gate)
		}
	}
	var notes []string
	for _, what := range []string{"failed", "off", "loosened", "inconclusive", "not run"} {
		list := names[what]
		if len(list) == 0 {
			continue
		}
		text := what + ": " + strings.Join(list[:min(len(list), most)], ", ")
		if more := len(list) - most; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		notes = append(notes, text)
	}
	return strings.Join(notes, "; ")
}
