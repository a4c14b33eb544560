package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Bounds of a release.
const (
	Total   = 1000 // buckets, and the sum of the weights
	MaxArms = 16
	MaxPins = 1000 // of an arm
	MaxText = 1000 // bytes of the author, of a reason, and of the salt
	// MaxArmName is how many bytes the name of an arm has at most.
	MaxArmName = 64
	maxName    = MaxArmName // also of a gate's
	maxOff     = 64         // gates that were off
)

// The versions of the encoding that are read and written: the first, the one of releases that have
// variants, and the newest, of those that interleave or explore.
const (
	FirstVersion = 1
	Version      = withExperiments

	version         = FirstVersion
	withVariants    = 2
	withExperiments = 3
)

// Kind is what a release did.
type Kind string

// The kinds.
const (
	Started    Kind = "start"    // a snapshot began to serve
	Divided    Kind = "split"    // weights or pins changed
	Promoted   Kind = "promote"  // one arm took all traffic
	RolledBack Kind = "rollback" // an earlier release came back
)

// Release is the whole serving state, from one change to the next.
type Release struct {
	Version    int    `json:"version"`
	Generation uint64 `json:"generation"` // its place in the log, from 1
	ID         string `json:"id"`         // random, so that no two entries are equal
	// Hash is what tells it from every other release, those of the same generation in a
	// store that was restored from a copy included. It is that of the entry's bytes, and
	// no part of them.
	Hash appendlog.Hash `json:"-"`
	// Previous and Log are what [appendlog.Links] says. Releases before 0.6 do not have
	// them.
	Previous appendlog.Hash `json:"previous,omitzero"`
	Log      string         `json:"log,omitempty"`

	Kind Kind   `json:"kind"`
	Of   uint64 `json:"of,omitempty"` // the generation that a rollback brought back
	// Stopped is the arm that a person has ended, so that its snapshot does not come back by
	// itself.
	Stopped string `json:"stopped,omitempty"`
	// TakenOff are the snapshots that a rollback, or the end of their arm, has taken off, by
	// the generation that did, and that have come back by nobody's hand since. Releases
	// before 0.7 do not say it; from then on it is not nil.
	TakenOff map[manifest.Digest]uint64 `json:"taken_off,omitzero"`
	// Live is the head of the store's live log when the entry was appended, as far as it
	// could be read, and never before that of an earlier release: a live log that ends
	// before it is an older copy. It is nil without such a log.
	Live   *shard.Position `json:"live,omitempty"`
	Time   time.Time       `json:"time"`
	Author string          `json:"author"`
	Reason string          `json:"reason,omitempty"`
	// Override is why a snapshot was released whose gates failed, or were not run.
	Override string `json:"override,omitempty"`
	// AutoRollback has servers that may write to the store roll back by themselves when the
	// recall of live queries of an arm is below its floor. It is of this release alone.
	AutoRollback bool   `json:"auto_rollback,omitempty"`
	Model        string `json:"model"`
	// Salt mixes users anew for each experiment.
	Salt string `json:"salt"`
	Arms []Arm  `json:"arms"`
	// Variants decide the arm of requests that name one, in the order of their names. A release
	// that has some is of version 2.
	Variants []Variant `json:"variants,omitempty"`
	// Interleaving and Exploration say which requests are answered by two arms, and which have
	// places drawn; nil for none. A release that has one of them, or a variant of two arms, is of
	// version 3.
	Interleaving *Interleaving `json:"interleaving,omitempty"`
	Exploration  *Exploration  `json:"exploration,omitempty"`
}

// Arm is one snapshot with a share of traffic.
type Arm struct {
	Name         string          `json:"name"`
	Snapshot     manifest.Digest `json:"snapshot"`
	ModelVersion string          `json:"model_version"`
	Weight       int             `json:"weight"`  // per mille
	Buckets      Buckets         `json:"buckets"` // as many as Weight says
	// Pins are keys, such as user ids, that fall into this arm whatever their bucket.
	Pins []string `json:"pins,omitempty"`
	// GatesOff are the gates that were off when the arm was last given traffic: nobody
	// knows whether its snapshot would have passed them.
	GatesOff []string `json:"gates_off,omitempty"`
	// GatesUndecided are the gates that had not run when the arm was last given traffic, those
	// that were off among them, or that had found nothing either way. Releases before 0.7
	// do not say.
	GatesUndecided []UndecidedGate `json:"gates_undecided,omitempty"`
	// Override is why the arm has traffic although its snapshot's gates do not let it
	// pass. It holds for more traffic, too.
	Override string `json:"override,omitempty"`
	// GatesFailed are the gates that Override passes over: what else fails later needs a
	// reason of its own.
	GatesFailed []string `json:"gates_failed,omitempty"`
	// GatesLoosened are the limits under which more passed than by default.
	GatesLoosened []string `json:"gates_loosened,omitempty"`
	// RecallFloor is the mean recall of live queries below which there is an alarm; 0: as the
	// manifest says.
	RecallFloor float64 `json:"recall_floor,omitempty"`
}

