package router

import (
	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// fact is what does not change of a shard.
type fact struct {
	*shardv1.GetShardResponse
	model *index.CostModel
}

// costs returns what searches cost while so many of the rows are dead.
func (f fact) costs(dead int) shard.Costs {
	return shard.CostsOf(f.model, min(max(dead, 0), f.model.Rows))
}

// MeanRow is what the rows of a tower have, on average.
type MeanRow struct {
	ID         float64    // bytes of an id
	Attributes []MeanSize // by schema position
}

// MeanSize is what rows have of an attribute, on average over those without it, too.
type MeanSize struct {
	Share     float64 // of the rows that have it
	Texts     float64 // how many texts
	TextBytes float64 // how many bytes those have
}

// MeanRow returns what the rows of a tower have, by what nodes say of its shards.
func (l *Layer) MeanRow(kind shard.Kind) MeanRow {
	b := l.towers[0]
	if kind == shard.Users {
		b = l.towers[1]
	}
	out := MeanRow{Attributes: make([]MeanSize, b.tower.Schema().Len())}
	rows := 0.0
	for _, f := range b.facts {
		rows += float64(f.GetRows())
	}
	for _, f := range b.facts {
		part := float64(f.GetRows()) / max(rows, 1)
		out.ID += part * f.GetIdBytes()
		for i, a := range f.GetAttributes()[:min(len(f.GetAttributes()), len(out.Attributes))] {
			out.Attributes[i].Share += part * a.GetShare()
			out.Attributes[i].Texts += part * a.GetTexts()
			out.Attributes[i].TextBytes += part * a.GetTextBytes()
		}
	}
	return out
}
