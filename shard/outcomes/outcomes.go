package outcomes

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"regexp"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/parquetfile"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// Prefix is what the names of a store's outcomes begin with.
const Prefix = "outcomes/"

// Version is the version of the format, which each file names. Version 1 is the first.
const Version = "1"

// ErrDamaged is the class of every error that says that a file of outcomes is not what [Encode]
// writes.
var ErrDamaged = errors.New("damaged file of outcomes")

// Kinds that have a meaning of their own. Others are the caller's.
const (
	KindImpression = "impression" // it was seen
	KindOpen       = "open"
	KindInstall    = "install"
	KindPlayTime   = "play_time" // the value is in seconds
	KindHide       = "hide"
	KindReport     = "report"
)

// Bounds of an outcome, in bytes where nothing else is said.
const (
	MaxID        = 128
	MaxRequestID = 128
	MaxUserID    = 256
	MaxAppID     = 256
	MaxKind      = 64
	MaxCaller    = 256
	// MaxAhead is how much later than it was received an outcome may be, since clocks of callers
	// are set.
	MaxAhead = 24 * time.Hour
)

// Outcome is what a user did with an app.
type Outcome struct {
	// ID names the outcome: however often it is there, it counts once.
	ID string
	// RequestID is the request whose answer had the app, empty where that is not known, and
	// UserID who did it; at least one of the two is given.
	RequestID string
	UserID    string
	AppID     string
	// Kind is one of the constants, or a name of the caller's own, which [CheckKind] accepts.
	Kind string
	// Value is a finite number, of KindPlayTime seconds; HasValue is whether there is one.
	Value    float64
	HasValue bool
	// Time is when it was, and Received when a server took it, to the microsecond. It may be no
	// more than MaxAhead later.
	Time, Received time.Time
	// Caller is who has sent it, by the caller's token or certificate; empty where that was not
	// asked.
	Caller string
}

var kindForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// CheckKind returns an error unless a text can be a kind.
func CheckKind(kind string) error {
	if kindForm.MatchString(kind) {
		return nil
	}
	return fmt.Errorf("kind is %.80q; accepted: impression, open, install, play_time, hide, report, or a name of 1 to %d of a-z, 0-9 and _ that begins with a letter", kind, MaxKind)
}

// What an outcome takes beside its strings, roughly.
const rowBytes = 192

// Size returns about how many bytes of memory an outcome takes, and at most how many of a file.
func (o *Outcome) Size() int {
	return rowBytes + len(o.ID) + len(o.RequestID) + len(o.UserID) + len(o.AppID) + len(o.Kind) + len(o.Caller)
}

// Names reports whether an outcome names a user who is forgotten, as forgotten says of a text.
func (o *Outcome) Names(forgotten func(text string) bool) bool {
	return forgotten(o.UserID) || forgotten(o.RequestID) || forgotten(o.ID)
}

// format is the form of files of outcomes.
var format = &rowlog.Format[Outcome]{
	Prefix: Prefix, Root: "Outcome", Rows: "outcomes", VersionKey: "tandem.outcomes", Version: Version, Damaged: ErrDamaged,
	Blank: func() Outcome { return Outcome{} },
	Time:  func(o *Outcome) time.Time { return o.Time },
	Columns: []rowlog.Column[Outcome]{
		rowlog.Needed(rowlog.Text("id", MaxID, false, func(o *Outcome) *string { return &o.ID })),
		rowlog.Needed(rowlog.Text("request_id", MaxRequestID, false, func(o *Outcome) *string { return &o.RequestID })),
		rowlog.Needed(rowlog.Text("user_id", MaxUserID, false, func(o *Outcome) *string { return &o.UserID })),
		rowlog.Needed(rowlog.Text("app_id", MaxAppID, true, func(o *Outcome) *string { return &o.AppID })),
		kindColumn(),
		{
			Name: "value", Needed: true, Physical: parquet.Types.Double, Logical: schema.NoLogicalType{},
			Has: func(o *Outcome, _ int) bool { return o.HasValue },
			Put: func(b *parquetfile.Batch, o *Outcome, _ int) { b.Doubles = append(b.Doubles, o.Value) },
			Set: func(o *Outcome, _ int, b *parquetfile.Batch, i int) error {
				if o.Value, o.HasValue = b.Doubles[i], true; math.IsNaN(o.Value) || math.IsInf(o.Value, 0) {
					return fmt.Errorf("%v; accepted: finite numbers", o.Value)
				}
				return nil
			},
		},
		rowlog.Needed(rowlog.Moment("time", func(o *Outcome) *time.Time { return &o.Time })),
		rowlog.Needed(rowlog.Moment("received", func(o *Outcome) *time.Time { return &o.Received })),
		rowlog.Text("caller", MaxCaller, true, func(o *Outcome) *string { return &o.Caller }),
	},
}

// kindColumn is the column of kinds.
func kindColumn() rowlog.Column[Outcome] {
	c := rowlog.Needed(rowlog.Text("kind", MaxKind, true, func(o *Outcome) *string { return &o.Kind }))
	take := c.Set
	c.Set = func(o *Outcome, n int, b *parquetfile.Batch, i int) error {
		if err := take(o, n, b, i); err != nil {
			return err
		}
		return CheckKind(o.Kind)
	}
	return c
}

// Encode returns the file of some outcomes.
func Encode(list []Outcome) ([]byte, error) { return format.Encode(list) }

// Decode returns the outcomes in the bytes of a file, in its order. Each is the caller's. The
// first error, of class [ErrDamaged], is the last thing returned.
func Decode(data []byte) iter.Seq2[*Outcome, error] { return format.Decode(data) }

// Key returns a name for an object that is written from the time on. No two calls return the same.
func Key(at time.Time) string { return format.Key(at) }
