package deploy

import (
	"maps"
	"regexp"
	"slices"
	"testing"
)

// TestRunbook holds that each alert has an entry and each entry an alert, and that the page
// names metrics and alerts that there are.
func TestRunbook(t *testing.T) {
	text := read(t, "../../docs/runbook.md")
	alerts, entries := map[string]bool{}, map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert != "" {
			alerts[r.Alert] = true
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^## (Tandem\w+)$`).FindAllStringSubmatch(text, -1) {
		entries[m[1]] = true
	}
	if !maps.Equal(alerts, entries) {
		t.Errorf("alerts are %v, entries of the runbook %v", slices.Sorted(maps.Keys(alerts)), slices.Sorted(maps.Keys(entries)))
	}
	all := readMetrics(t)
	for _, name := range regexp.MustCompile(`\b(?:tandem|grpc|process|go)_[a-z_]+|instance:[a-z_:0-9]+`).FindAllString(text, -1) {
		if _, ok := all[name]; !ok && name != "grpc_code" {
			t.Errorf("docs/runbook.md names %s, which is no metric", name)
		}
	}
	for _, name := range regexp.MustCompile(`\bTandem[A-Z]\w+`).FindAllString(text, -1) {
		if !alerts[name] {
			t.Errorf("docs/runbook.md names %s, which is no alert", name)
		}
	}
}
