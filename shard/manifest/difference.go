package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tandem-ann/tandem/shard"
)

// Difference names the first thing in which another manifest differs from m, and both
// values; it is empty if nothing does. What causes a difference comes before what it
// causes: inputs, rows and shards before recall and gates.
func (m *Manifest) Difference(other *Manifest) string {
	a, b := m.statements(), other.statements()
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(b):
			return fmt.Sprintf("%s: nothing, not %s", a[i].name, a[i].value)
		case i >= len(a):
			return fmt.Sprintf("%s: %s, not nothing", b[i].name, b[i].value)
		case a[i].name != b[i].name: // one has more of something
			return fmt.Sprintf("%s: %s, not %s: %s", b[i].name, b[i].value, a[i].name, a[i].value)
		case a[i].value != b[i].value:
			return fmt.Sprintf("%s: %s, not %s", b[i].name, b[i].value, a[i].value)
		}
	}
	return ""
}

// statement is something that a manifest says, as JSON.
type statement struct{ name, value string }

// statements returns all that a manifest says, causes first.
func (m *Manifest) statements() []statement {
	var list []statement
	add := func(name string, value any) {
		text := &strings.Builder{}
		e := json.NewEncoder(text)
		e.SetEscapeHTML(false)
		if err := e.Encode(value); err != nil {
			panic(err) // a manifest was read or is about to be written
		}
		list = append(list, statement{name, strings.TrimSpace(text.String())})
	}
	add("version", m.Version)
	add("builder", m.Builder)
	add("tool", m.Tool)
	add("model", []string{m.Model, m.ModelVersion})
	add("metric and dim", []any{m.Metric, m.Dim})
	add("parameters", m.Parameters)
	add("previous", m.Lineage)
	add("live position", m.Live)
	for _, in := range m.Inputs {
		add("input "+in.Role, in)
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		t := m.Tower(kind)
		add(fmt.Sprintf("%s: rows, rejected and shards", kind), []int{t.Rows, t.Rejected, len(t.Shards)})
		add(fmt.Sprintf("%s: params", kind), t.Params)
		add(fmt.Sprintf("%s: schema", kind), t.Schema)
		for i, s := range t.Shards {
			s.Effort = nil // it follows from the file
			add(fmt.Sprintf("shard %s-%04d", kind, i), s)
		}
	}
	add("mean user vector", m.MeanUser)
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		t := m.Tower(kind)
		for i, s := range t.Shards {
			add(fmt.Sprintf("effort of shard %s-%04d", kind, i), s.Effort)
		}
		add(fmt.Sprintf("samples of %s", kind), t.Samples)
		for _, r := range t.Recall {
			add(fmt.Sprintf("recall of %s", kind), r)
		}
		for _, s := range t.Segments {
			add("segment "+s.Name, s)
		}
	}
	if m.Gates != nil {
		for _, c := range m.Gates.Checks {
			add("gate "+c.Gate, c)
		}
	}
	add("gates", m.Gates)
	return list
}
