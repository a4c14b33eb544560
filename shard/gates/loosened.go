package gates

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// least are the limits that bound a value from below; all others bound one from above.
var least = map[string]bool{
	"at_10": true, "at_100": true, "worst": true, "found": true, // of recall, at_10 and at_100 also of overlap
	"spread": true, "ratio": true, "known": true,
}

// Loosened lists the limits under which more passes than under [DefaultThresholds], each
// as one text that begins with the gate's name: "placement.apps: 0.5, by default 0.02".
// Gates that are off are not among them.
func (t *Thresholds) Loosened() []string {
	var list []string
	usual := DefaultThresholds()
	add := func(prefix string, now, before []Limit) {
		for i, l := range now {
			if d := *before[i].Value; *l.Value > d && !least[l.Key] || *l.Value < d && least[l.Key] {
				list = append(list, fmt.Sprintf("%s.%s: %v, by default %v", prefix, l.Key, *l.Value, d))
			}
		}
	}
	for _, name := range Names() {
		if !t.Off[name] {
			add(name, t.Limits(name), usual.Limits(name))
		}
	}
	if t.Off[Recall] {
		return list
	}
	for _, name := range slices.Sorted(maps.Keys(t.Segments)) {
		s := t.Segments[name]
		prefix := Recall + ".segments." + name
		if s.Off {
			list = append(list, prefix+": off")
		} else if s.RecallLimits != t.Recall {
			add(prefix, s.RecallLimits.Limits(), usual.Recall.Limits())
		}
	}
	return list
}

// gateOf returns the gate that a loosened limit is of.
func gateOf(loosened string) string {
	name, _, _ := strings.Cut(loosened, ".")
	return name
}
