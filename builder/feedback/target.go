package feedback

import (
	"context"
	"errors"
	"iter"
	"slices"
)

// Target is what another policy would have answered to a request that was logged, such as what a
// snapshot that has not served yet answers to it.
type Target struct {
	RequestID string
	AppIDs    []string // best first
}

// What is known of a place of a logged answer, beside the target's.
const (
	matchKnown  byte = 1 << iota // what the target has there could have been served there
	matchDrawn                   // by being drawn
	matchSame                    // and is what was
	matchRanked                  // it is known of answers that were not drawn only
	matchSkip                    // it is one of those that were, and stands for nothing
)

// Records of spilled answers.
type (
	targetAnswer struct {
		_         struct{} `cbor:",toarray"`
		RequestID string
		AppIDs    []string
	}
	loggedAnswer struct {
		_           struct{} `cbor:",toarray"`
		RequestID   string
		Shown, Next []string
		Request     request
	}
)

// targets are answers of another policy on their way to those that were logged.
type targets struct {
	memory              int64
	answers, logged     *spill
	id                  string // of the request at hand
	shown, next         []string
	unanswered, unknown int64
}

func newTargets(dir string, memory int64) *targets {
	return &targets{memory: memory, answers: newSpill(dir, memory), logged: newSpill(dir, memory)}
}

func (t *targets) close() {
	t.answers.close()
	t.logged.close()
}

// read takes in what the target answers.
func (t *targets) read(list iter.Seq2[*Target, error]) error {
	for a, err := range list {
		if err == nil && a.RequestID == "" {
			err = errors.New("an answer of the target names no request")
		}
		if err == nil {
			err = t.answers.add(a.RequestID, &targetAnswer{RequestID: a.RequestID, AppIDs: a.AppIDs})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// begin begins a logged answer.
func (t *targets) begin(id string) { t.id, t.shown, t.next = id, t.shown[:0], t.next[:0] }

// add ends a logged answer.
func (t *targets) add(l *logged, r *request) error {
	if r.Explored.Drawn {
		l.generations[r.Explored.Generation].seen(r.Explored, int64(len(t.next)))
	}
	return t.logged.add(t.id, &loggedAnswer{RequestID: t.id, Shown: t.shown, Next: t.next, Request: *r})
}

// join finds the target's answers of what was logged, and hands on each logged request with what they
// amount to.
func (t *targets) join(ctx context.Context, l *logged, to func(user string, r any) error) error {
	return together("request id", t.memory, []*spill{t.answers, t.logged}, func(files []*spillPart) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		answers, err := records[targetAnswer](files[0])
		if err != nil {
			return err
		}
		list, err := records[loggedAnswer](files[1])
		if err != nil {
			return err
		}
		of, used := map[string][]string{}, map[string]bool{}
		for _, a := range answers {
			if _, again := of[a.RequestID]; again {
				t.unknown++
				continue
			}
			of[a.RequestID] = a.AppIDs
		}
		for i := range list {
			r := &list[i]
			apps, there := of[r.RequestID]
			if there {
				used[r.RequestID] = true
				r.Request.Explored.Target = l.match(r.Request.Explored, r.Shown, r.Next, apps)
			} else {
				t.unanswered++
			}
			if err := to(r.Request.User, &r.Request); err != nil {
				return err
			}
		}
		t.unknown += int64(len(of) - len(used))
		return nil
	})
}

// match says what is known of each place of an answer. At an open place the candidate that ranks there
// could have been served, and each of those that places are drawn from. The latter come next, but for
// those that were drawn. What ranks at an open place of a drawn answer is not logged: places at which
// the target has nothing of the pool are looked at in answers that were not drawn only, and each of
// those stands for as many as there are of it and its like. Which place is such a one does not depend on
// the draw.
func (l *logged) match(e *explored, shown, next, target []string) []byte {
	from, known := l.pool(e, shown, next)
	out := make([]byte, len(shown))
	for place := range shown {
		if place >= len(target) {
			continue
		}
		same := byte(0)
		if target[place] == shown[place] {
			same = matchSame
		}
		switch {
		case !e.open(place):
			if same != 0 {
				out[place] = matchKnown | matchSame
			}
		case !known:
		case slices.Contains(from, target[place]):
			out[place] = matchKnown | matchDrawn | same
		case e.Drawn:
			out[place] = matchSkip
		case same != 0:
			out[place] = matchKnown | matchRanked | matchSame
		default:
			out[place] = matchRanked
		}
	}
	return out
}

// pool returns what open places of an answer are drawn from, if that is known.
func (l *logged) pool(e *explored, shown, next []string) (from []string, known bool) {
	g := l.generations[e.Generation]
	p := g.pools[len(shown)]
	if p == nil || p.short {
		return nil, false
	}
	n := p.most
	if e.Drawn {
		for place, id := range shown {
			if e.open(place) {
				n = g.candidates(e.Propensities[place])
				from = append(from, id)
			}
		}
		n = max(n-int64(len(from)), 0)
	}
	return append(from, next[:min(n, int64(len(next)))]...), true
}
