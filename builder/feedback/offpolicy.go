package feedback

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// OffPolicy is what exposures that were served with some propensity say of policies that would have
// served others (Dudik, Langford, Li, Doubly Robust Policy Evaluation and Learning, ICML 2011; the
// self-normalised estimate: Swaminathan, Joachims, NIPS 2015). Each place of an answer is a trial of
// its own: what a user does with the app there is taken not to depend on the other places.
type OffPolicy struct {
	// Refused says why there are no estimates; empty if there are.
	Refused  string `json:"refused,omitempty"`
	Requests int64  `json:"requests"` // whose candidates have propensities
	Explored int64  `json:"explored_requests"`
	// Without is how many answers have no propensities: nothing of them could have been drawn.
	Without int64 `json:"requests_without_propensities"`
	// Unanswered is how many requests with propensities the target has no answer of, and Unknown
	// how many answers of the target are of requests that are not there, or have no propensities.
	// Both are 0 without a target.
	Unanswered int64 `json:"requests_not_in_target"`
	Unknown    int64 `json:"target_answers_not_used"`
	// LeftOut are generations of the release that tell nothing.
	LeftOut  []LeftOut `json:"generations_left_out,omitempty"`
	Policies []Policy  `json:"policies"`
}

// LeftOut is a generation of the release whose propensities tell nothing.
type LeftOut struct {
	Generation int64  `json:"generation"`
	Requests   int64  `json:"requests"`
	Why        string `json:"why"`
}

// Policies that are evaluated.
const (
	// PolicyRanked serves what ranks best, and draws nothing.
	PolicyRanked = "ranked"
	// PolicyDrawn draws the last places of each answer.
	PolicyDrawn = "drawn"
	// PolicyTarget serves the answers that were given as those of another one.
	PolicyTarget = "target"
)

type policy uint8

const (
	rankedPolicy policy = iota
	drawnPolicy
	targetPolicy
)

var policyNames = []string{PolicyRanked, PolicyDrawn, PolicyTarget}

// Policy is how many hits an exposure has if answers are by a policy. Its estimates are of the places
// that can be evaluated: those at which the policy has what could have been served.
type Policy struct {
	Policy string `json:"policy"`
	// Arm is whose answers are evaluated; All is those of all arms.
	Arm string `json:"arm"`
	All bool   `json:"all_arms"`
	// Exposures is how many places are evaluated, of how many users.
	Exposures int64 `json:"exposures"`
	Users     int64 `json:"users"`
	// NotEvaluable is how many places are not, and Share the share of such: the policy has an app
	// there that could not have been served, or nothing, or it is not known what could have been.
	// Places of drawn answers at which a target has none of those that are drawn are in neither,
	// and those of other answers stand for them, also in the share.
	NotEvaluable int64   `json:"exposures_not_evaluable"`
	Share        float64 `json:"share_not_evaluable"`
	// Effective is as how many exposures of the policy itself they count: the square of the sum of
	// their weights by the sum of the squares.
	Effective float64 `json:"effective_exposures"`
	// Logged is what was served at these places, and the others are estimates of what would have
	// been: by inverse propensities, those self-normalised, and doubly robust. They are nil where
	// no place is evaluated; SNIPS too where none has a weight. Intervals are of 95% confidence, by
	// user: normal, with the variance of the linearised ratio.
	Logged *Estimate `json:"logged"`
	IPS    *Estimate `json:"ips"`
	SNIPS  *Estimate `json:"snips"`
	DR     *Estimate `json:"dr"`
}

// Estimate is the hits of an exposure.
type Estimate struct {
	Value    float64   `json:"value"`
	Interval *Interval `json:"interval"` // nil for fewer than two users
}

// ratio is a sum by another one, over users.
type ratio struct {
	users         int64
	x, t          float64
	xx, xt, tt    float64
	mine, trialed float64 // of the user at hand
}

func (r *ratio) add(x, t float64) { r.mine, r.trialed = r.mine+x, r.trialed+t }

