package cluster

import (
	"fmt"
	"slices"
	"time"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/wire"
)

// A finding is what is wrong with an answer.
type finding string

const (
	right finding = ""
	wrong finding = "wrong" // not what one machine answers
	mixed finding = "mixed" // of several snapshots, or not of the one that it names
	late  finding = "late"  // an app that was taken down is in it after its bound
	older finding = "older" // of a position before one that the same process has answered from
)

// judge returns what is wrong with an answer to a question of a user, that came at a time, and
// in words what it is.
func (o *Oracle) judge(a *tandemv1.RetrieveResponse, q question, user int, came time.Time, r *registers, bound time.Duration) (finding, string) {
	k := o.snapshots[a.Snapshot]
	switch {
	case k == nil:
		return mixed, fmt.Sprintf("snapshot %.12s is none that was released", a.Snapshot)
	case !slices.Contains(o.generation(a.Generation), a.Snapshot):
		return mixed, fmt.Sprintf("generation %d is of snapshot %.12s, the answer names %.12s", a.Generation, o.generation(a.Generation), a.Snapshot)
	case k.version != a.ModelVersion:
		return mixed, fmt.Sprintf("the model version is %q, that of the snapshot %q", a.ModelVersion, k.version)
	case len(a.Candidates) > q.K:
		return wrong, fmt.Sprintf("%d candidates, asked for %d", len(a.Candidates), q.K)
	case a.Coverage != nil && a.Coverage.ShardsAnswered != a.Coverage.Shards:
		return wrong, fmt.Sprintf("it is of %d of %d shards, and nobody has asked for less", a.Coverage.ShardsAnswered, a.Coverage.Shards)
	}
	at := wire.Position(a.GetLive())
	states, ok := r.standings(at, came, bound)
	if !ok {
		return wrong, fmt.Sprintf("it is of position %s, of a log that there never was", at)
	}
	for _, c := range a.Candidates {
		if n, ok := o.number[c.Id]; ok && states[n].late {
			return late, fmt.Sprintf("%s was taken down more than %s ago; position %s", c.Id, bound, at)
		}
	}
	text := o.rows(k, a, q, user, states)
	if text == "" {
		return right, ""
	}
	if o.ofAnother(k, a, user) {
		return mixed, text
	}
	return wrong, text
}

// rows compares the candidates with the user's order, and returns what is wrong with them.
func (o *Oracle) rows(k *known, a *tandemv1.RetrieveResponse, q question, user int, states map[int32]standing) string {
	only, limited := k.only[q.limited()]
	last, sure := -1, true
	for _, s := range states {
		sure = sure && !s.mayBeDown
	}
	for i, c := range a.Candidates {
		n, ok := o.number[c.Id]
		if !ok {
			return fmt.Sprintf("candidate %d is %q, which was not built", i, c.Id)
		}
		place := k.places[user][n]
		s, written := states[n]
		switch {
		case k.orders[user][place].score != c.Score:
			return fmt.Sprintf("candidate %d, %s, has score %v, one machine says %v", i, c.Id, c.Score, k.orders[user][place].score)
		case place <= last:
			return fmt.Sprintf("candidate %d, %s, is behind one of a lower place", i, c.Id)
		case limited && !only[n]:
			return fmt.Sprintf("candidate %d, %s, is not eligible", i, c.Id)
		case written && !s.mayBeUp:
			return fmt.Sprintf("candidate %d, %s, is down at position %s", i, c.Id, wire.Position(a.GetLive()))
		}
		if q.Exact {
			if text := o.missing(k, user, last+1, place, only, states); text != "" {
				return fmt.Sprintf("before candidate %d %s", i, text)
			}
		}
		last = place
	}
	if q.Exact && len(a.Candidates) < q.K {
		if text := o.missing(k, user, last+1, len(o.apps), only, states); text != "" {
			return fmt.Sprintf("behind the last of %d candidates %s", len(a.Candidates), text)
		}
	}
	if !q.Exact && sure {
		return o.same(a, k.answers[q][user])
	}
	return ""
}

// missing returns which app between two places is missing and may not be.
func (o *Oracle) missing(k *known, user, from, to int, only map[int32]bool, states map[int32]standing) string {
	for _, e := range k.orders[user][from:to] {
		if only != nil && !only[e.app] {
			continue
		}
		if s := states[e.app]; !s.mayBeDown {
			return fmt.Sprintf("%s is missing, with score %v", o.apps[e.app], e.score)
		}
	}
	return ""
}

// same compares with what one machine has answered.
func (o *Oracle) same(a *tandemv1.RetrieveResponse, want []int32) string {
	if len(a.Candidates) != len(want) {
		return fmt.Sprintf("%d candidates, one machine has %d", len(a.Candidates), len(want))
	}
	for i, c := range a.Candidates {
		if c.Id != o.apps[want[i]] {
			return fmt.Sprintf("candidate %d is %s, that of one machine %s", i, c.Id, o.apps[want[i]])
		}
	}
	return ""
}

// ofAnother reports whether a candidate has the score that another snapshot gives it, and not
// that of its own.
func (o *Oracle) ofAnother(own *known, a *tandemv1.RetrieveResponse, user int) bool {
	for _, c := range a.Candidates {
		n, ok := o.number[c.Id]
		if !ok || own.orders[user][own.places[user][n]].score == c.Score {
			continue
		}
		for _, k := range o.snapshots {
			if k.orders[user][k.places[user][n]].score == c.Score {
				return true
			}
		}
	}
	return false
}
