// Package plan is what a build in steps fixes before its first step: everything that must be
// the same on all machines, in one object of the store that is named by its SHA-256.
//
// Package builder makes plans and runs their steps; deploy/spark reads what the command prints
// of one. What lies in the store beside the plan is named by [Keys], and described in
// shard/format.md.
package plan

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Version is that of plans, and of all that lies beside one. A step refuses another one.
const Version = 1

// MaxSize is the largest plan that is read, in bytes.
const MaxSize = 256 << 20

// Plan is everything that all steps of a build must agree on. Nothing changes it.
type Plan struct {
	Version      int          `json:"version"`
	Builder      string       `json:"builder"` // must be that of each step, and so must Tool
	Tool         string       `json:"tool,omitempty"`
	Model        string       `json:"model"`
	ModelVersion string       `json:"model_version"`
	Metric       index.Metric `json:"metric"`
	Params       string       `json:"params"` // see [index.Params]
	Dim          int          `json:"dim"`

	Parameters *manifest.Parameters `json:"parameters"`
	Apps       Tower                `json:"apps"`
	Users      Tower                `json:"users"`

	Segments     []byte `json:"segments,omitempty"` // the file, as it is; nil without
	SegmentsName string `json:"segments_name,omitempty"`
	Gates        []byte `json:"gates,omitempty"` // likewise
	GatesName    string `json:"gates_name,omitempty"`
	Interactions []File `json:"interactions,omitempty"`

	Previous  manifest.Digest `json:"previous,omitempty"` // the snapshot that the gates compare with
	Live      *shard.Position `json:"live,omitempty"`     // that the inputs reflect
	LiveHead  shard.Position  `json:"live_head"`          // where the live log ended
	Forgotten manifest.Digest `json:"forgotten,omitempty"`

	Tasks []Task `json:"tasks"`
}

// Tower is one tower.
type Tower struct {
	Shards int `json:"shards"`

	Rows       []File `json:"rows"`
	IDs        []File `json:"ids,omitempty"`
	Attributes []File `json:"attributes,omitempty"`
	Graph      []File `json:"graph,omitempty"`

	Survey *tower.Survey `json:"survey"`
	// RowFields and LineFields are the attributes that come with rows and with JSON Lines,
	// in the order of their readers.
	RowFields  []attribute.Field      `json:"row_fields,omitempty"`
	LineFields []attribute.Field      `json:"line_fields,omitempty"`
	Lines      *tower.AttributeSurvey `json:"lines,omitempty"` // nil without JSON Lines
}

// File is one input file.
type File struct {
	Place string `json:"place"` // the path or URL that opens it
	Shown string `json:"shown"` // what it is called for people
	Name  string `json:"name"`  // in a manifest
	Size  int64  `json:"size"`
	// Fingerprint is what [input.Fingerprint] says of it.
	Fingerprint string `json:"fingerprint"`
	// Digest is that of the whole file, of graphs only: the others are read whole by a task,
	// which says it.
	Digest manifest.Digest `json:"digest,omitempty"`
}

// Reads is what a task reads.
type Reads string

// What tasks read.
const (
	Rows       Reads = "rows"
	Attributes Reads = "attributes" // JSON Lines
)

// Task is one part of the inputs that one process reads.
type Task struct {
	Tower shard.Kind `json:"tower"`
	Reads Reads      `json:"reads"`
	First int        `json:"first"` // position of the first file among those of the tower
	Files int        `json:"files"` // how many there are
	Bytes int64      `json:"bytes"`
}

// Tower returns that of a kind.
func (p *Plan) Tower(kind shard.Kind) *Tower {
	if kind == shard.Users {
		return &p.Users
	}
	return &p.Apps
}

// Of returns the files that tasks of the tower read.
func (t *Tower) Of(reads Reads) []File {
	if reads == Attributes {
		return t.Attributes
	}
	return t.Rows
}

// Schema returns the attributes of the tower.
func (t *Tower) Schema() (attribute.Schema, error) {
	return attribute.NewSchema(append(t.RowFields[:len(t.RowFields):len(t.RowFields)], t.LineFields...))
}

// Shards returns how many shards there are of both towers: those of apps come first.
func (p *Plan) Shards() int { return p.Apps.Shards + p.Users.Shards }

// Shard returns the tower of a shard, and its number there.
func (p *Plan) Shard(index int) (kind shard.Kind, number int) {
	if index < p.Apps.Shards {
		return shard.Apps, index
	}
	return shard.Users, index - p.Apps.Shards
}

// Index is the inverse of [Plan.Shard].
func (p *Plan) Index(kind shard.Kind, number int) int {
	if kind == shard.Users {
		return p.Apps.Shards + number
	}
	return number
}

// Encode returns the bytes that the store holds; their digest names the build.
func (p *Plan) Encode() ([]byte, error) {
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	data, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	if data = append(data, '\n'); len(data) > MaxSize {
		return nil, fmt.Errorf("encode plan: it has %d bytes, at most %d are read: give fewer and larger files", len(data), MaxSize)
	}
	return data, nil
}

// Decode returns the plan that bytes are, which may be anything.
func Decode(data []byte) (*Plan, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("decode plan: %w", err)
	}
	if head.Version != Version {
		return nil, fmt.Errorf("decode plan: it is of version %d, and this release reads %d", head.Version, Version)
	}
	p := &Plan{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil {
		return nil, fmt.Errorf("decode plan: %w", err)
	}
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("decode plan: %w", err)
	}
	return p, nil
}

