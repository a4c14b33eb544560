package feedback

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// joiner is the version of how outcomes are joined, which sets name.
const joiner = 1

// Bounds and defaults of a join.
const (
	DefaultWindow = 24 * time.Hour
	DefaultLate   = 72 * time.Hour
	DefaultMemory = 512 << 20
	LeastMemory   = 64 << 10
	MaxWindow     = 31 * 24 * time.Hour
	MaxNegatives  = 100
)

// JoinOptions say what is joined.
type JoinOptions struct {
	// Day is a time on the day, in UTC.
	Day time.Time
	// Window is how long after an exposure an outcome may be.
	Window time.Duration
	// Late is how long after the window objects with queries and outcomes may be written.
	Late time.Duration
	// Memory is about how many bytes are taken beside one object of a log and one part.
	Memory int64
	// Dir is where rows are spilled; empty for the system's folder of temporary files.
	Dir string
	// SkipDamaged has a damaged object count up to the damage, and be named in the set; without it
	// it is an error.
	SkipDamaged bool
	// Negatives is how many candidates of each request of the day are drawn that were eligible and
	// not served, and Eligible draws them: fewer where there are fewer, and none where known is
	// false, as of a snapshot that is not there any more. It is nil if none are drawn.
	Negatives int
	Eligible  func(ctx context.Context, q *querylog.Query, n int) (list []querylog.Candidate, known bool, err error)
	// Again has it joined though nothing has changed.
	Again bool
	// Now is the time, which the set names.
	Now time.Time
	// PartBytes is about how many bytes of memory the rows of a part take. 0: 48 MiB.
	PartBytes int
}

// partBytes is small enough that a part is read within the bounds of package rowlog.
const partBytes = 48 << 20

// Validate returns an error unless the options make sense. It names the field.
func (o *JoinOptions) Validate() error {
	switch {
	case o.Day.IsZero():
		return errors.New("day is not given")
	case o.Window <= 0 || o.Window > MaxWindow:
		return fmt.Errorf("window is %s; accepted: more than 0, up to %s", o.Window, MaxWindow)
	case o.Late < 0:
		return fmt.Errorf("late is %s; accepted: at least 0", o.Late)
	case o.Memory < LeastMemory:
		return fmt.Errorf("memory is %d bytes; accepted: at least %d", o.Memory, LeastMemory)
	case o.Negatives < 0 || o.Negatives > MaxNegatives:
		return fmt.Errorf("negatives is %d; accepted: 0 to %d", o.Negatives, MaxNegatives)
	case o.PartBytes < 0 || o.PartBytes > partBytes:
		return fmt.Errorf("part bytes are %d; accepted: 0 to %d", o.PartBytes, partBytes)
	}
	return nil
}

// Joined is what a join has done.
type Joined struct {
	Set *joined.Set
	// Fresh is whether there was something new, and Changed whether the rows are others than
	// before.
	Fresh, Changed bool
}

// Records of spilled rows. Times are in microseconds.
type (
	candidate struct {
		_          struct{} `cbor:",toarray"`
		ID         string
		Score      float32
		Team       string
		Propensity float32
	}
	// exposure is an answer, of the day with all of it, else with what outcomes are joined by.
	exposure struct {
		_         struct{} `cbor:",toarray"`
		Seq       int64    // its place among all that were read
		Time      int64
		RequestID string
		UserID    string
		Shown     []candidate
		Next      []candidate
		Eligible  []candidate
		Answer    *answer // nil of another day
	}
	// answer is what rows have of a request.
	answer struct {
		_                                                      struct{} `cbor:",toarray"`
		RequestKey, QueryAppID, Arm, Model, ModelVersion       string
		Snapshot, Plan, Fallback, LiveLog, Experiment, Variant string
		Segment, Tower                                         string
		K, Generation, Eligible, LiveSequence                  int64
		Coverage                                               float64
		Explored                                               bool
	}
	outcome struct {
		_                                  struct{} `cbor:",toarray"`
		ID, RequestID, UserID, AppID, Kind string
		Value                              float64
		HasValue                           bool
		Time, Received                     int64
		Object, Row                        int   // where it was
		Seq                                int64 // of the answer that it is of, if Found
		Found                              bool
	}
)

