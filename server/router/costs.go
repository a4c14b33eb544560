package router

import (
	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/shard"
)

type rough struct{ rows int }

func (r rough) FilteredEffortFor(k int, _ float64, _ int) int { return k + 20 }
func (r rough) Cost(k, ef, eligible int) float64              { return float64(min(eligible, 20*(ef+k))) }

func costsOf(_ *shardv1.GetShardResponse, h held) shard.Costs { return rough{h.rows} }
