package gates

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// ContractLimits bound how many of the names that live queries may use are gone, or mean
// something else.
type ContractLimits struct {
	Attributes float64 // of each tower
	Segments   float64
}

// The subjects of the contract gate.
const (
	metricChanged   = "metric changed"
	segmentsMissing = "segments missing"
	segmentsChanged = "segments changed"
	dimChanged      = "dimension changed"
	attributesOf    = "attributes of " // a tower
)

// mostNamed is how many of several names a text lists.
const mostNamed = 10

// contract is one run of the contract gate.
type contract struct {
	Findings
	now, before *manifest.Manifest
	limits      ContractLimits
}

// CheckContract runs the contract gate: it judges what live queries can say of the
// candidate against what they can say of the previous snapshot; before is nil if there is
// none. It takes no more than their manifests.
func CheckContract(now, before *manifest.Manifest, t Thresholds) Findings {
	r := &contract{now: now, before: before, limits: t.Contract}
	switch {
	case t.Off[Contract]:
	case before == nil:
		r.NotRun(Contract, "", NoPrevious)
	default:
		r.run()
	}
	return r.Findings
}

func (r *contract) run() {
	now, before := r.now, r.before
	changed := 0.0
	if now.Metric != before.Metric {
		changed = 1
	}
	r.AtMost(Contract, metricChanged, changed, 0, "the metric is %s, that of the previous snapshot is %s: scores mean something else%s",
		now.Metric, before.Metric, when(changed > 0, ", and candidates are others"))
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		r.attributes(kind)
	}
	r.segments()
	if now.Dim != before.Dim {
		r.Inconclusive(Contract, dimChanged, float64(now.Dim), manifest.BoundMin, float64(before.Dim),
			"vectors have %d numbers, in the previous snapshot %d: queries that bring vectors of %d will fail, if there are any", now.Dim, before.Dim, before.Dim)
	}
}

// attributes judges whether filters that name the attributes of a tower still mean what
// they did. Attributes that are new harm nobody.
func (r *contract) attributes(kind shard.Kind) {
	now, before := r.now, r.before
	schema, old := now.Tower(kind).Schema, before.Tower(kind).Schema
	var broken []string
	gone := 0
	for _, f := range old.Fields() {
		i, ok := schema.Lookup(f.Name)
		switch {
		case !ok:
			gone++
			broken = append(broken, f.Name+" is gone")
		case schema.Field(i).Type != f.Type:
			broken = append(broken, fmt.Sprintf("%s was of type %s and is %s", f.Name, f.Type, schema.Field(i).Type))
		}
	}
	limit := r.limits.Attributes
	text := fmt.Sprintf("all %d attributes of %s are there, of the same types", old.Len(), kind)
	if len(broken) > 0 {
		text = fmt.Sprintf("%d of %d attributes of %s are gone or of another type, and live queries that name them may fail: %s; at most %v are accepted",
			len(broken), old.Len(), kind, few(broken), limit)
		if gone > 0 {
			text += lostInputs(now, before, string(kind)+"-attributes")
		}
	}
	r.AtMost(Contract, attributesOf+string(kind), float64(len(broken)), limit, "%s", text)
}

// segments judges whether queries that name a segment still can. What is eligible there is
// the team's to say, so that a segment with another filter is told and not refused.
func (r *contract) segments() {
	now, before := r.now, r.before
	var gone, changed []string
	for _, s := range before.Apps.Segments {
		i := slices.IndexFunc(now.Apps.Segments, func(o manifest.Segment) bool { return o.Name == s.Name })
		switch {
		case i < 0:
			gone = append(gone, s.Name)
		case now.Apps.Segments[i].Expression != s.Expression:
			changed = append(changed, fmt.Sprintf("%s was %.200q and is %.200q", s.Name, s.Expression, now.Apps.Segments[i].Expression))
		}
	}
	limit := r.limits.Segments
	text := fmt.Sprintf("all %d segments are there", len(before.Apps.Segments))
	if len(gone) > 0 {
		text = fmt.Sprintf("%d of %d segments are gone, and live queries that name them will fail: %s; at most %v are accepted%s",
			len(gone), len(before.Apps.Segments), few(gone), limit, lostInputs(now, before, "app-segments"))
	}
	r.AtMost(Contract, segmentsMissing, float64(len(gone)), limit, "%s", text)
	if len(changed) > 0 {
		r.Inconclusive(Contract, segmentsChanged, float64(len(changed)), manifest.BoundMax, 0,
			"segments have another filter: %s; whether that is meant is not known", few(changed))
	}
}

// lostInputs says that a build was given no input of a role, where the previous one was:
// the likeliest cause of what is gone.
func lostInputs(now, before *manifest.Manifest, role string) string {
	has := func(m *manifest.Manifest) bool {
		return slices.ContainsFunc(m.Inputs, func(in manifest.Input) bool { return in.Role == role })
	}
	return when(has(before) && !has(now), "; the build was given no input "+role+", that of the previous snapshot was")
}

// when returns a text if it is to be said.
func when(said bool, text string) string {
	if said {
		return text
	}
	return ""
}

// few lists the first of some texts.
func few(list []string) string {
	text := strings.Join(list[:min(len(list), mostNamed)], ", ")
	if more := len(list) - mostNamed; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
