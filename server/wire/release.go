package wire

import (
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// kinds are the kinds of releases.
var kinds = map[release.Kind]tandemv1.ReleaseKind{
	release.Started: tandemv1.ReleaseKind_RELEASE_KIND_START, release.Divided: tandemv1.ReleaseKind_RELEASE_KIND_SPLIT,
	release.Promoted: tandemv1.ReleaseKind_RELEASE_KIND_PROMOTE, release.RolledBack: tandemv1.ReleaseKind_RELEASE_KIND_ROLLBACK,
}

// Release returns a release, with its entry of the log.
func Release(r *release.Release, entry []byte) *tandemv1.ReleaseEntry {
	out := &tandemv1.Release{
		Generation: r.Generation, Hash: r.Hash.String(), Id: r.ID, Log: r.Log, Kind: kinds[r.Kind], Of: r.Of, Stopped: r.Stopped,
		Time: timestamppb.New(r.Time), Author: r.Author, Reason: r.Reason, Override: r.Override, AutoRollback: r.AutoRollback,
		Model: r.Model, Salt: r.Salt,
	}
	if r.Live != nil {
		out.Live = LivePosition(*r.Live)
	}
	for i := range r.Arms {
		out.Arms = append(out.Arms, releaseArm(&r.Arms[i]))
	}
	for i := range r.Variants {
		out.Variants = append(out.Variants, Variant(&r.Variants[i]))
	}
	out.Interleaving, out.Exploration = Interleaving(r.Interleaving), Exploration(r.Exploration)
	return &tandemv1.ReleaseEntry{Release: out, Entry: entry}
}

// Interleaving returns which requests are interleaved, nil for none.
func Interleaving(i *release.Interleaving) *tandemv1.Interleaving {
	if i == nil {
		return nil
	}
	return &tandemv1.Interleaving{Arms: i.Arms, Share: uint32(i.Share)}
}

// InterleavingOf returns the interleaving of a message, nil for none.
func InterleavingOf(i *tandemv1.Interleaving) *release.Interleaving {
	if i == nil {
		return nil
	}
	return &release.Interleaving{Arms: i.Arms, Share: int(i.Share)}
}

// Exploration returns which requests explore, nil for none.
func Exploration(x *release.Exploration) *tandemv1.Exploration {
	if x == nil {
		return nil
	}
	return &tandemv1.Exploration{Share: uint32(x.Share), Places: uint32(x.Places), Pool: uint32(x.Pool)}
}

// ExplorationOf returns the exploration of a message, nil for none.
func ExplorationOf(x *tandemv1.Exploration) *release.Exploration {
	if x == nil {
		return nil
	}
	return &release.Exploration{Share: int(x.Share), Places: int(x.Places), Pool: int(x.Pool)}
}

// Variant returns a variant.
func Variant(v *release.Variant) *tandemv1.Variant {
	return &tandemv1.Variant{Experiment: v.Experiment, Variant: v.Variant, Arms: v.Arms}
}

// VariantOf returns the variant of a message.
func VariantOf(v *tandemv1.Variant) release.Variant {
	return release.Variant{Experiment: v.GetExperiment(), Variant: v.GetVariant(), Arms: v.GetArms()}
}

func releaseArm(a *release.Arm) *tandemv1.ReleaseArm {
	buckets, _ := a.Buckets.MarshalText() // it does not fail
	out := &tandemv1.ReleaseArm{
		Name: a.Name, Snapshot: string(a.Snapshot), ModelVersion: a.ModelVersion, Weight: uint32(a.Weight), Buckets: string(buckets),
		Pins: uint32(len(a.Pins)), RecallFloor: a.RecallFloor, Override: a.Override,
		GatesFailed: a.GatesFailed, GatesOff: a.GatesOff, GatesLoosened: a.GatesLoosened,
	}
	for _, g := range a.GatesUndecided {
		out.GatesUndecided = append(out.GatesUndecided, g.Gate)
	}
	return out
}

// UnreadableRelease returns an entry of the log that is no release that can be read.
func UnreadableRelease(e *release.UnreadableError, entry []byte) *tandemv1.ReleaseEntry {
	fault := &tandemv1.ReleaseFault{Generation: e.Generation, Hash: e.Hash.String(), Text: printable(e.Err)}
	return &tandemv1.ReleaseEntry{Fault: fault, Entry: entry}
}

// BrokenReleases returns a place where the log of releases does not hang together.
func BrokenReleases(e *release.BrokenError) *tandemv1.ReleaseEntry {
	return &tandemv1.ReleaseEntry{Fault: &tandemv1.ReleaseFault{Generation: e.Generation, Text: printable(e.Err), Broken: true, Accepted: e.Accepted}}
}

// ReleaseOf returns the release that an entry is, as [release.Decode] reads it, or the
// [*release.UnreadableError] or [*release.BrokenError] that stands for it.
func ReleaseOf(e *tandemv1.ReleaseEntry) (*release.Release, error) {
	fault := e.GetFault()
	switch {
	case fault == nil:
		return release.Decode(e.GetEntry())
	case fault.Broken:
		return nil, &release.BrokenError{Generation: fault.Generation, Accepted: fault.Accepted, Err: text(fault.Text)}
	}
	out := &release.UnreadableError{Generation: fault.Generation, Err: text(fault.Text)}
	_ = out.Hash.UnmarshalText([]byte(fault.Hash)) // else it is not known
	return nil, out
}

// printable returns the text of an error as UTF-8, whatever an entry of the log has.
func printable(err error) string { return strings.ToValidUTF8(err.Error(), "\ufffd") }

// text is an error of which a text has arrived.
type text string

// Error implements [error].
func (t text) Error() string { return string(t) }

// gateStates are what gates come to.
var gateStates = map[manifest.GateState]tandemv1.GateState{
	manifest.GatePassed: tandemv1.GateState_GATE_STATE_PASSED, manifest.GateFailed: tandemv1.GateState_GATE_STATE_FAILED,
	manifest.GateInconclusive: tandemv1.GateState_GATE_STATE_INCONCLUSIVE, manifest.GateNotRun: tandemv1.GateState_GATE_STATE_NOT_RUN,
}

// GateRows returns what gates came to.
func GateRows(list []gates.Row) []*tandemv1.GateRow {
	out := make([]*tandemv1.GateRow, len(list))
	for i, r := range list {
		out[i] = &tandemv1.GateRow{
			Gate: r.Gate, State: gateStates[r.State], Checks: uint32(r.Checks), Failed: uint32(r.Failed), Undecided: uint32(r.Undecided), Why: r.Why,
		}
	}
	return out
}

// GateVerdict returns a verdict, nil for none.
func GateVerdict(v *gates.Verdict) *tandemv1.GateVerdict {
	if v == nil {
		return nil
	}
	out := &tandemv1.GateVerdict{Rows: GateRows(v.Rows), Loosened: v.Loosened}
	for _, d := range v.ComparedWith {
		out.ComparedWith = append(out.ComparedWith, string(d))
	}
	return out
}

// VerdictOf returns what of a verdict has arrived, nil for none.
func VerdictOf(m *tandemv1.GateVerdict) *gates.Verdict {
	if m == nil {
		return nil
	}
	states := map[tandemv1.GateState]manifest.GateState{}
	for state, wired := range gateStates {
		states[wired] = state
	}
	out := &gates.Verdict{Rows: make([]gates.Row, len(m.Rows)), Loosened: m.Loosened}
	for i, r := range m.Rows {
		state, known := states[r.GetState()]
		if !known {
			state = manifest.GateState(r.GetState().String())
		}
		out.Rows[i] = gates.Row{
			Gate: r.GetGate(), State: state, Checks: int(r.GetChecks()), Failed: int(r.GetFailed()), Undecided: int(r.GetUndecided()), Why: r.GetWhy(),
		}
	}
	for _, d := range m.ComparedWith {
		out.ComparedWith = append(out.ComparedWith, manifest.Digest(d))
	}
	return out
}

// Plan returns what a change does beside what its release says.
func Plan(p *release.Plan) *tandemv1.ReleasePlan {
	return &tandemv1.ReleasePlan{Off: texts(p.Off), Passed: p.Passed, Unfit: p.Unfit, UnfitSnapshots: texts(p.UnfitSnapshots)}
}

// PlanOf returns the plan of a change that has made a release.
func PlanOf(m *tandemv1.ReleasePlan, next *release.Release) release.Plan {
	return release.Plan{Next: next, Off: digests(m.GetOff()), Passed: m.GetPassed(), Unfit: m.GetUnfit(), UnfitSnapshots: digests(m.GetUnfitSnapshots())}
}

func texts(list []manifest.Digest) []string {
	var out []string
	for _, d := range list {
		out = append(out, string(d))
	}
	return out
}

func digests(list []string) []manifest.Digest {
	var out []manifest.Digest
	for _, d := range list {
		out = append(out, manifest.Digest(d))
	}
	return out
}

// SnapshotSummary returns what there is of a snapshot in a list.
func SnapshotSummary(d *release.Description) *tandemv1.SnapshotSummary {
	out := &tandemv1.SnapshotSummary{Snapshot: string(d.Digest), Published: timestamppb.New(d.Time), Arms: d.Arms, Gates: GateVerdict(d.Verdict)}
	if d.Err != nil {
		out.Error = printable(d.Err)
	}
	m := d.Manifest
	if m == nil {
		return out
	}
	out.Model, out.ModelVersion = m.Model, m.ModelVersion
	out.Apps, out.Users = uint64(m.Apps.Rows), uint64(m.Users.Rows)
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, s := range m.Tower(kind).Shards {
			out.Shards++
			out.Bytes += uint64(s.Size)
		}
	}
	return out
}
