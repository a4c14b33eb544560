package gate

import (
	"cmp"
	"context"
	"fmt"
	"math"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/lowest"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

// alignedUsers is how many users' interactions are looked at.
const alignedUsers = 2000

// minConfidence is what the lower bound of a difference must be above.
const minConfidence = 0

// player is a user with the apps that the user interacted with.
type player struct {
	id   string
	key  uint64
	apps map[string]bool
}

func (p *player) compare(o *player) int {
	return cmp.Or(cmp.Compare(p.key, o.key), cmp.Compare(p.id, o.id))
}

// players are the users of the lowest sample keys among those who interacted, and how
// many interactions are of users and apps that are known.
type players struct {
	kept         *lowest.Kept[*player]
	byID         map[string]*player
	lines, known int
}

func newPlayers() *players {
	return &players{kept: lowest.New(alignedUsers, (*player).compare), byID: map[string]*player{}}
}

// read reads the interactions of the candidate's users. A user who makes room for
// others never comes back, for whoever is kept has a lower key; so all interactions of
// those who are kept are, too.
func (p *players) read(ctx context.Context, o tower.InteractionOptions, forgotten func(string) bool, candidate, previous *snapshots.Snapshot) error {
	hasUser, hasApp := probe.Has(candidate.Tower(shard.Users)), probe.Has(candidate.Tower(shard.Apps))
	hadApp := func(string) bool { return false }
	if previous != nil {
		hadApp = probe.Has(previous.Tower(shard.Apps))
	}
	n := 0
	return tower.ReadInteractions(ctx, o, func(user, app string) error {
		if n++; n%4096 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if forgotten != nil && forgotten(user) {
			return nil
		}
		p.lines++
		has := hasApp(app)
		if !hasUser(user) || !has && !hadApp(app) {
			return nil
		}
		if has {
			p.known++
		}
		p.add(user, app)
		return nil
	})
}

func (p *players) add(user, app string) {
	u := p.byID[user]
	if u == nil {
		u = &player{id: user, key: shard.SampleKey(user), apps: map[string]bool{}}
		p.byID[user] = u
		if dropped, ok := p.kept.Add(u); ok {
			delete(p.byID, dropped.id)
		}
	}
	u.apps[app] = true
}

// hits are the shares of their apps that users find among the best k of each band.
type hits struct {
	own      [2][]float64 // with their own vectors
	shuffled [2][]float64 // with those of other users
}

// alignedBands are the values of k of hit rates.
var alignedBands = [2]int{10, topK}

// hitRates returns the hits of users whose vectors are mapped, or as they are for a nil
// mapping.
func hitRates(ctx context.Context, s *snapshots.Snapshot, users []*player, mapped func([]float32) []float32) (h hits, err error) {
	vectors := make([][]float32, len(users))
	for i, u := range users {
		row, _ := probe.Find(s.Tower(shard.Users), u.id)
		if vectors[i] = row.Vector(); mapped != nil {
			vectors[i] = mapped(vectors[i])
		}
	}
	exact, err := probe.Exact(ctx, s.Tower(shard.Apps), vectors, topK, nil)
	if err != nil {
		return h, err
	}
	rate := func(u *player, best []probe.Hit) float64 {
		n := 0
		for _, h := range best {
			if u.apps[h.ID] {
				n++
			}
		}
		return float64(n) / float64(len(u.apps))
	}
	for b, k := range alignedBands {
		for i, u := range users {
			// The order is that of a hash, so the user half-way round is any other.
			mine, other := exact.All[i], exact.All[(i+max(len(users)/2, 1))%len(users)]
			h.own[b] = append(h.own[b], rate(u, mine[:min(k, len(mine))]))
			h.shuffled[b] = append(h.shuffled[b], rate(u, other[:min(k, len(other))]))
		}
	}
	return h, nil
}

const (
	// turns is how many random turns of the space are tried, on turnedUsers users.
	turns       = 16
	turnedUsers = 250
)

// turned returns the best hit rate that users have when their space is turned at random.
// Where users and apps come in few groups, a turn may by chance bring most users of a
// group near to what they like, and then their own vectors do find more than those of
// others; so that control alone lets towers of two versions pass now and then.
func turned(ctx context.Context, s *snapshots.Snapshot, users []*player) (best [2]float64, err error) {
	users = users[:min(len(users), turnedUsers)]
	for seed := range uint64(turns) {
		h, err := hitRates(ctx, s, users, newTurn(s.Tower(shard.Users).Dim(), seed).apply)
		if err != nil {
			return best, err
		}
		for b := range best {
			rate, _ := probe.Mean(h.own[b])
			best[b] = math.Max(best[b], rate)
		}
	}
	return best, nil
}

// alignment judges whether users' vectors find what the users interacted with. It scores
// whole vectors, for it is about the towers and not the index.
func (r *run) alignment(ctx context.Context) error {
	switch {
	case r.off(gates.Alignment):
		return nil
	case len(r.Interactions.Paths) == 0:
		r.NotRun(gates.Alignment, "", "no interactions were given")
		return nil
	}
	p := newPlayers()
	if err := p.read(ctx, r.Interactions, r.Forgotten, r.Candidate, r.Previous); err != nil {
		return err
	}
	l := r.Thresholds.Alignment
	known := float64(p.known) / float64(max(p.lines, 1))
	r.AtLeast(gates.Alignment, "known interactions", known, l.Known,
		"%s of %s interactions (%s) are of users and apps that the towers have, at least %s are required", wording.Count(p.known), wording.Count(p.lines), gates.Percent(known), gates.Percent(l.Known))
	users := p.kept.Sorted()
	if len(users) < 2 {
		r.AtLeast(gates.Alignment, "users with interactions", float64(len(users)), 2, "interactions of %s are known, which tells nothing of the towers", wording.Plural(len(users), "user"))
		return nil
	}
	h, err := hitRates(ctx, r.Candidate, users, nil)
	if err != nil {
		return err
	}
	best, err := turned(ctx, r.Candidate, users)
	if err != nil {
		return err
	}
	for b := range alignedBands {
		r.againstControls(b, h, best[b])
	}
	if r.Previous == nil {
		r.NotRun(gates.Alignment, gates.FallOf+"hit rates", gates.NoPrevious)
		return nil
	}
	return r.againstPrevious(ctx, users, h.own)
}

// againstControls judges a hit rate against those of shuffled users and of turned ones.
// Where both vectors are of one model a user's own finds more; where they are not, it is
// as good as any. Where there are few apps the best k are a large part of them, and any
// vectors find much; then a user's own must miss less by the same factor.
func (r *run) againstControls(band int, h hits, turned float64) {
	k, limit := alignedBands[band], r.Thresholds.Alignment.Ratio
	subject := fmt.Sprintf("hit-rate@%d against chance", k)
	if r.Candidate.Tower(shard.Apps).Rows() <= k {
		const all = "with at most %d apps everybody is given all"
		if band == 0 {
			r.Inconclusive(gates.Alignment, subject, 0, manifest.BoundMin, limit, all, k)
		} else {
			r.NotRun(gates.Alignment, subject, all, k)
		}
		return
	}
	own, _ := probe.Mean(h.own[band])
	shuffled, _ := probe.Mean(h.shuffled[band])
	gain, lower := difference(h.own[band], h.shuffled[band])
	// The least hit rate that so many users could have shown.
	least := 1 / float64(len(h.own[band])*topK)
	by := max(shuffled, turned, least)
	ratio, what := math.Min(own/by, gates.Largest), "as much"
	if missed := math.Min((1-by)/max(1-own, least), gates.Largest); missed > max(ratio, 1) {
		ratio, what = missed, "less is missed"
	}
	sure := lower > minConfidence
	text := fmt.Sprintf("hit-rate@%d: %s users' own vectors find %s of what they interacted with, those of other users %s, their own in a space turned at random up to %s: "+
		"%.2f times %s, at least %v times is required", k, wording.Count(len(h.own[band])), gates.Percent(own), gates.Percent(shuffled), gates.Percent(turned), ratio, what, limit)
	switch {
	case ratio < limit:
		text += "; the towers do not belong together: they may be of different model versions"
	case !sure:
		text += fmt.Sprintf("; the difference from other users, %.4f, may be chance (its lower bound is %.4f)", gain, lower)
	}
	r.Add(gates.Alignment, subject, ratio, manifest.BoundMin, limit, ratio >= limit && sure, text)
}

// againstPrevious judges hit rates against those of the previous snapshot, for the users
// of both.
func (r *run) againstPrevious(ctx context.Context, users []*player, own [2][]float64) error {
	has := probe.Has(r.Previous.Tower(shard.Users))
	var both []*player
	var now [2][]float64
	for i, u := range users {
		if has(u.id) {
			both = append(both, u)
			for b := range now {
				now[b] = append(now[b], own[b][i])
			}
		}
	}
	if len(both) < fewest {
		r.NotRun(gates.Alignment, gates.FallOf+"hit rates", "%s with interactions in both snapshots, at least %d are needed to tell", wording.Plural(len(both), "user"), fewest)
		return nil
	}
	before, err := hitRates(ctx, r.Previous, both, nil)
	if err != nil {
		return err
	}
	limit := r.Thresholds.Alignment.Drop
	gone := goneShare(both, probe.Has(r.Candidate.Tower(shard.Apps)))
	for b, k := range alignedBands {
		hit, _ := probe.Mean(now[b])
		was, _ := probe.Mean(before.own[b])
		drop := math.Max(fall(hit, was), 0)
		// A fall that may be chance is none.
		if _, lower := difference(before.own[b], now[b]); lower <= minConfidence {
			drop = 0
		}
		r.AtMost(gates.Alignment, fmt.Sprintf(gates.FallOf+"hit-rate@%d", k), drop, limit,
			"hit-rate@%d: %s users' vectors find %s of what they interacted with, in the previous snapshot %s: it may fall by %s of that; %s of it are apps that are gone",
			k, wording.Count(len(both)), gates.Percent(hit), gates.Percent(was), gates.Percent(limit), gates.Percent(gone))
	}
	return nil
}

// goneShare returns the share of what users interacted with that a tower has not.
func goneShare(users []*player, has func(string) bool) float64 {
	all, gone := 0, 0
	for _, u := range users {
		for app := range u.apps {
			if all++; !has(app) {
				gone++
			}
		}
	}
	return float64(gone) / float64(max(all, 1))
}

// difference returns the mean of a less b, pair by pair, and its lower bound, of 95%
// confidence.
func difference(a, b []float64) (mean, lower float64) {
	d := make([]float64, len(a))
	for i := range a {
		d[i] = a[i] - b[i]
	}
	mean, standardError := probe.Mean(d)
	return mean, mean - confidence*standardError
}
