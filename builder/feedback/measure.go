package feedback

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/outcomes"
)

// MeasureOptions say what is measured.
type MeasureOptions struct {
	Days []time.Time
	// K are the ranks up to which an answer can be a hit, ascending.
	K []int
	// Hits are the kinds of outcomes that make an exposure a hit.
	Hits []string
	// Memory is about how many bytes rows of users may take, and Dir where they are spilled, as
	// those of [JoinOptions].
	Memory int64
	Dir    string
	// Apps returns how many apps a snapshot serves, false if that is not known. Nil: of none.
	Apps func(ctx context.Context, snapshot string) (n int64, known bool, err error)
	// Target are answers of another policy, which is evaluated on what was logged; of one request
	// the first counts. It ends with its first error. Nil: there is none.
	Target iter.Seq2[*Target, error]
}

// DefaultHits are the kinds that make an exposure a hit.
var DefaultHits = []string{outcomes.KindOpen, outcomes.KindInstall, outcomes.KindPlayTime}

// maxKs is how many k are measured.
const maxKs = 32

// Validate returns an error unless the options make sense. It names the field.
func (o *MeasureOptions) Validate() error {
	switch {
	case len(o.Days) == 0:
		return errors.New("day is not given")
	case len(o.K) == 0 || len(o.K) > maxKs:
		return fmt.Errorf("k has %d numbers; accepted: 1 to %d", len(o.K), maxKs)
	case !slices.IsSorted(o.K) || o.K[0] < 1:
		return fmt.Errorf("k is %v; accepted: numbers from 1 on that ascend", o.K)
	case o.Memory < LeastMemory:
		return fmt.Errorf("memory is %d bytes; accepted: at least %d", o.Memory, LeastMemory)
	}
	return checkHits(o.Hits)
}

// Report is what joined sets say. The names of its JSON fields are stable. Intervals are nil where
// there are fewer than two users.
type Report struct {
	Days     []DayReport `json:"days"`
	Hits     []string    `json:"hits"` // the kinds
	Requests int64       `json:"requests"`
	Empty    int64       `json:"empty_requests"`
	Shown    int64       `json:"exposures"`
	Users    int64       `json:"users"` // or keys of requests, or requests, where no user is named
	// HitRates and Groups have all of it first, then each arm, each segment, and Groups each rank
	// and each team.
	HitRates  []HitRate   `json:"hit_rates"`
	Groups    []Group     `json:"groups"`
	Snapshots []Catalogue `json:"snapshots"`
	Verdicts  []Verdict   `json:"interleaving"`
	OffPolicy OffPolicy   `json:"off_policy"`
}

// DayReport is a day.
type DayReport struct {
	Day        string `json:"day"`
	Generation int    `json:"generation"`
	Exposures  int64  `json:"exposures"`
	Apps       int64  `json:"apps_shown"`
	// Gini is how uneven exposures are among the apps that were shown: 0 if all are shown as
	// often, towards 1 if one is shown always.
	Gini float64 `json:"gini"`
}

// HitRate is the share of requests of which one of the first k was a hit.
type HitRate struct {
	By       string    `json:"by"` // all, arm, segment
	Name     string    `json:"name"`
	K        int       `json:"k"`
	Requests int64     `json:"requests"`
	Hits     int64     `json:"hits"`
	Rate     float64   `json:"rate"`
	Interval *Interval `json:"interval"`
}

// Group is what became of some exposures.
type Group struct {
	By        string    `json:"by"` // all, arm, segment, rank, team
	Name      string    `json:"name"`
	Exposures int64     `json:"exposures"`
	Users     int64     `json:"users"`
	Hits      int64     `json:"hits"`
	Rate      float64   `json:"rate"` // hits of exposures
	Interval  *Interval `json:"interval"`
	// PlayTime is the mean of the seconds of play time over exposures.
	PlayTime         float64   `json:"play_time"`
	PlayTimeInterval *Interval `json:"play_time_interval"`
}

