package feedback

import (
	"cmp"
	"slices"
)

// Verdict is which of two arms users preferred in answers that were interleaved of both.
type Verdict struct {
	Arms     [2]string `json:"arms"`     // in the order of their names
	Requests int64     `json:"requests"` // that were answered by both
	Users    int64     `json:"users"`
	// Credits are how many hits candidates of each arm had.
	Credits [2]int64 `json:"credits"`
	// Prefer are how many users had more hits of an arm than of the other one; Ties, as many of
	// both, or none of either.
	Prefer [2]int64 `json:"users_prefer"`
	Ties   int64    `json:"users_tied"`
	// P is the probability that users who prefer one arm are split so unevenly or more, if they
	// are as likely to prefer either: an exact sign test, two-sided.
	P float64 `json:"p"`
	// Share is the share of the second arm in all credits, and its interval that of a bootstrap by
	// user; absent without credits.
	Share    *float64  `json:"share_of_second,omitempty"`
	Interval *Interval `json:"interval,omitempty"`
}

// tally is what is known of two arms.
type tally struct {
	requests, users int64
	credits, prefer [2]int64
	ties            int64
	each            map[[2]int64]int64 // users by their credits
}

// credit counts the interleaved answers of a user. Those that have candidates of one arm only
// tell nothing of two.
func (m *measure) credit(list []request) {
	mine := map[[2]string]*[2]int64{}
	for i := range list {
		r := &list[i]
		if int64(len(r.Teams)) != r.Shown {
			continue
		}
		teams := slices.Compact(slices.Sorted(slices.Values(r.Teams)))
		if len(teams) != 2 {
			continue
		}
		pair := [2]string{teams[0], teams[1]}
		at(m.teams, pair).requests++
		n := at(mine, pair)
		for _, a := range r.Acts {
			switch {
			case !a.Hit:
			case r.Teams[a.Rank-1] == pair[0]:
				n[0]++
			default:
				n[1]++
			}
		}
	}
	for pair, n := range mine {
		t := m.teams[pair]
		t.users++
		t.credits[0], t.credits[1] = t.credits[0]+n[0], t.credits[1]+n[1]
		switch {
		case n[0] > n[1]:
			t.prefer[0]++
		case n[1] > n[0]:
			t.prefer[1]++
		default:
			t.ties++
		}
		if n[0]+n[1] > 0 {
			if t.each == nil {
				t.each = map[[2]int64]int64{}
			}
			t.each[*n]++
		}
	}
}

// verdicts says what interleaved answers amount to.
func (m *measure) verdicts() {
	for pair, t := range m.teams {
		v := Verdict{Arms: pair, Requests: t.requests, Users: t.users, Credits: t.credits, Prefer: t.prefer, Ties: t.ties, P: SignTest(t.prefer[0], t.prefer[1])}
		if n := t.credits[0] + t.credits[1]; n > 0 {
			share := func(a, b float64) float64 { return b / (a + b) }
			v.Share, v.Interval = new(share(float64(t.credits[0]), float64(t.credits[1]))), bootstrap(t.each, share)
		}
		m.report.Verdicts = append(m.report.Verdicts, v)
	}
	slices.SortFunc(m.report.Verdicts, func(a, b Verdict) int {
		return cmp.Or(cmp.Compare(a.Arms[0], b.Arms[0]), cmp.Compare(a.Arms[1], b.Arms[1]))
	})
}