// join is a join under way.
type join struct {
	JoinOptions
	bucket     *objects.Bucket
	day        string
	begin, end int64 // of the day
	from, to   int64 // of times that matter
	counts     joined.Counts

	byID, userExposures, userOutcomes, exposures, outcomes *spill
	out                                                    *parts
}

// Join joins the exposures of a day with outcomes and writes the set of the day. Nothing is done
// if what there is to be read is what the set of the day was made of. It is right to run it again,
// whenever it has ended, and it may be killed at any time. Of two at a time on one day the set is
// that of one of them; if it lacks a part, both say so or the next one mends it.
func Join(ctx context.Context, bucket *objects.Bucket, o JoinOptions) (*Joined, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	day := o.Day.UTC().Truncate(24 * time.Hour)
	j := &join{JoinOptions: o, bucket: bucket, day: joined.DayOf(day)}
	if j.PartBytes == 0 {
		j.PartBytes = partBytes
	}
	if j.Dir == "" {
		j.Dir = os.TempDir()
	}
	done, err := j.run(ctx, day)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", j.day, err)
	}
	return done, nil
}

func (j *join) run(ctx context.Context, day time.Time) (*Joined, error) {
	from, to := day.Add(-j.Window), day.Add(24*time.Hour+j.Window)
	j.begin, j.end = day.UnixMicro(), day.Add(24*time.Hour).UnixMicro()
	j.from, j.to = from.UnixMicro(), to.UnixMicro()
	queries, err := list(ctx, j.bucket, querylog.Prefix, from.Add(-rowlog.ClockSlack), to.Add(j.Late))
	if err != nil {
		return nil, err
	}
	// What was sent again counts once: its first sending may have been before the window.
	acts, err := list(ctx, j.bucket, outcomes.Prefix, from.Add(-outcomes.MaxAhead-rowlog.ClockSlack), to.Add(j.Late))
	if err != nil {
		return nil, err
	}
	last, err := j.last(ctx)
	if err != nil {
		return nil, err
	}
	if !j.Again && last != nil {
		same, err := j.same(ctx, last, queries, acts)
		if err != nil || same {
			return &Joined{Set: last}, err
		}
	}
	spills := []**spill{&j.byID, &j.userExposures, &j.userOutcomes, &j.exposures, &j.outcomes}
	for _, s := range spills {
		*s = newSpill(j.Dir, j.Memory)
	}
	defer func() {
		for _, s := range spills {
			(*s).close()
		}
	}()
	if err := each(ctx, j.bucket, acts, outcomes.ErrDamaged, j.SkipDamaged, outcomes.Decode, j.takeOutcome); err != nil {
		return nil, err
	}
	seq := int64(0)
	if err := each(ctx, j.bucket, queries, querylog.ErrDamaged, j.SkipDamaged, querylog.Decode, func(_, _ int, q *querylog.Query) error {
		seq++
		return j.takeQuery(ctx, seq, q)
	}); err != nil {
		return nil, err
	}
	j.out = &parts{join: j, last: last}
	if err := j.resolve(ctx); err != nil {
		return nil, err
	}
	return j.out.publish(ctx, queries, acts)
}

// takeOutcome takes in an outcome. All are taken in, whenever they were: which of one id counts
// does not depend on the day.
func (j *join) takeOutcome(object, row int, o *outcomes.Outcome) error {
	return j.byID.add(o.ID, &outcome{
		ID: o.ID, RequestID: o.RequestID, UserID: o.UserID, AppID: o.AppID, Kind: o.Kind, Value: o.Value, HasValue: o.HasValue,
		Time: o.Time.UnixMicro(), Received: o.Received.UnixMicro(), Object: object, Row: row,
	})
}