// Catalogue is how much of a snapshot was shown.
type Catalogue struct {
	Snapshot  string `json:"snapshot"`
	Exposures int64  `json:"exposures"`
	Shown     int64  `json:"apps_shown"`
	// Apps is how many apps it serves, nil if that is not known, such as of a snapshot that is
	// not there any more; then there is no Starved and no Coverage. Apps that came since are shown
	// and not counted here, so that there may be fewer than were shown.
	Apps     *int64   `json:"apps"`
	Starved  *int64   `json:"apps_never_shown"`
	Coverage *float64 `json:"coverage"`
}

// Records of spilled requests.
type (
	act struct {
		_       struct{} `cbor:",toarray"`
		Rank    int64
		Hit     bool
		Seconds float64
	}
	request struct {
		_            struct{} `cbor:",toarray"`
		User         string
		Arm, Segment string
		Shown        int64 // of ranks 1 on
		Acts         []act
		Teams        []string // of each rank; nil unless the answer was interleaved
		Explored     *explored
	}
	group struct{ by, name string }
	rated struct {
		group
		k int
	}
)

// measure is a report under way.
type measure struct {
	MeasureOptions
	report *Report
	spill  *spill
	now    *request // that rows are of
	day    map[uint64]int64
	shown  map[string]map[uint64]struct{} // by snapshot, apps as hashes
	seen   map[string]int64

	groups map[group]*sums
	rates  map[rated]*sums
	teams  map[[2]string]*tally
	logged *logged
	target *targets // nil if there is none
	user   struct { // of the user at hand
		groups map[group]*[2]int64
		values map[group]float64
		rates  map[rated]*[2]int64
	}
}

// Measure reports on the joined sets of some days, each of which must have been joined. It holds
// what it counts of each app, rank, arm and segment, and rows of users within the memory given.
func Measure(ctx context.Context, bucket *objects.Bucket, o MeasureOptions) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	m := &measure{
		MeasureOptions: o, report: &Report{Hits: o.Hits}, spill: newSpill(o.Dir, o.Memory),
		shown: map[string]map[uint64]struct{}{}, seen: map[string]int64{}, groups: map[group]*sums{}, rates: map[rated]*sums{}, teams: map[[2]string]*tally{},
		logged: newLogged(),
	}
	defer m.spill.close()
	if o.Target != nil {
		m.target = newTargets(o.Dir, o.Memory)
		defer m.target.close()
		if err := m.target.read(o.Target); err != nil {
			return nil, err
		}
	}
	for _, day := range o.Days {
		if err := m.read(ctx, bucket, joined.DayOf(day)); err != nil {
			return nil, err
		}
	}
	m.logged.settle()
	if m.target != nil {
		if err := m.target.join(ctx, m.logged, m.spill.add); err != nil {
			return nil, err
		}
	}
	if err := together("user", m.Memory, []*spill{m.spill}, func(files []*spillPart) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return m.users(files[0])
	}); err != nil {
		return nil, err
	}
	if err := m.catalogues(ctx); err != nil {
		return nil, err
	}
	m.finish()
	return m.report, nil
}

// read takes in a day.
func (m *measure) read(ctx context.Context, bucket *objects.Bucket, day string) error {
	s, err := readDay(ctx, bucket, day)
	if err != nil {
		return err
	}
	m.day = map[uint64]int64{}
	d := DayReport{Day: day, Generation: s.Generation}
	for r, err := range s.Rows(ctx, bucket) {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = m.row(r, &d)
		}
		if err != nil {
			return err
		}
	}
	if err := m.flush(); err != nil {
		return err
	}
	d.Apps, d.Gini = int64(len(m.day)), gini(m.day)
	m.report.Days = append(m.report.Days, d)
	return nil
}

