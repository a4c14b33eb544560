package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// The manifest versions that this package writes and reads. A manifest has the
// lowest one that has all it says, so that an older build refuses by name what it
// does not know, and reads the rest.
//
//	1: model, towers, shards, inputs, recall report.
//	2: segments of the app tower.
//	3: the tool, every parameter, calibrations, lineage and the gate report.
//	4: the mean user vector, attributes of type float32.
//	5: how inputs are read beyond the names of columns: partition keys, attribute types.
//	6: gate checks that did not run or found nothing either way, the training run that an
//	   input says it is of, the samples that calibrated and measured, the recall of the
//	   worst percent, limits that were loosened.
//	7: the position of the live log that the inputs reflect.
const (
	FirstVersion    = 1 // without segments
	SegmentsVersion = 2 // with segments
	GatesVersion    = 3 // with or without segments
	MeanVersion     = 4 // with or without what the others add
	InputsVersion   = 5 // likewise
	EvidenceVersion = 6 // likewise
	LiveVersion     = 7 // likewise
)

// Manifest is the root object of a snapshot. The same inputs, parameters and
// builder give the same manifest to the byte, so it holds no time, no path and no
// name of a machine.
type Manifest struct {
	Version      int          `json:"version"`
	Builder      string       `json:"builder"`        // what wrote the snapshot
	Tool         string       `json:"tool,omitempty"` // the release of the tool that ran the builder
	Model        string       `json:"model"`
	ModelVersion string       `json:"model_version"`
	Metric       index.Metric `json:"metric"`
	Dim          int          `json:"dim"`
	Apps         Tower        `json:"apps"`
	Users        Tower        `json:"users"`
	Inputs       []Input      `json:"inputs"`
	// MeanUser is the mean of the user tower's vectors, under cosine of their
	// directions; nil if that is no vector to ask with, or an older builder left it out.
	MeanUser   []float32   `json:"mean_user,omitempty"`
	Parameters *Parameters `json:"parameters,omitempty"`
	Lineage    *Lineage    `json:"lineage,omitempty"` // nil if no snapshot came before
	// Live is the position of the store's live log that the inputs reflect: what was
	// upserted, set and removed up to it is in them. It is nil if nobody has said; then
	// nothing is. It needs [LiveVersion].
	Live  *shard.Position `json:"live,omitempty"`
	Gates *GateReport     `json:"gates,omitempty"`
}

// Tower lists the shards of one tower.
type Tower struct {
	Rows     int              `json:"rows"`
	Rejected int              `json:"rejected"` // input rows left out
	Params   string           `json:"params"`   // see index.Params
	Schema   attribute.Schema `json:"schema"`
	Shards   []Shard          `json:"shards"` // in the order of their numbers
	Recall   []Recall         `json:"recall"` // measured on held-out queries

	// Samples are the rows of the other tower that the build asked; nil if an older
	// builder did not say.
	Samples *Samples `json:"samples,omitempty"`

	// Segments are in ascending order of their names. Only the app tower has any.
	Segments []Segment `json:"segments,omitempty"`
}

// Shard names one shard file.
type Shard struct {
	Digest   Digest `json:"digest"` // SHA-256 of the file
	Size     int64  `json:"size"`   // bytes
	Rows     int    `json:"rows"`
	Checksum string `json:"checksum"` // sections.File.Checksum, 16 hexadecimal digits

	Effort []index.Effort `json:"effort,omitempty"` // what its calibration found
}

// Input is one file that the snapshot was built from.
type Input struct {
	Role   string `json:"role"` // e.g. apps, users, apps-graph, app-segments, gates, [ForgottenRole]
	Name   string `json:"name"` // without its folder
	Size   int64  `json:"size"`
	Digest Digest `json:"digest"`
	// Run names the training run that wrote the rows, as they say themselves; empty if they
	// do not. It needs [EvidenceVersion].
	Run string `json:"run,omitempty"`
}

// ForgottenRole is the role of the input that stands for the users whom a build has left out
// since they are forgotten. Its digest is that of their keyed hashes, ascending, and its size
// that of those, of [ForgottenSize] bytes each. A build that has left out nobody has none.
const (
	ForgottenRole = "users-forgotten"
	ForgottenSize = 16
)