// takeQuery takes in an answer.
func (j *join) takeQuery(ctx context.Context, seq int64, q *querylog.Query) error {
	e := &exposure{Seq: seq, Time: q.Time.UnixMicro(), RequestID: q.RequestID, UserID: q.UserID}
	if e.Time < j.from || e.Time >= j.to {
		return nil
	}
	ofDay := e.Time >= j.begin && e.Time < j.end
	if q.Tower == shard.Users {
		if ofDay {
			j.counts.NotApps++
		}
		return nil
	}
	for _, c := range q.Candidates {
		e.Shown = append(e.Shown, candidate{ID: c.ID})
	}
	if e.UserID != "" {
		if err := j.userExposures.add(e.UserID, e); err != nil {
			return err
		}
	}
	if ofDay {
		for i, c := range q.Candidates {
			e.Shown[i] = candidate{ID: c.ID, Score: c.Score, Team: c.Team, Propensity: c.Propensity}
		}
		for _, c := range q.Next {
			e.Next = append(e.Next, candidate{ID: c.ID, Score: c.Score})
		}
		if err := j.eligible(ctx, q, e); err != nil {
			return err
		}
		e.Answer = &answer{
			RequestKey: q.RequestKey, QueryAppID: q.AppID, Arm: q.Arm, Model: q.Model, ModelVersion: q.ModelVersion,
			Snapshot: q.Snapshot, Plan: q.Plan, Fallback: q.Fallback, LiveLog: q.LiveLog, Experiment: q.Experiment, Variant: q.Variant,
			Segment: q.Segment, Tower: string(q.Tower), K: q.K, Generation: q.Generation, Eligible: q.Eligible,
			LiveSequence: q.LiveSequence, Coverage: q.Coverage, Explored: q.Explored,
		}
	}
	return j.exposures.add(e.RequestID, e)
}

// eligible draws candidates that were eligible and are not in the answer, nor among the next.
func (j *join) eligible(ctx context.Context, q *querylog.Query, e *exposure) error {
	if j.Negatives == 0 {
		return nil
	}
	list, known, err := j.Eligible(ctx, q, j.Negatives)
	if err != nil {
		return fmt.Errorf("draw eligible apps of the request %.128q: %w", q.RequestID, err)
	}
	switch {
	case !known:
		j.counts.EligibleUnknown++
	case len(list) < j.Negatives:
		j.counts.EligibleShort++
	}
	for _, c := range list {
		e.Eligible = append(e.Eligible, candidate{ID: c.ID, Score: c.Score})
	}
	return nil
}

// resolve makes ids unique, finds which answers outcomes are of, and writes rows.
func (j *join) resolve(ctx context.Context) error {
	for _, step := range []struct {
		what   string
		spills []*spill
		do     func(files []*spillPart) error
	}{
		{"outcome id", []*spill{j.byID}, j.unique},
		{"user id", []*spill{j.userExposures, j.userOutcomes}, j.ofUsers},
		{"request id", []*spill{j.exposures, j.outcomes}, func(files []*spillPart) error { return j.ofRequests(ctx, files) }},
	} {
		if err := together(step.what, j.Memory, step.spills, func(files []*spillPart) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return step.do(files)
		}); err != nil {
			return err
		}
	}
	return j.out.end(ctx)
}

// unique takes the first received of the outcomes of each id.
func (j *join) unique(files []*spillPart) error {
	list, err := records[outcome](files[0])
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b outcome) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Received, b.Received), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Row, b.Row))
	})
	first := 0
	for i := range list {
		o := &list[i]
		if i > 0 && o.ID == list[first].ID {
			j.counts.Repeated++
			if o.differs(&list[first]) {
				j.counts.Differing++
			}
			continue
		}
		first = i
		if o.Time < j.from || o.Time >= j.to {
			continue
		}
		if j.ofDay(o) {
			j.counts.OfDay++
		}
		to, key := j.userOutcomes, o.UserID
		if o.RequestID != "" {
			to, key = j.outcomes, o.RequestID
		}
		if err := to.add(key, o); err != nil {
			return err
		}
	}
	return nil
}

// differs reports whether an outcome says something else than the other one of its id. A time that
// is when it was received was not given.
func (o *outcome) differs(p *outcome) bool {
	arrived := o.Time == o.Received && p.Time == p.Received
	return o.RequestID != p.RequestID || o.UserID != p.UserID || o.AppID != p.AppID || o.Kind != p.Kind ||
		o.Value != p.Value || o.HasValue != p.HasValue || !arrived && o.Time != p.Time
}

