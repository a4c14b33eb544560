package router

import (
	"encoding/json"
	"fmt"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// fact is what does not change of a shard.
type fact struct {
	*shardv1.GetShardResponse
	model *index.CostModel
}

// newFact takes in what a node says of a shard. The error says that it makes no sense.
func newFact(m *shardv1.GetShardResponse) (fact, error) {
	f := fact{GetShardResponse: m, model: &index.CostModel{}}
	if err := json.Unmarshal(m.GetCostModel(), f.model); err != nil {
		return fact{}, fmt.Errorf("the cost model is none: %w", err)
	}
	if err := f.model.Validate(); err != nil {
		return fact{}, err
	}
	return f, nil
}

// costs returns what searches cost while so many of the rows are dead.
func (f fact) costs(dead int) shard.Costs {
	return shard.CostsOf(f.model, min(max(dead, 0), f.model.Rows))
}
