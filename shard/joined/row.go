package joined

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/parquetfile"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// ErrDamaged is the class of every error that says that an object is not what is written here.
var ErrDamaged = errors.New("damaged joined set")

// Version is the version of the format, which each part names. Version 1 is the first.
const Version = "1"

// Roles of rows.
const (
	// RoleShown is that of a candidate that was served.
	RoleShown = "shown"
	// RoleNext is that of one that would have come next, and was not served.
	RoleNext = "next"
	// RoleEligible is that of one that was eligible, and was neither served nor one of those that
	// would have come next: drawn of all such, each as likely.
	RoleEligible = "eligible"
	// RoleEmpty is that of a request that got no candidate: there is one row for it, without an
	// app, so that no request is missing.
	RoleEmpty = "empty"
)

// Row is a candidate of an answer, and what its user did with it.
type Row struct {
	// Time is when the request came, to the microsecond, and Day the day of it in UTC, as in
	// 2026-11-25.
	Time      time.Time
	Day       string
	RequestID string
	// UserID and RequestKey are who asked, as in the request; empty where it does not say.
	UserID     string
	RequestKey string
	// QueryAppID is the app that a request gives, empty where it gives none.
	QueryAppID string
	// Role is one of the constants. AppID is empty if it is RoleEmpty.
	Role  string
	AppID string
	// Rank begins with 1, and goes on over RoleNext; 0 for RoleEligible and RoleEmpty.
	Rank  int64
	Score float32
	K     int64 // that were asked for

	Arm          string
	Team         string // the arm that it was drawn by; empty unless answers were interleaved
	Generation   int64
	Model        string
	ModelVersion string
	Snapshot     string
	Plan         string
	Fallback     string
	Eligible     int64
	Coverage     float64
	LiveLog      string
	LiveSequence int64
	Experiment   string
	Variant      string
	Segment      string
	Tower        string
	// Explored is whether places of the answer were drawn, and Propensity with which probability
	// the candidate was to be at its place; 0 where that is not known.
	Explored   bool
	Propensity float32

	// How many outcomes there are of each kind.
	Impressions, Opens, Installs, Hides, Reports int64
	// PlayTimes is how many outcomes of play time there are, and PlayTime the sum of their
	// seconds.
	PlayTimes int64
	PlayTime  float64
	// When the first outcome of a kind was; zero where there is none.
	FirstImpression, FirstOpen, FirstInstall, FirstPlayTime, FirstHide, FirstReport time.Time
	// Own are outcomes of kinds that are the caller's own, in the order of their names.
	Own []Own
}

// Own is what there is of a kind of the caller's own.
type Own struct {
	Kind  string
	Count int64   // outcomes
	Value float64 // the sum of their values
}

// Bounds of a row.
const (
	maxText = 256 // bytes
	maxOwn  = 1_000
	// What a row and a kind take beside their strings, roughly.
	rowBytes = 512
	ownBytes = 48
)

// MaxOwn is how many kinds of the caller's own an exposure has at most.
const MaxOwn = maxOwn

// Size returns about how many bytes of memory a row takes.
func (r *Row) Size() int {
	n := rowBytes + len(r.RequestID) + len(r.UserID) + len(r.RequestKey) + len(r.QueryAppID) + len(r.AppID)
	for i := range r.Own {
		n += ownBytes + len(r.Own[i].Kind)
	}
	return n
}

// Positive reports whether a user has opened, installed or played it.
func (r *Row) Positive() bool { return r.Opens > 0 || r.Installs > 0 || r.PlayTimes > 0 }

var own = &rowlog.List[Row]{
	Name: "own", Most: maxOwn,
	Len:  func(r *Row) int { return len(r.Own) },
	Grow: func(r *Row) { r.Own = append(r.Own, Own{}) },
}

// text, repeated and number are columns of texts that differ, of texts that repeat, and of numbers.
func text(name string, field func(*Row) *string) rowlog.Column[Row] {
	return rowlog.Needed(rowlog.Text(name, maxText, false, field))
}