// row takes in a row. Those of a request follow one another.
func (m *measure) row(r *joined.Row, d *DayReport) error {
	if r.Role == joined.RoleNext {
		if m.target != nil && m.now != nil {
			m.target.next = append(m.target.next, r.AppID)
		}
		return nil
	}
	if r.Role == joined.RoleEligible {
		return nil
	}
	if r.Rank <= 1 { // of another request
		if err := m.flush(); err != nil {
			return err
		}
		m.report.Requests++
		m.now = &request{User: unit(r), Arm: r.Arm, Segment: r.Segment, Explored: newExplored(r)}
		if m.target != nil {
			m.target.begin(r.RequestID)
		}
	}
	if r.Role == joined.RoleEmpty {
		m.report.Empty++
		return nil
	}
	if m.now == nil || r.Rank != m.now.Shown+1 {
		return fmt.Errorf("%w: rank %d of the request %.128q follows none before it", joined.ErrDamaged, r.Rank, r.RequestID)
	}
	m.now.Shown++
	d.Exposures++
	m.report.Shown++
	app := xxhash.Sum64String(r.AppID)
	m.day[app]++
	apps := m.shown[r.Snapshot]
	if apps == nil {
		apps = map[uint64]struct{}{}
		m.shown[r.Snapshot] = apps
	}
	apps[app] = struct{}{}
	m.seen[r.Snapshot]++
	m.now.Explored = m.now.Explored.with(r)
	if m.target != nil {
		m.target.shown = append(m.target.shown, r.AppID)
	}
	if r.Team != "" {
		m.now.Teams = append(m.now.Teams, r.Team)
	}
	if hit := m.hit(r); hit || r.PlayTime != 0 {
		m.now.Acts = append(m.now.Acts, act{Rank: r.Rank, Hit: hit, Seconds: r.PlayTime})
	}
	return nil
}

// unit returns whose request a row is of, in a form in which users, keys and requests differ.
func unit(r *joined.Row) string {
	switch {
	case r.UserID != "":
		return "u" + r.UserID
	case r.RequestKey != "":
		return "k" + r.RequestKey
	}
	return "r" + r.RequestID
}

func (m *measure) hit(r *joined.Row) bool { return isHit(r, m.Hits) }

// isHit reports whether an exposure has an outcome of some kinds.
func isHit(r *joined.Row, kinds []string) bool {
	for _, kind := range kinds {
		n := int64(0)
		switch kind {
		case outcomes.KindImpression:
			n = r.Impressions
		case outcomes.KindOpen:
			n = r.Opens
		case outcomes.KindInstall:
			n = r.Installs
		case outcomes.KindPlayTime:
			n = r.PlayTimes
		case outcomes.KindHide:
			n = r.Hides
		case outcomes.KindReport:
			n = r.Reports
		default:
			if i := slices.IndexFunc(r.Own, func(o joined.Own) bool { return o.Kind == kind }); i >= 0 {
				n = r.Own[i].Count
			}
		}
		if n > 0 {
			return true
		}
	}
	return false
}

// flush spills the request that has ended.
func (m *measure) flush() error {
	if m.now == nil {
		return nil
	}
	r := m.now
	m.now = nil
	m.logged.take(r)
	if m.target != nil && r.Explored != nil {
		return m.target.add(m.logged, r)
	}
	return m.spill.add(r.User, r)
}

// users counts the requests of some users.
func (m *measure) users(file *spillPart) error {
	list, err := records[request](file)
	if err != nil {
		return err
	}
	slices.SortStableFunc(list, byUser)
	for some := range eachUser(list) {
		m.oneUser(some)
	}
	return nil
}

func byUser(a, b request) int { return cmp.Compare(a.User, b.User) }

