package deploy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// target is a query of a panel.
type target struct {
	Expr string `json:"expr"`
}

// dashboardQueries returns the queries of the dashboard by where they are, with variables as
// Grafana fills them in where all is chosen.
func dashboardQueries(t *testing.T) map[string]string {
	var d struct {
		Panels []struct {
			ID      int
			Type    string
			Title   string
			Targets []target
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Annotations struct {
			List []struct{ Name, Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "../../deploy/grafana/tandem.json")), &d); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*", "$arm", ".*").Replace
	queries := map[string]string{}
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d, %s, has no query", p.ID, p.Title)
		}
		for i, q := range p.Targets {
			queries[fmt.Sprintf("panel %d, %s, query %d", p.ID, p.Title, i)] = fill(q.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		queries["annotation "+a.Name] = fill(a.Expr)
	}
	for _, v := range d.Templating.List {
		if m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition); m != nil {
			queries["variable "+v.Name] = fmt.Sprintf("count by (%s) (%s)", m[2], fill(m[1]))
		}
	}
	return queries
}

// TestDashboard holds that every query parses and names what there is.
func TestDashboard(t *testing.T) {
	all, queries := readMetrics(t), dashboardQueries(t)
	if len(queries) < 50 {
		t.Errorf("%d queries are too few", len(queries))
	}
	for where, query := range queries {
		for _, p := range all.problems(query) {
			t.Errorf("%s: %s", where, p)
		}
		if strings.Contains(query, "$") {
			t.Errorf("%s: a variable is left in %s", where, query)
		}
	}
}