func repeated(name string, field func(*Row) *string) rowlog.Column[Row] {
	return rowlog.Needed(rowlog.Text(name, maxText, true, field))
}

func number(name string, field func(*Row) *int64) rowlog.Column[Row] {
	return rowlog.Needed(rowlog.Number(name, field))
}

// double is a column of finite numbers.
func double(name string, list *rowlog.List[Row], field func(*Row, int) *float64) rowlog.Column[Row] {
	return rowlog.Needed(rowlog.Column[Row]{
		Name: name, List: list, Physical: parquet.Types.Double, Logical: schema.NoLogicalType{},
		Put: func(b *parquetfile.Batch, r *Row, n int) { b.Doubles = append(b.Doubles, *field(r, n)) },
		Set: func(r *Row, n int, b *parquetfile.Batch, i int) error {
			v := b.Doubles[i]
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fmt.Errorf("%v; accepted: finite numbers", v)
			}
			*field(r, n) = v
			return nil
		},
	})
}

// score is a column of finite numbers of 32 bits, there where has says so.
func score(name string, has func(*Row) bool, field func(*Row) *float32) rowlog.Column[Row] {
	c := rowlog.Column[Row]{
		Name: name, Physical: parquet.Types.Float, Logical: schema.NoLogicalType{},
		Put: func(b *parquetfile.Batch, r *Row, _ int) { b.Floats = append(b.Floats, *field(r)) },
		Set: func(r *Row, _ int, b *parquetfile.Batch, i int) error {
			v := b.Floats[i]
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("%v; accepted: finite numbers", v)
			}
			*field(r) = v
			return nil
		},
	}
	if has != nil {
		c.Has = func(r *Row, _ int) bool { return has(r) }
	}
	return rowlog.Needed(c)
}

// moment is a column of times that need not be there.
func moment(name string, field func(*Row) *time.Time) rowlog.Column[Row] {
	c := rowlog.Needed(rowlog.Moment(name, field))
	c.Has = func(r *Row, _ int) bool { return !field(r).IsZero() }
	return c
}

