package shard

import (
	"math/bits"
	"time"

	"github.com/tandem-ann/tandem/index"
)

// Load is how much a query asks for, as far as that can be told before any work is done
// for it.
type Load struct {
	Vectors int     // query vectors
	K       int     // as in Query
	Before  int     // how many candidates are on earlier pages; see Cursor.Rank
	Ef      int     // as in Query
	Target  float64 // as in Query
	Rows    int     // how many rows of the tower may be eligible at most
	// Filtered is whether fewer may be. Which share costs most is assumed.
	Filtered bool
	Filter   int // bytes of the filter
	Listed   int // ids in Include and Exclude, and elements in lists of the filter's bindings
	Limits   int // attributes that AtMost names
	Returned int // attributes to return
	Explain  int // ids to explain
}

// Times that one processor takes, of what is not searching. They need to be right within
// a few times: who uses estimates corrects them by what was measured.
const (
	rowTime       = 0.5 // of a row in a scan of all rows, and
	componentTime = 0.012
	compileTime   = 300 // of a byte of a filter
	clauseTime    = 100 // of a byte of a filter in each shard
	wordTime      = 4   // of 64 rows of a filter
	changedTime   = 5   // of a row that has changed, in a filter
	idTime        = 350
	besideTime    = 100  // of an id, in each part beside the hash partition
	mergeTime     = 60   // of a hit
	sortTime      = 25   // of a hit, to merge what several vectors find, for each power of 2
	candidateTime = 200  // of a candidate, to copy it and to encode it
	valueTime     = 400  // the same of one of its attributes
	shardTime     = 2000 // of asking one shard anything
	queryTime     = 20_000
)

// Cost estimates the time that one processor takes for a query.
func (t *Tower) Cost(l Load) time.Duration {
	cost := float64(queryTime + l.Filter*compileTime + l.Listed*idTime)
	cost += float64(l.Listed * (len(t.parts) - t.hashed) * besideTime)
	if t.hashed > 0 { // which are all about as large
		cost += float64(t.hashed) * t.partCost(l, t.largest(), t.hashed)
	}
	for i := t.hashed; i < len(t.parts); i++ {
		cost += t.partCost(l, &t.infos[i], 1)
	}
	k := min(l.K, l.Rows)
	cost += float64(k) * float64(candidateTime+l.Returned*valueTime)
	return time.Duration(cost)
}

// largest returns that part of the hash partition which has most rows. There must be one.
func (t *Tower) largest() *Info {
	largest := &t.infos[0]
	for i := range t.infos[:t.hashed] {
		if t.infos[i].Rows > largest.Rows {
			largest = &t.infos[i]
		}
	}
	return largest
}

// partCost estimates what a part takes, in nanoseconds, that is one of so many among which
// rows are divided.
func (t *Tower) partCost(l Load, part *Info, parts int) float64 {
	asked, eligible := t.asked(&l, parts), min(l.Rows/parts+1, part.Rows)
	k, expected := min(asked.rows, part.Rows), min(asked.expected, part.Rows)
	search := searchCost(part.Costs, l, k, expected, eligible)
	if l.Filtered {
		for eligible /= 4; eligible > 4*k; eligible /= 4 {
			search = max(search, searchCost(part.Costs, l, k, expected, eligible))
		}
	}
	cost := shardTime + float64(l.Vectors)*search*(rowTime+componentTime*float64(t.dim))
	cost += float64(k * mergeTime * (1 + l.Limits))
	if l.Vectors > 1 {
		cost += float64(l.Vectors*k) * sortTime * float64(bits.Len(uint(k)))
	}
	if l.Filtered {
		cost += float64(part.Rows/64)*wordTime + float64(part.Changed)*changedTime + float64(l.Filter*clauseTime)
		cost += float64(l.Explain) * (float64(part.Rows/64)*wordTime + float64(part.Changed)*changedTime + mergeTime*float64(l.Before+l.K))
	}
	return cost
}

func searchCost(costs Costs, l Load, k, expected, eligible int) float64 {
	ef := l.Ef
	if ef == 0 && l.Target < 1 {
		ef = costs.FilteredEffortFor(expected, l.Target, eligible)
	}
	return costs.Cost(k, ef, eligible)
}

// asked returns what one of several parts, among which rows are divided, is asked for at first.
func (t *Tower) asked(l *Load, parts int) share {
	k := l.Before + l.K
	if l.Limits > 0 {
		k *= overfetch
	}
	if parts > 1 && l.Ef == 0 && (l.Target < 1 || l.Limits == 0) {
		return t.memory.shares.of(k, parts)
	}
	return share{k, k}
}

// The memory that a query takes for each hit of a shard, and for each node of a walk's
// pool.
const (
	hitMemory  = 80
	nodeMemory = 32
)

// Memory estimates the bytes of memory that a query takes while shards are asked, beside
// its answer. As many shards are searched at a time as there are workers.
func (t *Tower) Memory(l Load, workers int) int {
	n := len(t.parts)
	if n == 0 {
		return 0
	}
	rows := 0
	for i := range t.infos {
		rows = max(rows, t.infos[i].Rows)
	}
	k := min(t.asked(&l, t.hashed).rows, rows)
	memory := n * k * hitMemory
	memory += min(workers, n) * (min(max(l.Ef, k), rows)*nodeMemory + rows/8)
	if l.Limits > 0 {
		memory += t.rows / 8 // of every shard what is eligible is kept
	}
	return memory + l.Listed*16
}

// CostsOf returns the costs of a part: of a shard with that cost model, of whose rows so many,
// 0 to all, are dead. A part that is elsewhere is estimated as a [Local] with the same is. The
// model must not change.
func CostsOf(model *index.CostModel, dead int) Costs {
	if dead == 0 {
		return model
	}
	return buried{model, dead}
}

// buried are the costs of a shard of which rows are dead.
type buried struct {
	model *index.CostModel
	dead  int
}

// FilteredEffortFor implements [Costs]. Where all that are not dead are eligible, it is that
// of a walk without a filter, which expands more nodes by itself for the dead that are to be
// expected in an answer. But it looks for more than k rows, some of which are dead, and that
// may take more.
func (b buried) FilteredEffortFor(k int, target float64, eligible int) int {
	rows, alive := b.model.Rows, b.model.Rows-b.dead
	if eligible < alive {
		return b.model.FilteredEffortFor(k, target, eligible)
	}
	ef := b.model.FilteredEffortFor(k, target, rows)
	if ef == 0 || b.dead == 0 || alive == 0 {
		return ef
	}
	more := b.model.FilteredEffortFor((min(k, alive)*rows+alive-1)/alive, target, rows)
	return max(ef, (more*alive+rows-1)/rows)
}

// Cost implements [Costs].
func (b buried) Cost(k, ef, eligible int) float64 {
	alive := b.model.Rows - b.dead
	if eligible < alive || alive == 0 {
		return b.model.Cost(k, ef, min(eligible, alive))
	}
	// A walk expands its part of the dead among the best k, too.
	k = min(k, alive)
	among := int64(k) * int64(b.dead) / int64(alive)
	return b.model.Cost(k, ef+int(int64(ef)*among/int64(max(ef, k, 1))), b.model.Rows)
}
