// Package deploy checks the files of deploy/ with Prometheus' own parsers. It is a module of
// its own, since that of Prometheus requires much that nothing else here does.
package deploy

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

const (
	rulesFile = "../../deploy/prometheus/rules.yml"
	page      = "https://github.com/tandem-ann/tandem/blob/main/docs/runbook.md"
)

var promql = parser.NewParser(parser.Options{})

// metrics are the labels of each metric that servers have, by its name.
type metrics map[string][]string

// readMetrics returns those that are golden, with those of the scrape, of Go and of the
// process that we use, and those of the recording rules.
func readMetrics(t *testing.T) metrics {
	text := read(t, "../../server/metrics/testdata/names.txt")
	all := metrics{"up": {}, "process_cpu_seconds_total": {}, "go_memstats_heap_inuse_bytes": {}}
	for _, m := range regexp.MustCompile(`(?m)^(\w+) (\w+) \{(.*)\}$`).FindAllStringSubmatch(text, -1) {
		names := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' })
		all[m[1]] = names
		if m[2] == "histogram" {
			all[m[1]+"_bucket"] = append(slices.Clone(names), "le")
			all[m[1]+"_sum"], all[m[1]+"_count"] = names, names
		}
	}
	if len(all) < 60 {
		t.Fatalf("%d metrics are too few", len(all))
	}
	for _, r := range rules(t) {
		if r.Record != "" {
			all[r.Record] = []string{}
		}
	}
	return all
}

func read(t *testing.T, path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// rules are those of all groups.
func rules(t *testing.T) (list []rulefmt.Rule) {
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.LegacyValidation, promql, nil)
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil {
		t.FailNow()
	}
	for _, g := range groups.Groups {
		list = append(list, g.Rules...)
	}
	return list
}

// problems says what is wrong with a query: it does not parse, or names a metric, or a label
// of one, that there is not.
func (all metrics) problems(query string) (list []string) {
	expr, err := promql.ParseExpr(query)
	if err != nil {
		return []string{err.Error()}
	}
	known := map[string]bool{"job": true, "instance": true}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		names, ok := all[s.Name]
		if !ok {
			list = append(list, fmt.Sprintf("there is no metric %q", s.Name))
		}
		for _, name := range names {
			known[name] = true
		}
		for _, m := range s.LabelMatchers {
			if m.Name != labels.MetricName && !slices.Contains(append(slices.Clone(names), "job", "instance"), m.Name) {
				list = append(list, fmt.Sprintf("%s has no label %q", s.Name, m.Name))
			}
		}
		return nil
	})
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if a, ok := n.(*parser.AggregateExpr); ok {
			for _, name := range a.Grouping {
				if !known[name] {
					list = append(list, fmt.Sprintf("it groups by %q, which none of its metrics has", name))
				}
			}
		}
		return nil
	})
	return list
}

// TestProblems holds that what is wrong with a query is found.
func TestProblems(t *testing.T) {
	all := readMetrics(t)
	for query, want := range map[string]string{
		`sum(rate(tandem_shed_requests_total{reason="bytes", job="a"}[5m]))`: "",
		`sum(rate(tandem_shed_requests_total[5m])`:                           "unclosed left parenthesis",
		`tandem_shed_requests`:                                               `there is no metric "tandem_shed_requests"`,
		`tandem_shed_requests_total{arm="control"}`:                          `has no label "arm"`,
		`sum by (arm) (tandem_shed_requests_total)`:                          `groups by "arm"`,
	} {
		got := strings.Join(all.problems(query), "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

// TestRules holds that rules parse and name what there is, and that alerts have what a person
// needs who is called, and a test of promtool.
func TestRules(t *testing.T) {
	all, tests := readMetrics(t), read(t, "../../deploy/prometheus/rules_test.yml")
	for _, r := range rules(t) {
		for _, p := range all.problems(r.Expr) {
			t.Errorf("%s%s: %s", r.Alert, r.Record, p)
		}
		if r.Alert == "" {
			continue
		}
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity is %q", r.Alert, s)
		}
		if want := page + "#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url is %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
		for _, name := range []string{"summary", "description"} {
			if r.Annotations[name] == "" {
				t.Errorf("%s: no %s", r.Alert, name)
			}
		}
		if !strings.Contains(tests, "alertname: "+r.Alert+"\n        exp_alerts:") {
			t.Errorf("%s: rules_test.yml has no test in which it is raised", r.Alert)
		}
	}
	// The parser takes an alert without it for one that is raised at once.
	text := read(t, rulesFile)
	if alerts, waits := strings.Count(text, "- alert: "), strings.Count(text, "\n        for: "); alerts != waits || alerts < 15 {
		t.Errorf("%d alerts, %d of them say for how long", alerts, waits)
	}
}
