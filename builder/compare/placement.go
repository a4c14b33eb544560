package compare

import (
	"context"
	"math"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Placement says whether the rows that both snapshots have are where they were among the
// rows of the other tower.
//
// The profile of a row is its scores against the anchors, the same ones in both
// snapshots. A rotation of the space, a scale of a tower and the norm of a row do not
// change it once it is standardised: scaled to norm 1 by row, which leaves a direction,
// then centred and scaled by anchor over all rows, which takes away what all rows have in
// common, and in a nearly collapsed space that is nearly all. The agreement of a row is
// the correlation of its two profiles. Chance is the same of a row and another one.
//
// A row has moved if its agreement is below the middle between the medians of agreement
// and of chance: nearer to that of strangers than to that of most rows. So a retrained
// model, under which all rows agree less, moves few, and rows that were exchanged have
// moved unless they were alike. Where all rows are strangers to themselves, about half are
// below the middle.
type Placement struct {
	Rows      int      `json:"rows"`      // that were looked at; 0 if there are too few to tell
	Anchors   int      `json:"anchors"`   // of the other tower
	Agreement float64  `json:"agreement"` // median correlation of a row with itself
	Chance    float64  `json:"chance"`    // and of a row with another
	Threshold float64  `json:"threshold"` // below it a row has moved
	Moved     int      `json:"moved"`
	Share     float64  `json:"share"`           // Moved of Rows
	First     []string `json:"first,omitempty"` // some that have moved, the least agreement first
	// Segments has the same for the segments of the candidate's apps.
	Segments []SegmentPlacement `json:"segments,omitempty"`
}

// SegmentPlacement says how many apps of a segment have moved.
type SegmentPlacement struct {
	Segment string  `json:"segment"`
	Rows    int     `json:"rows"` // that were looked at
	Moved   int     `json:"moved"`
	Share   float64 `json:"share"` // Moved of Rows
}

// fewest is how many rows and anchors it takes to tell where a row is.
const fewest = 16

func place(ctx context.Context, candidate, previous *snapshots.Snapshot, kind shard.Kind, o Options) (Placement, error) {
	other := shard.Users
	if kind == shard.Users {
		other = shard.Apps
	}
	rows := probe.Pick(candidate.Tower(kind), o.Rows, probe.Has(previous.Tower(kind)))
	anchors := probe.Pick(candidate.Tower(other), o.Anchors, probe.Has(previous.Tower(other)))
	if len(rows) < fewest || len(anchors) < fewest {
		return Placement{}, nil
	}
	p := Placement{Rows: len(rows), Anchors: len(anchors)}
	now, err := profiles(ctx, candidate.Tower(kind), rows, probe.Vectors(anchors))
	if err != nil {
		return p, err
	}
	before, err := profiles(ctx, previous.Tower(kind), probe.In(previous.Tower(kind), rows),
		probe.Vectors(probe.In(previous.Tower(other), anchors)))
	if err != nil {
		return p, err
	}
	own, strange := make([]float64, len(rows)), make([]float64, len(rows))
	for i := range rows {
		own[i] = correlation(now[i], before[i])
		// Rows are in the order of a hash, so the one half-way round is any other.
		strange[i] = correlation(now[i], before[(i+len(rows)/2)%len(rows)])
	}
	moved := p.judge(rows, own, strange)
	for _, s := range candidate.Tower(kind).Segments() {
		in := SegmentPlacement{Segment: s.Name}
		for i, member := range probe.Members(candidate.Tower(kind), s.Name, rows) {
			if member {
				in.Rows++
			}
			if member && moved[i] {
				in.Moved++
			}
		}
		in.Share = manifest.Rounded(float64(in.Moved) / float64(max(in.Rows, 1)))
		p.Segments = append(p.Segments, in)
	}
	return p, nil
}

// judge counts the rows that have moved, and says which.
func (p *Placement) judge(rows []probe.Row, own, strange []float64) (moved []bool) {
	moved = make([]bool, len(rows))
	p.Agreement, p.Chance = probe.Median(own), probe.Median(strange)
	p.Threshold = (p.Agreement + p.Chance) / 2
	var worst []int
	for i, c := range own {
		if !(c < p.Threshold) {
			continue
		}
		p.Moved++
		moved[i] = true
		at := len(worst)
		for at > 0 && own[worst[at-1]] > c {
			at--
		}
		if at < named {
			worst = append(worst[:at:at], append([]int{i}, worst[at:]...)...)
			worst = worst[:min(len(worst), named)]
		}
	}
	for _, i := range worst {
		p.First = append(p.First, rows[i].ID)
	}
	p.Share = manifest.Rounded(float64(p.Moved) / float64(p.Rows))
	p.Agreement, p.Chance, p.Threshold = manifest.Rounded(p.Agreement), manifest.Rounded(p.Chance), manifest.Rounded(p.Threshold)
	return moved
}

// profiles returns the standardised profile of each row.
func profiles(ctx context.Context, t *shard.Tower, rows []probe.Row, anchors [][]float32) ([][]float64, error) {
	const chunk = 1024
	out := make([][]float64, len(rows))
	err := probe.Each(ctx, (len(rows)+chunk-1)/chunk, func(i int) error {
		part := rows[i*chunk : min((i+1)*chunk, len(rows))]
		scorer := probe.NewScorer(t, anchors)
		scorer.LoadRows(part)
		scores := make([]float32, len(part))
		for j := range part {
			out[i*chunk+j] = make([]float64, len(anchors))
		}
		for a := range anchors {
			scorer.Score(a, scores)
			for j, score := range scores {
				out[i*chunk+j][a] = float64(score)
			}
		}
		for j := range part {
			unit(out[i*chunk+j])
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	column := make([]float64, len(rows))
	for a := range anchors {
		for i := range rows {
			column[i] = out[i][a]
		}
		mean, standardError := probe.Mean(column)
		deviation := standardError * math.Sqrt(float64(len(rows)))
		if deviation == 0 {
			deviation = 1
		}
		for i := range rows {
			out[i][a] = (out[i][a] - mean) / deviation
		}
	}
	return out, nil
}

// unit scales v to norm 1, if it has any.
func unit(v []float64) {
	var sum float64
	for _, x := range v {
		sum += float64(x * x)
	}
	if norm := math.Sqrt(sum); norm > 0 {
		for i := range v {
			v[i] /= norm
		}
	}
}

// correlation returns Pearson's correlation of two profiles, and 0 if either is
// constant.
func correlation(a, b []float64) float64 {
	meanA, _ := probe.Mean(a)
	meanB, _ := probe.Mean(b)
	var ab, aa, bb float64
	for i := range a {
		x, y := a[i]-meanA, b[i]-meanB
		ab += float64(x * y)
		aa += float64(x * x)
		bb += float64(y * y)
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(float64(aa*bb))
}