func (p *Plan) validate() error {
	if p.Version != Version {
		return fmt.Errorf("version %d, want %d", p.Version, Version)
	}
	if err := manifest.CheckModel(p.Model, p.ModelVersion); err != nil {
		return err
	}
	params, err := index.ParseParams(p.Params)
	switch {
	case err != nil:
		return err
	case params.Metric != p.Metric || params.Frozen:
		return fmt.Errorf("parameters %q under the metric %s", p.Params, p.Metric)
	case p.Dim < 1 || p.Dim > index.MaxDim:
		return fmt.Errorf("dimension %d, want 1 to %d", p.Dim, index.MaxDim)
	case p.Parameters == nil || p.Parameters.MaxRejected < 0:
		return errors.New("no parameters")
	case p.Previous != "" && !p.Previous.Valid():
		return errors.New("the previous snapshot is no digest")
	case p.Forgotten != "" && !p.Forgotten.Valid():
		return errors.New("the digest of who is forgotten is none")
	}
	if p.Live != nil {
		if err := p.Live.Check(); err != nil {
			return err
		}
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if err := p.Tower(kind).validate(); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	for _, f := range p.Interactions {
		if err := f.validate(); err != nil {
			return fmt.Errorf("interactions: %w", err)
		}
	}
	return p.checkTasks()
}

func (t *Tower) validate() error {
	switch {
	case t.Shards < 1 || t.Shards > shard.MaxShards:
		return fmt.Errorf("%d shards, want 1 to %d", t.Shards, shard.MaxShards)
	case len(t.Rows) == 0 || t.Survey == nil || len(t.Survey.Rows) != len(t.Rows):
		return fmt.Errorf("%d files, which is not what was surveyed", len(t.Rows))
	case t.Survey.Format != input.Parquet && t.Survey.Format != input.Npy:
		return fmt.Errorf("format %.80q", t.Survey.Format)
	case (len(t.Attributes) > 0) != (t.Lines != nil):
		return errors.New("JSON Lines that were not surveyed")
	case t.Lines != nil && (len(t.Lines.Lasts) != len(t.Attributes) || len(t.Lines.Names) != len(t.Attributes)):
		return errors.New("JSON Lines are not what was surveyed")
	case len(t.Graph) > 1 || len(t.Graph) == 1 && (t.Shards != 1 || !t.Graph[0].Digest.Valid()):
		return errors.New("a graph takes one shard, and has a digest")
	}
	var total int64
	for _, rows := range t.Survey.Rows {
		if total += rows; rows < 0 || total < 0 {
			return fmt.Errorf("a file has %d rows", rows)
		}
	}
	for _, p := range t.Survey.Partitions {
		if len(p.Texts) != len(t.Rows) {
			return fmt.Errorf("partition %.80s: %d values of %d files", p.Name, len(p.Texts), len(t.Rows))
		}
	}
	if t.Lines != nil {
		last := int64(0)
		for _, line := range t.Lines.Lasts {
			if line < last {
				return errors.New("lines are out of order")
			}
			last = line
		}
	}
	if _, err := t.Schema(); err != nil {
		return err
	}
	for _, list := range [][]File{t.Rows, t.IDs, t.Attributes, t.Graph} {
		for _, f := range list {
			if err := f.validate(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *File) validate() error {
	if sum, err := hex.DecodeString(f.Fingerprint); err != nil || len(sum) != 32 || f.Place == "" || f.Name == "" || f.Size < 0 {
		return fmt.Errorf("file %.80q of %d bytes is not one", f.Place, f.Size)
	}
	return nil
}

// checkTasks returns an error unless each file that is dealt to shards is in one task, in
// order.
func (p *Plan) checkTasks() error {
	next := map[Task]int{} // by the tower and what is read
	for i, t := range p.Tasks {
		if (t.Tower != shard.Apps && t.Tower != shard.Users) || (t.Reads != Rows && t.Reads != Attributes) || t.Files < 1 || t.Bytes < 0 {
			return fmt.Errorf("task %d is none", i)
		}
		of := Task{Tower: t.Tower, Reads: t.Reads}
		if t.First != next[of] || t.Files > len(p.Tower(t.Tower).Of(t.Reads))-t.First {
			return fmt.Errorf("task %d: files %d to %d of %s", i, t.First, t.First+t.Files-1, t.Tower)
		}
		next[of] += t.Files
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for _, reads := range []Reads{Rows, Attributes} {
			if have, want := next[Task{Tower: kind, Reads: reads}], len(p.Tower(kind).Of(reads)); have != want {
				return fmt.Errorf("%s: %d of %d files are in a task", kind, have, want)
			}
		}
	}
	return nil
}

// MaxTasks is how many tasks there are for each kind of input, at most: what a shard is read
// from grows with them.
const MaxTasks = 1000

// Split makes tasks of consecutive files of size bytes or more each, one after the other, of
// rows first. Files of plain numbers are read together, since their ids are beside them.
func (p *Plan) Split(size int64) {
	p.Tasks = []Task{}
	for _, reads := range []Reads{Rows, Attributes} {
		for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
			t := p.Tower(kind)
			files := t.Of(reads)
			var total int64
			for _, f := range files {
				total += f.Size
			}
			least := max(size, total/MaxTasks+1)
			together := reads == Rows && t.Survey.Format != input.Parquet
			for i, f := range files {
				last := len(p.Tasks) - 1
				if i == 0 || !together && p.Tasks[last].Bytes >= least {
					p.Tasks = append(p.Tasks, Task{Tower: kind, Reads: reads, First: i})
					last++
				}
				p.Tasks[last].Files++
				p.Tasks[last].Bytes += f.Size
			}
			if together {
				for _, f := range t.IDs {
					p.Tasks[len(p.Tasks)-1].Bytes += f.Size
				}
			}
		}
	}
}