// format is the form of parts.
var format = &rowlog.Format[Row]{
	Prefix: Prefix, Root: "Exposure", Rows: "exposures", VersionKey: "tandem.joined", Version: Version, Damaged: ErrDamaged,
	Blank: func() Row { return Row{} },
	Time:  func(r *Row) time.Time { return r.Time },
	Columns: []rowlog.Column[Row]{
		rowlog.Needed(rowlog.Moment("time", func(r *Row) *time.Time { return &r.Time })),
		repeated("day", func(r *Row) *string { return &r.Day }),
		repeated("request_id", func(r *Row) *string { return &r.RequestID }),
		repeated("user_id", func(r *Row) *string { return &r.UserID }),
		repeated("request_key", func(r *Row) *string { return &r.RequestKey }),
		repeated("query_app_id", func(r *Row) *string { return &r.QueryAppID }),
		repeated("role", func(r *Row) *string { return &r.Role }),
		text("app_id", func(r *Row) *string { return &r.AppID }),
		number("rank", func(r *Row) *int64 { return &r.Rank }),
		score("score", nil, func(r *Row) *float32 { return &r.Score }),
		number("k", func(r *Row) *int64 { return &r.K }),
		repeated("arm", func(r *Row) *string { return &r.Arm }),
		repeated("team", func(r *Row) *string { return &r.Team }),
		number("generation", func(r *Row) *int64 { return &r.Generation }),
		repeated("model", func(r *Row) *string { return &r.Model }),
		repeated("model_version", func(r *Row) *string { return &r.ModelVersion }),
		repeated("snapshot", func(r *Row) *string { return &r.Snapshot }),
		repeated("plan", func(r *Row) *string { return &r.Plan }),
		repeated("fallback", func(r *Row) *string { return &r.Fallback }),
		number("eligible", func(r *Row) *int64 { return &r.Eligible }),
		double("coverage", nil, func(r *Row, _ int) *float64 { return &r.Coverage }),
		repeated("live_log", func(r *Row) *string { return &r.LiveLog }),
		number("live_sequence", func(r *Row) *int64 { return &r.LiveSequence }),
		repeated("experiment", func(r *Row) *string { return &r.Experiment }),
		repeated("variant", func(r *Row) *string { return &r.Variant }),
		repeated("segment", func(r *Row) *string { return &r.Segment }),
		repeated("tower", func(r *Row) *string { return &r.Tower }),
		rowlog.Needed(rowlog.Flag("explored", func(r *Row) *bool { return &r.Explored })),
		score("propensity", func(r *Row) bool { return r.Propensity != 0 }, func(r *Row) *float32 { return &r.Propensity }),
		number("impressions", func(r *Row) *int64 { return &r.Impressions }),
		number("opens", func(r *Row) *int64 { return &r.Opens }),
		number("installs", func(r *Row) *int64 { return &r.Installs }),
		number("hides", func(r *Row) *int64 { return &r.Hides }),
		number("reports", func(r *Row) *int64 { return &r.Reports }),
		number("play_times", func(r *Row) *int64 { return &r.PlayTimes }),
		double("play_time", nil, func(r *Row, _ int) *float64 { return &r.PlayTime }),
		moment("first_impression", func(r *Row) *time.Time { return &r.FirstImpression }),
		moment("first_open", func(r *Row) *time.Time { return &r.FirstOpen }),
		moment("first_install", func(r *Row) *time.Time { return &r.FirstInstall }),
		moment("first_play_time", func(r *Row) *time.Time { return &r.FirstPlayTime }),
		moment("first_hide", func(r *Row) *time.Time { return &r.FirstHide }),
		moment("first_report", func(r *Row) *time.Time { return &r.FirstReport }),
		rowlog.Needed(rowlog.ListText(own, "kind", maxText, true, func(r *Row, n int) *string { return &r.Own[n].Kind })),
		rowlog.Needed(rowlog.Column[Row]{
			Name: "count", List: own, Physical: parquet.Types.Int64, Logical: schema.NewIntLogicalType(64, true),
			Put: func(b *parquetfile.Batch, r *Row, n int) { b.Int64s = append(b.Int64s, r.Own[n].Count) },
			Set: func(r *Row, n int, b *parquetfile.Batch, i int) error {
				if r.Own[n].Count = b.Int64s[i]; r.Own[n].Count < 0 {
					return fmt.Errorf("%d; accepted: at least 0", r.Own[n].Count)
				}
				return nil
			},
		}),
		double("value", own, func(r *Row, n int) *float64 { return &r.Own[n].Value }),
	},
}

// Encode returns the part of some rows.
func Encode(rows []Row) ([]byte, error) { return format.Encode(rows) }

// Decode returns the rows in the bytes of a part, in its order. Each is the caller's. The first
// error, of class [ErrDamaged], is the last thing returned.
func Decode(data []byte) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		n := 0
		for r, err := range format.Decode(data) {
			if err == nil {
				err = r.check(n)
			}
			if !yield(r, err) || err != nil {
				return
			}
			n++
		}
	}
}

// check returns an error if values of a row do not go with one another.
func (r *Row) check(n int) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: row %d: %s", ErrDamaged, n, fmt.Sprintf(format, args...))
	}
	switch {
	case r.Role != RoleShown && r.Role != RoleNext && r.Role != RoleEligible && r.Role != RoleEmpty:
		return wrong("column role: %.80q; accepted: %s, %s, %s, %s", r.Role, RoleShown, RoleNext, RoleEligible, RoleEmpty)
	case (r.Role == RoleEmpty || r.Role == RoleEligible) != (r.Rank == 0):
		return wrong("column rank: %d of the role %s", r.Rank, r.Role)
	case !(r.Propensity >= 0 && r.Propensity <= 1):
		return wrong("column propensity: %v; accepted: above 0 and up to 1", r.Propensity)
	case r.Day != DayOf(r.Time):
		return wrong("column day: %.40q of the time %s", r.Day, r.Time.Format(time.RFC3339))
	}
	return nil
}