func (j *join) ofDay(o *outcome) bool { return o.Time >= j.begin && o.Time < j.end }

// place is a user, or a request, and an app.
type place struct{ key, app string }

// ofUsers finds the answers of outcomes that name no request.
func (j *join) ofUsers(files []*spillPart) error {
	list, err := records[outcome](files[1])
	if err != nil || len(list) == 0 {
		return err
	}
	answers, err := records[exposure](files[0])
	if err != nil {
		return err
	}
	at := index(answers, func(e *exposure) string { return e.UserID })
	for i := range list {
		o := &list[i]
		e := latest(at[place{o.UserID, o.AppID}], o.Time)
		if e == nil || o.Time-e.Time > j.Window.Microseconds() {
			if j.ofDay(o) {
				j.counts.NoExposure++
			}
			continue
		}
		o.Seq, o.Found, o.RequestID = e.Seq, true, e.RequestID
		if err := j.outcomes.add(o.RequestID, o); err != nil {
			return err
		}
	}
	return nil
}

// index returns where apps were shown, in the order of time.
func index(answers []exposure, key func(*exposure) string) map[place][]*exposure {
	slices.SortFunc(answers, byTime)
	at := map[place][]*exposure{}
	for i := range answers {
		e := &answers[i]
		for _, c := range e.Shown {
			p := place{key(e), c.ID}
			if had := at[p]; len(had) == 0 || had[len(had)-1] != e {
				at[p] = append(had, e)
			}
		}
	}
	return at
}

func byTime(a, b exposure) int {
	return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.RequestID, b.RequestID), cmp.Compare(a.Seq, b.Seq))
}

// latest returns the last of some answers that is not later than a time, nil if all are.
func latest(answers []*exposure, at int64) *exposure {
	n, _ := slices.BinarySearchFunc(answers, at+1, func(e *exposure, t int64) int { return cmp.Compare(e.Time, t) })
	if n == 0 {
		return nil
	}
	return answers[n-1]
}

// ofRequests finds the answers of outcomes that name a request, and writes the rows of the day.
func (j *join) ofRequests(ctx context.Context, files []*spillPart) error {
	answers, err := records[exposure](files[0])
	if err != nil {
		return err
	}
	list, err := records[outcome](files[1])
	if err != nil {
		return err
	}
	at := index(answers, func(e *exposure) string { return e.RequestID })
	known, bySeq := map[string]bool{}, map[int64]*exposure{}
	for i := range answers {
		known[answers[i].RequestID] = true
		bySeq[answers[i].Seq] = &answers[i]
	}
	of := map[int64][]outcome{} // by the answer
	for _, o := range list {
		e := bySeq[o.Seq]
		if !o.Found {
			e = j.named(at[place{o.RequestID, o.AppID}], &o, known[o.RequestID])
		}
		if e == nil {
			continue
		}
		switch {
		case !j.ofDay(&o):
		case e.Answer != nil:
			j.counts.ToDay++
		default:
			j.counts.ToOther++
		}
		if e.Answer != nil {
			j.counts.Joined++
			of[e.Seq] = append(of[e.Seq], o)
		}
	}
	for i := range answers {
		if e := &answers[i]; e.Answer != nil {
			if err := j.out.add(ctx, j.rows(e, of[e.Seq])); err != nil {
				return err
			}
		}
	}
	return nil
}

// named returns the answer of an outcome that names its request, nil if there is none: of several
// that were recorded under one id the last before it, or else the first.
func (j *join) named(answers []*exposure, o *outcome, known bool) *exposure {
	e := latest(answers, o.Time)
	if e == nil && len(answers) > 0 {
		e = answers[0] // clocks of callers are set
	}
	reason := &j.counts.NoRequest
	switch {
	case e != nil && max(o.Time-e.Time, e.Time-o.Time) <= j.Window.Microseconds():
		return e
	case e != nil:
		reason = &j.counts.Outside
	case known:
		reason = &j.counts.NotShown
	}
	if j.ofDay(o) {
		*reason++
	}
	return nil
}