// Forgotten returns how many users were left out of a snapshot since they are forgotten.
func (m *Manifest) Forgotten() int64 {
	for _, in := range m.Inputs {
		if in.Role == ForgottenRole {
			return in.Size / ForgottenSize
		}
	}
	return 0
}

// MaxRun is the longest name of a training run, in bytes.
const MaxRun = 256

// CheckRun returns an error unless a name can be that of a training run.
func CheckRun(run string) error {
	if run == "" || len(run) > MaxRun || !utf8.ValidString(run) {
		return fmt.Errorf("training run %.80q: want 1 to %d bytes of UTF-8", run, MaxRun)
	}
	return nil
}

// Segment is a segment, how many apps are eligible, and the recall that
// held-out queries have among them.
type Segment struct {
	shard.Segment
	Eligible int      `json:"eligible"`
	Recall   []Recall `json:"recall"` // at the default target; null if no app is eligible
}

// Recall is the mean recall@K that held-out queries had at one recall target.
type Recall struct {
	K       int     `json:"k"`
	Target  float64 `json:"target"`
	Queries int     `json:"queries"`
	Recall  float64 `json:"recall"`
	// Worst is the mean of the worst percent of the queries, rounded up to whole ones; nil
	// if an older builder did not measure it.
	Worst *float64 `json:"worst,omitempty"`
	Ef    []int    `json:"ef"` // in each shard; 0 is the exact scan
}

// Digest is a SHA-256 in 64 lower-case hexadecimal digits.
type Digest string

// Sum returns the digest of data.
func Sum(data []byte) Digest {
	sum := sha256.Sum256(data)
	return Digest(hex.EncodeToString(sum[:]))
}

// SumReader returns the digest and the length of what r holds.
func SumReader(r io.Reader) (Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return Digest(hex.EncodeToString(h.Sum(nil))), n, err
}

// Valid reports whether d has the form of a digest.
func (d Digest) Valid() bool {
	if len(d) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(d) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Short returns the first 12 digits, for tables and logs.
func (d Digest) Short() string { return string(d[:min(len(d), 12)]) }

// Tower returns the manifest of one tower.
func (m *Manifest) Tower(kind shard.Kind) *Tower {
	if kind == shard.Users {
		return &m.Users
	}
	return &m.Apps
}

// Shards lists the shards of both towers, each file once: shards without a row are equal.
func (m *Manifest) Shards() []Shard {
	var list []Shard
	listed := map[Digest]bool{}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, sm := range m.Tower(kind).Shards {
			if !listed[sm.Digest] {
				listed[sm.Digest] = true
				list = append(list, sm)
			}
		}
	}
	return list
}

// ShardDigests lists the digests of [Manifest.Shards].
func (m *Manifest) ShardDigests() []Digest {
	var list []Digest
	for _, sm := range m.Shards() {
		list = append(list, sm.Digest)
	}
	return list
}

// Encode returns the bytes that the store holds; their digest names the snapshot.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(data, '\n'), nil
}

// Decode reads what [Manifest.Encode] wrote. It refuses a field or a version it does
// not know. An error is of class [sections.ErrCorrupt] or [sections.ErrVersion].
func Decode(data []byte) (*Manifest, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("manifest: %w: %w", err, sections.ErrCorrupt)
	}
	if head.Version < FirstVersion || head.Version > LiveVersion {
		return nil, fmt.Errorf("manifest: version is %d, this build reads versions %d to %d: %w", head.Version, FirstVersion, LiveVersion, sections.ErrVersion)
	}
	m := &Manifest{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("manifest: %w: %w", err, sections.ErrCorrupt)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("manifest: bytes follow the object: %w", sections.ErrCorrupt)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("manifest: %w: %w", err, sections.ErrCorrupt)
	}
	return m, nil
}

