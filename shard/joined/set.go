package joined

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// Names of objects.
const (
	// Prefix is what the names of a store's joined sets begin with.
	Prefix = "joined/"
	// SetName is the name of what says which parts are the set of a day.
	SetName = "_joined.json"
	setForm = 1
)

// maxSetBytes bounds what is read of a set's own object.
const maxSetBytes = 16 << 20

// ErrChanged is the class of every error that says that a part is not there which a set names, as
// where the day is joined again meanwhile.
var ErrChanged = errors.New("the joined set has changed")

// Set says what is the set of a day. The names of its JSON fields are stable.
type Set struct {
	Format int    `json:"format"` // 1
	Day    string `json:"day"`    // as in 2026-11-25, in UTC
	// Generation counts from 1 how often the day has got other rows.
	Generation int       `json:"generation"`
	Written    time.Time `json:"written"` // by the clock of who joined
	// Joiner is the version of how it is joined: another one may give other rows.
	Joiner int `json:"joiner"`
	// Window is how long after an exposure an outcome may be, in nanoseconds, and Late how long
	// after that an object with it may be written.
	Window time.Duration `json:"window_ns"`
	Late   time.Duration `json:"late_ns"`
	// Negatives is how many candidates were drawn of each request that were eligible and not served.
	Negatives int `json:"negatives,omitempty"`
	// Queries and Outcomes are what was read.
	Queries  Inputs `json:"queries"`
	Outcomes Inputs `json:"outcomes"`
	// Inputs is the name of the object that lists all objects that were read, with their sizes,
	// beside this one.
	Inputs string `json:"inputs"`
	Parts  []Part `json:"parts"`
	Counts Counts `json:"counts"`
	// Forgotten is how many rows of users who are forgotten were taken out since it was joined.
	// What Counts says of rows is without them.
	Forgotten int64 `json:"rows_of_forgotten_users,omitempty"`
}

// Inputs is which objects of a log were read.
type Inputs struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// Digest is the SHA-256 of a line for each, in the order of their names: name, a space, size.
	Digest string `json:"digest"`
	// Damaged are objects of which not all rows could be read, each with why.
	Damaged []string `json:"damaged,omitempty"`
}

// Part is one file of rows.
type Part struct {
	Name string `json:"name"` // in the folder of the day
	Rows int64  `json:"rows"`
	Size int64  `json:"size"` // bytes
}

// Counts is what a day has, and what became of its outcomes. Outcomes of the day are those that
// were on it.
type Counts struct {
	Requests int64 `json:"requests"`
	Empty    int64 `json:"empty_requests"` // of them, that got no candidate
	Shown    int64 `json:"shown"`
	Next     int64 `json:"next"`
	NotApps  int64 `json:"requests_for_users"` // left out: their candidates are users
	// Eligible is how many candidates were drawn that were eligible and not served, of which
	// requests of EligibleUnknown have none, since their snapshot or their user is not there any
	// more, and those of EligibleShort fewer than were to be drawn.
	Eligible        int64 `json:"eligible_drawn,omitempty"`
	EligibleUnknown int64 `json:"requests_without_eligible,omitempty"`
	EligibleShort   int64 `json:"requests_with_fewer_eligible,omitempty"`
	// Joined is how many outcomes are in the rows of the day, whenever they were.
	Joined int64 `json:"outcomes_joined"`
	// OfDay is how many outcomes were on the day, each id once. They are those that are joined
	// with an exposure of this day, of another day, and those of which there is none.
	OfDay      int64 `json:"outcomes_of_day"`
	ToDay      int64 `json:"to_this_day"`
	ToOther    int64 `json:"to_other_days"`
	NoRequest  int64 `json:"request_not_recorded"`
	NotShown   int64 `json:"app_not_in_answer"`
	NoExposure int64 `json:"no_exposure_of_user"`
	Outside    int64 `json:"outside_window"`
	// Repeated is how many outcomes were read whose id had been read, and Differing how many of
	// them say something else than the first that was received, which counts.
	Repeated  int64 `json:"ids_repeated"`
	Differing int64 `json:"ids_repeated_differently"`
	// Valueless is how many outcomes of play time that are joined have no value.
	Valueless int64 `json:"play_times_without_value"`
	// KindsLeftOut is how many outcomes of kinds of the caller's own are joined and in no row,
	// since their exposures have [MaxOwn] other kinds.
	KindsLeftOut int64 `json:"outcomes_of_too_many_kinds"`
}

// DayOf returns the day of a time in UTC.
func DayOf(at time.Time) string { return at.UTC().Format(time.DateOnly) }

// SetKey returns the name of the object that says which parts are the set of a day.
func SetKey(day string) string { return Prefix + day + "/" + SetName }

var (
	partForm   = regexp.MustCompile(`^part-[0-9]{4,9}-[0-9a-f]{16}\.parquet$`)
	inputsForm = regexp.MustCompile(`^inputs-[0-9a-f]{16}\.txt$`)
)

// IsOfSet reports whether a name in the folder of a day is one of a part or of a list of inputs.
func IsOfSet(name string) bool { return partForm.MatchString(name) || inputsForm.MatchString(name) }

