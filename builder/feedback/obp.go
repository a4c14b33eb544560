package feedback

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/outcomes"
)

// ErrNotLogged is the class of errors that say that nothing can be said of policies that were not
// served, since propensities are not there.
var ErrNotLogged = errors.New("nothing is known of what was not served")

// ExportOptions say what is exported.
type ExportOptions struct {
	Days []time.Time
	// Hits are the kinds of outcomes that make an exposure a hit, whose reward is 1.
	Hits []string
}

// Validate returns an error unless the options make sense. It names the field.
func (o *ExportOptions) Validate() error {
	if len(o.Days) == 0 {
		return errors.New("day is not given")
	}
	return checkHits(o.Hits)
}

// checkHits returns an error unless each text is a kind of outcomes, and there is one.
func checkHits(kinds []string) error {
	if len(kinds) == 0 {
		return errors.New("hit is not given; accepted: kinds of outcomes")
	}
	for _, kind := range kinds {
		if err := outcomes.CheckKind(kind); err != nil {
			return fmt.Errorf("hit: %w", err)
		}
	}
	return nil
}

// Exported is what was exported.
type Exported struct {
	Requests int64     `json:"requests"`
	Rounds   int64     `json:"rounds"`  // exposures
	Actions  int64     `json:"actions"` // apps
	Without  int64     `json:"requests_without_propensities"`
	LeftOut  []LeftOut `json:"generations_left_out,omitempty"`
}

// Columns of an export: those of the Open Bandit Dataset, and after them ours.
var (
	roundColumns = []string{
		"", "timestamp", "item_id", "position", "click", "propensity_score", "user_feature_0", "user_feature_1", "user_feature_2",
		"request_id", "expected", "ranked_probability", "ranked_expected", "drawn_probability", "drawn_expected",
	}
	itemColumns = []string{"", "item_id", "item_feature_0", "app_id"}
)

// none stands for a text that is empty, which readers of CSV take for a number that is missing.
const none = "none"

// Export writes the exposures of joined days that have propensities in the columns of the Open Bandit
// Dataset, which the Open Bandit Pipeline reads (Saito, Aihara, Matsutani, Narita, NeurIPS 2021):
// rounds, one for each place of each answer, to data, and apps, in the order of their numbers, to
// items. It reads each day twice. Memory is taken by the ids of apps. An error is of class
// [ErrNotLogged] where there is no round.
func Export(ctx context.Context, bucket *objects.Bucket, o ExportOptions, data, items io.Writer) (*Exported, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	sets := make([]*joined.Set, len(o.Days))
	for i, day := range o.Days {
		var err error
		if sets[i], err = readDay(ctx, bucket, joined.DayOf(day)); err != nil {
			return nil, err
		}
	}
	e := &export{ExportOptions: o, bucket: bucket, logged: newLogged(), apps: map[string]int64{}, rounds: csv.NewWriter(data), done: &Exported{}}
	if err := e.each(ctx, sets, func(r *request, _ []joined.Row) error {
		e.logged.take(r)
		return nil
	}); err != nil {
		return nil, err
	}
	e.logged.settle()
	told := e.logged.report(nil)
	if told.Refused != "" {
		return nil, fmt.Errorf("%w: %s", ErrNotLogged, told.Refused)
	}
	e.done.Without, e.done.LeftOut = told.Without, told.LeftOut
	if err := e.rounds.Write(roundColumns); err != nil {
		return nil, err
	}
	if err := e.each(ctx, sets, e.answer); err != nil {
		return nil, err
	}
	e.rounds.Flush()
	if err := e.rounds.Error(); err != nil {
		return nil, err
	}
	return e.done, e.items(items)
}

// readDay returns the set of a day.
func readDay(ctx context.Context, bucket *objects.Bucket, day string) (*joined.Set, error) {
	s, err := joined.Read(ctx, bucket, day)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, fmt.Errorf("the day %s is not joined: %w", day, err)
	}
	return s, err
}

// export is an Export under way.
type export struct {
	ExportOptions
	bucket *objects.Bucket
	logged *logged
	apps   map[string]int64 // their numbers
	names  []string         // by number
	shown  []int64          // how often each was
	rounds *csv.Writer
	done   *Exported
}

// each calls do with each answer that has candidates, and its rows.
func (e *export) each(ctx context.Context, sets []*joined.Set, do func(r *request, rows []joined.Row) error) error {
	for _, s := range sets {
		var now *request
		var rows []joined.Row
		end := func() error {
			if now == nil {
				return nil
			}
			r := now
			now = nil
			return do(r, rows)
		}
		for row, err := range s.Rows(ctx, e.bucket) {
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			if row.Role != joined.RoleShown {
				continue
			}
			if row.Rank == 1 {
				if err := end(); err != nil {
					return err
				}
				now, rows = &request{User: unit(row), Arm: row.Arm, Explored: newExplored(row)}, rows[:0]
			}
			if now == nil || row.Rank != now.Shown+1 {
				return fmt.Errorf("%w: rank %d of the request %.128q follows none before it", joined.ErrDamaged, row.Rank, row.RequestID)
			}
			now.Shown++
			now.Explored = now.Explored.with(row)
			if isHit(row, e.Hits) {
				now.Acts = append(now.Acts, act{Rank: row.Rank, Hit: true})
			}
			rows = append(rows, *row)
		}
		if err := end(); err != nil {
			return err
		}
	}
	return nil
}

// answer writes the rounds of an answer.
func (e *export) answer(r *request, rows []joined.Row) error {
	x, l := r.Explored, e.logged
	if x == nil || l.generations[x.Generation].refused() != "" {
		return nil
	}
	e.done.Requests++
	of, hits := fold(r.User), r.hits()
	for place := range rows {
		row := &rows[place]
		click := "0"
		if hits[place] {
			click = "1"
		}
		line := []string{
			strconv.FormatInt(e.done.Rounds, 10), row.Time.Format("2006-01-02 15:04:05.000000-07:00"), strconv.FormatInt(e.action(row.AppID), 10),
			strconv.Itoa(place + 1), click, number(float64(x.Propensities[place])), text(row.Segment), text(row.Arm), text(row.Variant),
			row.RequestID, number(l.expect(of, place, x.class(place))),
		}
		for _, p := range []policy{rankedPolicy, drawnPolicy} {
			t := l.weigh(p, x, place)
			line = append(line, number(t.weight*float64(x.Propensities[place])), number(l.expect(of, place, t.serves)))
		}
		if err := e.rounds.Write(line); err != nil {
			return err
		}
		e.done.Rounds++
	}
	return nil
}

// number is a number that is read back as it was.
func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

func text(s string) string {
	if s == "" {
		return none
	}
	return s
}

// action returns the number of an app that is shown once more.
func (e *export) action(app string) int64 {
	n, known := e.apps[app]
	if !known {
		n = int64(len(e.names))
		e.apps[app], e.names, e.shown = n, append(e.names, app), append(e.shown, 0)
		e.done.Actions++
	}
	e.shown[n]++
	return n
}

// items writes the apps.
func (e *export) items(to io.Writer) error {
	w := csv.NewWriter(to)
	err := w.Write(itemColumns)
	for i, app := range e.names {
		if err == nil {
			n := strconv.Itoa(i)
			err = w.Write([]string{n, n, strconv.FormatInt(e.shown[i], 10), app})
		}
	}
	w.Flush()
	return errors.Join(err, w.Error())
}