// rows returns the rows of an answer.
func (j *join) rows(e *exposure, list []outcome) []joined.Row {
	a := e.Answer
	blank := joined.Row{
		Time: time.UnixMicro(e.Time).UTC(), Day: j.day, RequestID: e.RequestID, UserID: e.UserID, RequestKey: a.RequestKey,
		QueryAppID: a.QueryAppID, K: a.K, Arm: a.Arm, Generation: a.Generation, Model: a.Model, ModelVersion: a.ModelVersion,
		Snapshot: a.Snapshot, Plan: a.Plan, Fallback: a.Fallback, Eligible: a.Eligible, Coverage: a.Coverage,
		LiveLog: a.LiveLog, LiveSequence: a.LiveSequence, Experiment: a.Experiment, Variant: a.Variant,
		Segment: a.Segment, Tower: a.Tower, Explored: a.Explored,
	}
	j.counts.Requests++
	if len(e.Shown) == 0 {
		j.counts.Empty++
		blank.Role = joined.RoleEmpty
		rows := []joined.Row{blank}
		blank.Role = joined.RoleNext
		return append(rows, j.next(blank, e)...)
	}
	rows := make([]joined.Row, 0, len(e.Shown)+len(e.Next))
	at := map[string]int{}
	for i, c := range e.Shown {
		r := blank
		r.Role, r.AppID, r.Score, r.Rank, r.Team, r.Propensity = joined.RoleShown, c.ID, c.Score, int64(i+1), c.Team, c.Propensity
		if _, there := at[c.ID]; !there {
			at[c.ID] = i
		}
		rows = append(rows, r)
	}
	j.counts.Shown += int64(len(rows))
	// Sums of floats are of one order.
	slices.SortFunc(list, func(a, b outcome) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.ID, b.ID)) })
	for i := range list {
		j.count(&rows[at[list[i].AppID]], &list[i])
	}
	for i := range rows {
		slices.SortFunc(rows[i].Own, func(a, b joined.Own) int { return cmp.Compare(a.Kind, b.Kind) })
	}
	blank.Role = joined.RoleNext
	return append(rows, j.next(blank, e)...)
}

// next returns the rows of those that would have come next, and of those that were eligible.
func (j *join) next(blank joined.Row, e *exposure) []joined.Row {
	rows := make([]joined.Row, len(e.Next))
	for i, c := range e.Next {
		rows[i] = blank
		rows[i].AppID, rows[i].Score, rows[i].Rank = c.ID, c.Score, int64(len(e.Shown)+i+1)
	}
	j.counts.Next += int64(len(rows))
	blank.Role = joined.RoleEligible
	for _, c := range e.Eligible {
		r := blank
		r.AppID, r.Score = c.ID, c.Score
		rows = append(rows, r)
	}
	j.counts.Eligible += int64(len(e.Eligible))
	return rows
}

// count counts an outcome in its row. Outcomes come in the order of time.
func (j *join) count(r *joined.Row, o *outcome) {
	at := time.UnixMicro(o.Time).UTC()
	first := func(n *int64, t *time.Time) {
		if *n++; *n == 1 {
			*t = at
		}
	}
	switch o.Kind {
	case outcomes.KindImpression:
		first(&r.Impressions, &r.FirstImpression)
	case outcomes.KindOpen:
		first(&r.Opens, &r.FirstOpen)
	case outcomes.KindInstall:
		first(&r.Installs, &r.FirstInstall)
	case outcomes.KindHide:
		first(&r.Hides, &r.FirstHide)
	case outcomes.KindReport:
		first(&r.Reports, &r.FirstReport)
	case outcomes.KindPlayTime:
		first(&r.PlayTimes, &r.FirstPlayTime)
		if !o.HasValue {
			j.counts.Valueless++
		}
		r.PlayTime += o.Value
	default:
		i := slices.IndexFunc(r.Own, func(w joined.Own) bool { return w.Kind == o.Kind })
		if i < 0 {
			if len(r.Own) == joined.MaxOwn {
				j.counts.KindsLeftOut++
				return
			}
			i, r.Own = len(r.Own), append(r.Own, joined.Own{Kind: o.Kind})
		}
		r.Own[i].Count++
		r.Own[i].Value += o.Value
	}
}