// PartName returns the name of part n of a day, of what is in it.
func PartName(n int, data []byte) string {
	return fmt.Sprintf("part-%04d-%s.parquet", n, Digest(data))
}

// Digest returns what names carry of what is in an object.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// Read returns the set of a day. A day that has none is of class [objects.ErrNotFound].
func Read(ctx context.Context, bucket *objects.Bucket, day string) (*Set, error) {
	key := SetKey(day)
	o, err := bucket.Stat(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read joined set: %w", err)
	}
	if o.Size > maxSetBytes {
		return nil, fmt.Errorf("read joined set: %s: %w: %d bytes; accepted: up to %d", key, ErrDamaged, o.Size, maxSetBytes)
	}
	data, err := bucket.Read(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read joined set: %w", err)
	}
	s, err := decodeSet(data, day)
	if err != nil {
		return nil, fmt.Errorf("read joined set: %s: %w", key, err)
	}
	return s, nil
}

// decodeSet reads what EncodeSet has written for a day.
func decodeSet(data []byte, day string) (*Set, error) {
	s := &Set{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	switch {
	case s.Format != setForm:
		return nil, fmt.Errorf("%w: it is of format %d; this program reads %d", ErrDamaged, s.Format, setForm)
	case s.Day != day:
		return nil, fmt.Errorf("%w: it is of the day %.40q, not of %s", ErrDamaged, s.Day, day)
	case s.Generation < 1:
		return nil, fmt.Errorf("%w: generation is %d; accepted: at least 1", ErrDamaged, s.Generation)
	case !inputsForm.MatchString(s.Inputs):
		return nil, fmt.Errorf("%w: inputs is %.80q, which is no name of a list of inputs", ErrDamaged, s.Inputs)
	}
	for _, p := range s.Parts {
		if !partForm.MatchString(p.Name) || p.Rows < 1 || p.Size < 1 {
			return nil, fmt.Errorf("%w: a part %.80q of %d rows in %d bytes", ErrDamaged, p.Name, p.Rows, p.Size)
		}
	}
	return s, nil
}

// EncodeSet returns the bytes of a set's own object.
func EncodeSet(s *Set) ([]byte, error) {
	s.Format = setForm
	data, err := json.MarshalIndent(s, "", "  ")
	return append(data, '\n'), err
}

// Days returns the days that have a set, the first first.
func Days(ctx context.Context, bucket *objects.Bucket) (days []string, err error) {
	for o, err := range bucket.List(ctx, Prefix) {
		if err != nil {
			return nil, fmt.Errorf("list joined sets: %w", err)
		}
		day, name, ok := strings.Cut(strings.TrimPrefix(o.Key, Prefix), "/")
		if _, err := time.Parse(time.DateOnly, day); ok && err == nil && name == SetName {
			days = append(days, day)
		}
	}
	return days, nil
}

// Rows returns the rows of a set, part by part. One part is in memory at a time. The first error is
// the last thing returned; it is of class [ErrChanged] where a part is not there any more.
func (s *Set) Rows(ctx context.Context, bucket *objects.Bucket) iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		for _, p := range s.Parts {
			key := Prefix + s.Day + "/" + p.Name
			if err := s.rows(ctx, bucket, p, yield); err != nil {
				if !errors.Is(err, errStopped) {
					yield(nil, fmt.Errorf("read joined set: %s: %w", key, err))
				}
				return
			}
		}
	}
}

var errStopped = errors.New("stopped")

// read returns the bytes of a part.
func (s *Set) read(ctx context.Context, bucket *objects.Bucket, p Part) ([]byte, error) {
	if p.Size > rowlog.MaxFileBytes {
		return nil, fmt.Errorf("%w: %d bytes; accepted: up to %d", ErrDamaged, p.Size, rowlog.MaxFileBytes)
	}
	data, err := bucket.Read(ctx, Prefix+s.Day+"/"+p.Name)
	switch {
	case errors.Is(err, objects.ErrNotFound):
		return nil, fmt.Errorf("%w: it is read again by the same command: %w", ErrChanged, err)
	case err != nil:
		return nil, err
	case int64(len(data)) != p.Size:
		return nil, fmt.Errorf("%w: %d bytes, the set says %d", ErrDamaged, len(data), p.Size)
	}
	return data, nil
}

func (s *Set) rows(ctx context.Context, bucket *objects.Bucket, p Part, yield func(*Row, error) bool) error {
	data, err := s.read(ctx, bucket, p)
	if err != nil {
		return err
	}
	n := int64(0)
	for r, err := range Decode(data) {
		if err != nil {
			return err
		}
		if r.Day != s.Day {
			return fmt.Errorf("%w: row %d is of the day %s, not of %s", ErrDamaged, n, r.Day, s.Day)
		}
		n++
		if !yield(r, nil) {
			return errStopped
		}
	}
	if n != p.Rows {
		return fmt.Errorf("%w: %d rows, the set says %d", ErrDamaged, n, p.Rows)
	}
	return nil
}