// UndecidedGate is a gate of which nobody knows whether a snapshot would have passed it.
type UndecidedGate struct {
	Gate  string             `json:"gate"`
	State manifest.GateState `json:"state"` // [manifest.GateNotRun] or [manifest.GateInconclusive]
	Why   string             `json:"why,omitempty"`
}

// Arm returns the arm of a name, or nil.
func (r *Release) Arm(name string) *Arm {
	i := slices.IndexFunc(r.Arms, func(a Arm) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Arms[i]
}

// Most returns the arm with the most traffic; of equal ones that is control, or else the
// first.
func (r *Release) Most() Arm {
	most := r.Arms[0]
	for _, arm := range r.Arms[1:] {
		if arm.Weight > most.Weight || arm.Weight == most.Weight && arm.Name == Control {
			most = arm
		}
	}
	return most
}

// Buckets are numbers below [Total], ascending. Their text is that of ranges:
// "0-989,995".
type Buckets []int

// MarshalText implements [encoding.TextMarshaler].
func (b Buckets) MarshalText() ([]byte, error) {
	var ranges []string
	for i := 0; i < len(b); {
		j := i + 1
		for j < len(b) && b[j] == b[j-1]+1 {
			j++
		}
		if text := strconv.Itoa(b[i]); j == i+1 {
			ranges = append(ranges, text)
		} else {
			ranges = append(ranges, text+"-"+strconv.Itoa(b[j-1]))
		}
		i = j
	}
	return []byte(strings.Join(ranges, ",")), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (b *Buckets) UnmarshalText(text []byte) error {
	*b = nil
	if len(text) == 0 {
		return nil
	}
	next := 0
	for part := range strings.SplitSeq(string(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseUint(first, 10, 16)
		to := from
		if isRange && err == nil {
			to, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || int(from) < next || to < from || to >= Total {
			return fmt.Errorf("buckets %.80q: want ascending numbers and ranges below %d, such as 0-989,995", text, Total)
		}
		for n := from; n <= to; n++ {
			*b = append(*b, int(n))
		}
		next = int(to) + 1
	}
	return nil
}

// Encode returns the entry of the log.
func (r *Release) Encode() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("encode release: %w", err)
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode release: %w", err)
	}
	return append(data, '\n'), nil
}

// Decode reads what Encode wrote, here or in a later build. A field that it does not know
// is one that it may ignore: what it may not ignore comes with another version.
func Decode(data []byte) (*Release, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	if head.Version < version || head.Version > Version {
		return nil, fmt.Errorf("release: version is %d, this build reads versions %d to %d", head.Version, version, Version)
	}
	r := &Release{}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("release: bytes follow the object")
	}
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	r.Hash = appendlog.HashOf(data)
	return r, nil
}

// links returns what an entry carries of the log, though it is no release that this build
// reads.
func links(data []byte) appendlog.Links {
	var l struct {
		Previous appendlog.Hash `json:"previous"`
		Log      string         `json:"log"`
	}
	if err := json.Unmarshal(data, &l); err != nil || len(l.Log) > maxName {
		return appendlog.Links{}
	}
	return appendlog.Links(l)
}

// newLog returns the id of a log that begins. Later ids sort after earlier ones.
func newLog(now time.Time) string {
	return now.UTC().Format("20060102T150405.000Z") + "-" + newID()[:16]
}

func (r *Release) validate() error {
	switch {
	case r.Version != versionOf(r):
		return fmt.Errorf("version is %d with %d variants, interleaving %t, exploration %t, want %d",
			r.Version, len(r.Variants), r.Interleaving != nil, r.Exploration != nil, versionOf(r))
	case r.Generation == 0 || r.ID == "" || len(r.ID) > maxName:
		return fmt.Errorf("generation %d has the id %.80q", r.Generation, r.ID)
	case len(r.Log) > maxName:
		return fmt.Errorf("log has %d bytes; accepted: up to %d", len(r.Log), maxName)
	case !slices.Contains([]Kind{Started, Divided, Promoted, RolledBack}, r.Kind):
		return fmt.Errorf("kind is %.80q", r.Kind)
	case len(r.Stopped) > maxName:
		return fmt.Errorf("stopped has %d bytes; accepted: up to %d", len(r.Stopped), maxName)
	case len(r.Author) > MaxText || len(r.Reason) > MaxText || len(r.Override) > MaxText || len(r.Salt) > MaxText:
		return fmt.Errorf("author, reason, override and salt have %d, %d, %d and %d bytes; accepted: up to %d each",
			len(r.Author), len(r.Reason), len(r.Override), len(r.Salt), MaxText)
	case len(r.Arms) < 1 || len(r.Arms) > MaxArms:
		return fmt.Errorf("%d arms; accepted: 1 to %d", len(r.Arms), MaxArms)
	}
	if err := shard.CheckID(r.Model); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if r.Live != nil {
		if err := r.Live.Check(); err != nil {
			return fmt.Errorf("live: %w", err)
		}
	}
	var owner [Total]string
	pinned := map[string]string{}
	owned := 0
	for i, a := range r.Arms {
		if err := a.validate(); err != nil {
			return fmt.Errorf("arms[%d]: %w", i, err)
		}
		if slices.ContainsFunc(r.Arms[:i], func(b Arm) bool { return a.Name == b.Name }) {
			return fmt.Errorf("arms[%d]: there is another arm %s", i, a.Name)
		}
		for _, n := range a.Buckets {
			if n < 0 || n >= Total || owner[n] != "" {
				return fmt.Errorf("arms[%d]: bucket %d is no bucket, or twice there", i, n)
			}
			owner[n] = a.Name
			owned++
		}
		for _, key := range a.Pins {
			if other, twice := pinned[key]; twice {
				return fmt.Errorf("arms[%d]: %.80q is pinned to %s already", i, key, other)
			}
			pinned[key] = a.Name
		}
	}
	if owned != Total {
		return fmt.Errorf("the weights add up to %d; accepted: %d", owned, Total)
	}
	if err := r.Interleaving.validate(r); err != nil {
		return err
	}
	if err := r.Exploration.validate(); err != nil {
		return err
	}
	return r.checkVariants()
}

func (a *Arm) validate() error {
	switch {
	case CheckArmName(a.Name) != nil:
		return CheckArmName(a.Name)
	case !a.Snapshot.Valid():
		return fmt.Errorf("snapshot %.80q is no SHA-256", a.Snapshot)
	case a.Weight != len(a.Buckets):
		return fmt.Errorf("weight is %d with %d buckets", a.Weight, len(a.Buckets))
	case len(a.Pins) > MaxPins:
		return fmt.Errorf("%d pins; accepted: up to %d", len(a.Pins), MaxPins)
	case !(a.RecallFloor >= 0 && a.RecallFloor <= 1):
		return fmt.Errorf("recall floor is %v; accepted: 0 to 1", a.RecallFloor)
	case len(a.Override) > MaxText:
		return fmt.Errorf("override has %d bytes; accepted: up to %d", len(a.Override), MaxText)
	case len(a.GatesOff) > maxOff || slices.ContainsFunc(a.GatesOff, func(name string) bool { return len(name) > maxName }):
		return fmt.Errorf("%d gates are off; accepted: up to %d, each of up to %d bytes", len(a.GatesOff), maxOff, maxName)
	case len(a.GatesFailed) > maxOff || slices.ContainsFunc(a.GatesFailed, func(name string) bool { return len(name) > maxName }):
		return fmt.Errorf("%d gates have failed; accepted: up to %d, each of up to %d bytes", len(a.GatesFailed), maxOff, maxName)
	case len(a.GatesLoosened) > maxOff || slices.ContainsFunc(a.GatesLoosened, func(text string) bool { return len(text) > MaxText }):
		return fmt.Errorf("%d limits of gates are loosened; accepted: up to %d, each of up to %d bytes", len(a.GatesLoosened), maxOff, MaxText)
	case len(a.GatesUndecided) > maxOff:
		return fmt.Errorf("%d gates are undecided; accepted: up to %d", len(a.GatesUndecided), maxOff)
	}
	for _, g := range a.GatesUndecided {
		if len(g.Gate) > maxName || len(g.State) > maxName || len(g.Why) > MaxText {
			return fmt.Errorf("gate %.80q is undecided, %.80q: accepted are names of up to %d bytes and reasons of up to %d", g.Gate, g.State, maxName, MaxText)
		}
	}
	if err := shard.CheckID(a.ModelVersion); err != nil {
		return fmt.Errorf("model version: %w", err)
	}
	for _, key := range a.Pins {
		if err := shard.CheckID(key); err != nil {
			return fmt.Errorf("pin: %w", err)
		}
	}
	return nil
}

// Escape returns a text of a release as one line that is safe to print: a log may hold
// any characters.
func Escape(text string) string {
	var b strings.Builder
	for _, c := range text {
		if unicode.IsPrint(c) {
			b.WriteRune(c)
		} else {
			quoted := strconv.QuoteRune(c)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// CheckArmName returns an error that says what is wrong with an arm's name, nil if nothing is.
func CheckArmName(name string) error {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return fmt.Errorf("arm name %.80q; accepted: a-z, 0-9, _ and -", name)
		}
	}
	if len(name) < 1 || len(name) > maxName {
		return fmt.Errorf("arm name %.80q has %d bytes; accepted: 1 to %d", name, len(name), maxName)
	}
	return nil
}