// end ends a user.
func (r *ratio) end() {
	x, t := r.mine, r.trialed
	r.users++
	r.x, r.t = r.x+x, r.t+t
	r.xx, r.xt, r.tt = r.xx+x*x, r.xt+x*t, r.tt+t*t
	r.mine, r.trialed = 0, 0
}

// estimate returns the ratio, nil of nothing.
func (r *ratio) estimate() *Estimate {
	if r.t == 0 {
		return nil
	}
	e := &Estimate{Value: r.x / r.t}
	if r.users > 1 {
		v := math.Max(r.xx-2*e.Value*r.xt+e.Value*e.Value*r.tt, 0) / (r.t * r.t) * float64(r.users) / float64(r.users-1)
		half := z * math.Sqrt(v)
		e.Interval = &Interval{e.Value - half, e.Value + half}
	}
	return e
}

// policySums is what the estimates of a policy come from.
type policySums struct {
	exposures, users, not  int64
	counted, notCounted    float64 // as many places as those stand for
	weights, squares       float64
	logged, ips, snips, dr ratio
	some                   bool // of the user at hand
}

// add adds a place: whether it has a hit, how much more likely the policy is to have served what was
// there, how many places it stands for, and what is expected of what was served and of what the policy
// serves.
func (s *policySums) add(hit bool, weight, count, logged, target float64) {
	reward := 0.0
	if hit {
		reward = 1
	}
	s.some = true
	s.exposures++
	s.counted += count
	s.weights, s.squares = s.weights+weight, s.squares+weight*weight
	s.logged.add(count*reward, count)
	s.ips.add(weight*reward, count)
	s.snips.add(weight*reward, weight)
	s.dr.add(count*target+weight*(reward-logged), count)
}

func (s *policySums) end() {
	if !s.some {
		return
	}
	s.some = false
	s.users++
	for _, r := range []*ratio{&s.logged, &s.ips, &s.snips, &s.dr} {
		r.end()
	}
}

// trial is a place of an answer, for a policy.
type trial struct {
	// weight is by how much the policy is likelier to serve what is there than what has served it
	// is, and count how many places this one stands for, 0 for one that is passed over.
	weight, count float64
	serves        class // where what the policy serves there is from
	ok            bool  // it can be evaluated
}

// weigh returns what a place is for a policy.
func (l *logged) weigh(p policy, e *explored, place int) trial {
	propensity := float64(e.Propensities[place])
	if p == targetPolicy {
		m := e.Target[place]
		t := trial{count: 1, ok: m&matchKnown != 0}
		if m&matchSkip != 0 {
			t.count = 0
		}
		if m&matchRanked != 0 {
			t.count = 1 / propensity
		}
		if m&matchDrawn != 0 {
			t.serves = drawn
		}
		if m&matchSame != 0 {
			t.weight = 1 / propensity
		}
		return t
	}
	if !e.open(place) {
		return trial{1, 1, ranked, true}
	}
	share := l.generations[e.Generation].share
	switch is := e.class(place); {
	case p == rankedPolicy && is == ranked:
		return trial{1 / propensity, 1, ranked, true}
	case p == rankedPolicy:
		return trial{0, 1, ranked, true}
	case is == drawn:
		return trial{1 / share, 1, drawn, true} // of as many candidates each is as likely
	}
	return trial{0, 1, drawn, true}
}

// user evaluates the answers of a user.
func (l *logged) user(list []request) {
	touched := map[*policySums]struct{}{}
	for i := range list {
		r := &list[i]
		e := r.Explored
		if e == nil || l.generations[e.Generation].refused() != "" {
			continue
		}
		of, hits := fold(r.User), r.hits()
		for p := range policy(len(policyNames)) {
			if p == targetPolicy && e.Target == nil {
				continue
			}
			both := []*policySums{at(l.policies, policyArm{policy: p, all: true}), at(l.policies, policyArm{policy: p, arm: r.Arm})}
			for place := range e.Propensities {
				t := l.weigh(p, e, place)
				if t.count == 0 {
					continue
				}
				for _, s := range both {
					if !t.ok {
						s.not++
						s.notCounted += t.count
						continue
					}
					touched[s] = struct{}{}
					s.add(hits[place], t.weight, t.count, l.expect(of, place, e.class(place)), l.expect(of, place, t.serves))
				}
			}
		}
	}
	for s := range touched {
		s.end()
	}
}

