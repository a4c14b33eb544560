package shard

import (
	"math/bits"
	"time"
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
	k, eligible := l.asked(parts), min(l.Rows/parts+1, part.Rows)
	k = min(k, part.Rows)
	search := searchCost(part.Costs, l, k, eligible)
	if l.Filtered {
		for eligible /= 4; eligible > 4*k; eligible /= 4 {
			search = max(search, searchCost(part.Costs, l, k, eligible))
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

func searchCost(costs Costs, l Load, k, eligible int) float64 {
	ef := l.Ef
	if ef == 0 && l.Target < 1 {
		ef = costs.FilteredEffortFor(k, l.Target, eligible)
	}
	return costs.Cost(k, ef, eligible)
}

// asked returns how many rows one of several shards is asked for at first.
func (l *Load) asked(shards int) int {
	k := l.Before + l.K
	if l.Limits > 0 {
		k *= overfetch
	}
	if l.Ef == 0 && l.Target < 1 {
		k = share(k, shards)
	}
	return k
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
	k := min(l.asked(max(t.hashed, 1)), rows)
	memory := n * k * hitMemory
	memory += min(workers, n) * (min(max(l.Ef, k), rows)*nodeMemory + rows/8)
	if l.Limits > 0 {
		memory += t.rows / 8 // of every shard what is eligible is kept
	}
	return memory + l.Listed*16
}