func (m *Manifest) validate() error {
	if version := m.LowestVersion(); m.Version != version {
		return fmt.Errorf("version is %d, want %d for %d segments and what else it says", m.Version, version, len(m.Apps.Segments))
	}
	if n := len(m.Users.Segments); n > 0 {
		return fmt.Errorf("users: %d segments, only apps have any", n)
	}
	if err := CheckModel(m.Model, m.ModelVersion); err != nil {
		return err
	}
	if _, err := m.Metric.MarshalText(); err != nil {
		return err
	}
	if m.Dim < 1 || m.Dim > index.MaxDim {
		return fmt.Errorf("dim is %d, want 1 to %d", m.Dim, index.MaxDim)
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if err := m.Tower(kind).validate(); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	for _, in := range m.Inputs {
		if in.Run != "" {
			if err := CheckRun(in.Run); err != nil {
				return fmt.Errorf("input %.80q: %w", in.Name, err)
			}
		}
	}
	if m.Live != nil {
		if err := m.Live.Check(); err != nil {
			return err
		}
	}
	if m.MeanUser != nil {
		if len(m.MeanUser) != m.Dim {
			return fmt.Errorf("mean_user has %d numbers, dim is %d", len(m.MeanUser), m.Dim)
		}
		if err := m.Metric.CheckVector(m.MeanUser); err != nil {
			return fmt.Errorf("mean_user: %w", err)
		}
	}
	return m.validateGated()
}

// LowestVersion returns the lowest version that has all that the manifest says: the one
// that it must have.
func (m *Manifest) LowestVersion() int {
	switch {
	case m.Live != nil:
		return LiveVersion
	case m.Gates != nil && len(m.Gates.Undecided)+len(m.Gates.Loosened) > 0, m.sampled(),
		slices.ContainsFunc(m.Inputs, func(in Input) bool { return in.Run != "" }):
		return EvidenceVersion
	case m.Parameters.beyondColumns():
		return InputsVersion
	case m.MeanUser != nil || m.Apps.Schema.Has(attribute.Float32) || m.Users.Schema.Has(attribute.Float32):
		return MeanVersion
	case m.gated():
		return GatesVersion
	case len(m.Apps.Segments) > 0:
		return SegmentsVersion
	}
	return FirstVersion
}

func (t *Tower) validate() error {
	if len(t.Shards) < 1 || len(t.Shards) > shard.MaxShards {
		return fmt.Errorf("%d shards, want 1 to %d", len(t.Shards), shard.MaxShards)
	}
	rows := 0
	for i, s := range t.Shards {
		if !s.Digest.Valid() {
			return fmt.Errorf("shard %d: digest %q is not a SHA-256", i, s.Digest)
		}
		if s.Rows < 0 || s.Rows > index.MaxRows || s.Size < 1 {
			return fmt.Errorf("shard %d: %d rows in %d bytes", i, s.Rows, s.Size)
		}
		rows += s.Rows
	}
	if rows != t.Rows || t.Rejected < 0 {
		return fmt.Errorf("rows is %d, the shards have %d; rejected is %d", t.Rows, rows, t.Rejected)
	}
	if err := checkRecall(t.Recall); err != nil {
		return err
	}
	if err := t.Samples.check(); err != nil {
		return err
	}
	if err := shard.CheckSegments(t.SegmentList()); err != nil {
		return err
	}
	for _, s := range t.Segments {
		if s.Eligible < 0 || s.Eligible > t.Rows {
			return fmt.Errorf("segment %s: %d of %d rows are eligible", s.Name, s.Eligible, t.Rows)
		}
		if err := checkRecall(s.Recall); err != nil {
			return fmt.Errorf("segment %s: %w", s.Name, err)
		}
	}
	return nil
}

func checkRecall(list []Recall) error {
	for _, r := range list {
		if math.IsNaN(r.Recall) || r.Recall < 0 || r.Recall > 1 {
			return fmt.Errorf("recall@%d is %v", r.K, r.Recall)
		}
		if w := r.Worst; w != nil && !(*w >= 0 && *w <= 1) {
			return fmt.Errorf("recall@%d of the worst percent is %v", r.K, *w)
		}
	}
	return nil
}

// SegmentList returns the segments that each shard must have.
func (t *Tower) SegmentList() []shard.Segment {
	var list []shard.Segment
	for _, s := range t.Segments {
		list = append(list, s.Segment)
	}
	return list
}

// CheckEligible compares the sizes of the segments with what the shards have.
func (t *Tower) CheckEligible(rows []int) error {
	for i, s := range t.Segments {
		if rows[i] != s.Eligible {
			return fmt.Errorf("segment %s: the shards have %d eligible rows, the manifest says %d: %w", s.Name, rows[i], s.Eligible, sections.ErrCorrupt)
		}
	}
	return nil
}

// CheckModel returns an error that names what is wrong with a model's name or
// version.
func CheckModel(model, version string) error {
	for _, f := range []struct{ name, value string }{{"model", model}, {"model version", version}} {
		if err := shard.CheckID(f.value); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}