// eachUser returns the requests of each user, of requests in the order of users.
func eachUser(list []request) iter.Seq[[]request] {
	return func(yield func([]request) bool) {
		for len(list) > 0 {
			n := 1
			for n < len(list) && list[n].User == list[0].User {
				n++
			}
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

func (m *measure) oneUser(list []request) {
	u := &m.user
	u.groups, u.values, u.rates = map[group]*[2]int64{}, map[group]float64{}, map[rated]*[2]int64{}
	m.report.Users++
	for i := range list {
		m.request(&list[i])
	}
	for g, n := range u.groups {
		at(m.groups, g).add(n[0], n[1], u.values[g])
	}
	for g, n := range u.rates {
		at(m.rates, g).add(n[0], n[1], 0)
	}
	m.credit(list)
	m.logged.user(list)
}

// at returns what a map has under a key, and puts it there first if it is not.
func at[K comparable, V any](all map[K]*V, key K) *V {
	v := all[key]
	if v == nil {
		v = new(V)
		all[key] = v
	}
	return v
}

// arm is the name of the arm of a request.
func (r *request) arm() string {
	if r.Arm == "" && r.Teams != nil {
		return "interleaved"
	}
	return r.Arm
}

// request counts a request of the user at hand.
func (m *measure) request(r *request) {
	u := &m.user
	of := []group{{"all", ""}, {"arm", r.arm()}, {"segment", r.Segment}}
	first := int64(0) // rank of the first hit
	for _, a := range r.Acts {
		if a.Hit && first == 0 {
			first = a.Rank
		}
	}
	for _, g := range of {
		for _, k := range m.K {
			n := at(u.rates, rated{g, k})
			n[0]++
			if first > 0 && first <= int64(k) {
				n[1]++
			}
		}
		at(u.groups, g)[0] += r.Shown
	}
	for rank := range r.Shown {
		at(u.groups, group{"rank", strconv.FormatInt(rank+1, 10)})[0]++
	}
	for _, team := range r.Teams {
		at(u.groups, group{"team", team})[0]++
	}
	for _, a := range r.Acts {
		hit := append(slices.Clone(of), group{"rank", strconv.FormatInt(a.Rank, 10)})
		if int64(len(r.Teams)) == r.Shown {
			hit = append(hit, group{"team", r.Teams[a.Rank-1]})
		}
		for _, g := range hit {
			if a.Hit {
				at(u.groups, g)[1]++
			}
			u.values[g] += a.Seconds
		}
	}
}

// catalogues says how much of each snapshot was shown.
func (m *measure) catalogues(ctx context.Context) error {
	for snapshot, apps := range m.shown {
		c := Catalogue{Snapshot: snapshot, Exposures: m.seen[snapshot], Shown: int64(len(apps))}
		if m.Apps != nil && snapshot != "" {
			n, known, err := m.Apps(ctx, snapshot)
			if err != nil {
				return err
			}
			if known && n > 0 {
				c.Apps, c.Starved, c.Coverage = new(n), new(max(n-c.Shown, 0)), new(min(float64(c.Shown)/float64(n), 1))
			}
		}
		m.report.Snapshots = append(m.report.Snapshots, c)
	}
	slices.SortFunc(m.report.Snapshots, func(a, b Catalogue) int { return cmp.Compare(a.Snapshot, b.Snapshot) })
	return nil
}

// order is that of groups in a report.
var order = []string{"all", "arm", "segment", "team", "rank"}

func (g group) compare(h group) int {
	number := func(s string) int { n, _ := strconv.Atoi(s); return n } // 0 unless it is a rank
	byRank := 0
	if g.by == "rank" && h.by == "rank" {
		byRank = cmp.Compare(number(g.name), number(h.name))
	}
	return cmp.Or(cmp.Compare(slices.Index(order, g.by), slices.Index(order, h.by)), byRank, cmp.Compare(g.name, h.name))
}

// finish puts what was counted in order.
func (m *measure) finish() {
	r := m.report
	for g, s := range m.groups {
		one := Group{By: g.by, Name: g.name, Exposures: s.trials, Users: s.users, Hits: s.hits}
		one.Rate, one.Interval = s.rate()
		one.PlayTime, one.PlayTimeInterval = s.mean()
		r.Groups = append(r.Groups, one)
	}
	for g, s := range m.rates {
		one := HitRate{By: g.by, Name: g.name, K: g.k, Requests: s.trials, Hits: s.hits}
		one.Rate, one.Interval = s.rate()
		r.HitRates = append(r.HitRates, one)
	}
	slices.SortFunc(r.Groups, func(a, b Group) int { return group{a.By, a.Name}.compare(group{b.By, b.Name}) })
	slices.SortFunc(r.HitRates, func(a, b HitRate) int {
		return cmp.Or(group{a.By, a.Name}.compare(group{b.By, b.Name}), cmp.Compare(a.K, b.K))
	})
	m.verdicts()
	r.OffPolicy = m.logged.report(m.target)
}

// gini returns the Gini coefficient of some counts, which are above 0.
func gini(counts map[uint64]int64) float64 {
	list := make([]int64, 0, len(counts))
	for _, n := range counts {
		list = append(list, n)
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	var sum, weighted float64
	for i, n := range list {
		sum += float64(n)
		weighted += float64(i+1) * float64(n)
	}
	n := float64(len(list))
	return 2*weighted/(n*sum) - (n+1)/n
}