// notLogged is why nothing is estimated of what was served without exploration.
const notLogged = "no answer has propensities: without exploration an answer is always the same, and what it does not have was never served, so that nothing is known of it (tandem release split --explore)"

// report returns what was found.
func (l *logged) report(target *targets) OffPolicy {
	o := OffPolicy{Requests: l.requests, Explored: l.explored, Without: l.without, Policies: []Policy{}}
	if target != nil {
		o.Unanswered, o.Unknown = target.unanswered, target.unknown
	}
	if l.requests == 0 {
		o.Refused = notLogged
		return o
	}
	for number, g := range l.generations {
		if why := g.refused(); why != "" {
			o.LeftOut = append(o.LeftOut, LeftOut{number, g.requests, why})
		}
	}
	slices.SortFunc(o.LeftOut, func(a, b LeftOut) int { return cmp.Compare(a.Generation, b.Generation) })
	if len(o.LeftOut) == len(l.generations) {
		o.Refused = fmt.Sprintf("no generation of the release tells anything; %d: %s", o.LeftOut[0].Generation, o.LeftOut[0].Why)
		return o
	}
	for of, s := range l.policies {
		p := Policy{Policy: policyNames[of.policy], Arm: of.arm, All: of.all, Exposures: s.exposures, Users: s.users, NotEvaluable: s.not}
		if n := s.counted + s.notCounted; n > 0 {
			p.Share = s.notCounted / n
		}
		if s.squares > 0 {
			p.Effective = s.weights * s.weights / s.squares
		}
		p.Logged, p.IPS, p.SNIPS, p.DR = s.logged.estimate(), s.ips.estimate(), s.snips.estimate(), s.dr.estimate()
		o.Policies = append(o.Policies, p)
	}
	slices.SortFunc(o.Policies, func(a, b Policy) int {
		first := func(p Policy) int {
			if p.All {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(a.Arm, b.Arm), cmp.Compare(slices.Index(policyNames, a.Policy), slices.Index(policyNames, b.Policy)))
	})
	return o
}

// Answer is one that was served, and what users did with it, in memory.
type Answer struct {
	User, Arm  string
	Generation int64 // of the release
	Drawn      bool  // whether its open places were drawn
	// Propensities and Hits are of each place.
	Propensities []float32
	Hits         []bool
	// Shown, Next and Target are the apps that were served, those that would have come next, and
	// those of another policy, nil where it has no answer.
	Shown, Next, Target []string
}

// Evaluate does what [Measure] does for policies that were not served, with answers in memory.
func Evaluate(answers []Answer) OffPolicy {
	l := newLogged()
	list := make([]request, len(answers))
	for i, a := range answers {
		e := &explored{Generation: a.Generation, Drawn: a.Drawn, Propensities: a.Propensities}
		list[i] = request{User: a.User, Arm: a.Arm, Shown: int64(len(a.Propensities)), Explored: e}
		for place, hit := range a.Hits {
			if hit {
				list[i].Acts = append(list[i].Acts, act{Rank: int64(place + 1), Hit: true})
			}
		}
		l.take(&list[i])
		if e.Drawn && a.Shown != nil {
			l.generations[a.Generation].seen(e, int64(len(a.Next)))
		}
	}
	l.settle()
	for i, a := range answers {
		if a.Target != nil {
			list[i].Explored.Target = l.match(list[i].Explored, a.Shown, a.Next, a.Target)
		}
	}
	slices.SortStableFunc(list, byUser)
	for some := range eachUser(list) {
		l.user(some)
	}
	return l.report(nil)
}
