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
	idTime        = 350
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
	if n := len(t.shards); n > 0 {
		cost += float64(n) * t.shardCost(l)
	}
	k := min(l.K, l.Rows)
	cost += float64(k) * float64(candidateTime+l.Returned*valueTime)
	return time.Duration(cost)
}

// shardCost estimates what one shard takes, in nanoseconds.
func (t *Tower) shardCost(l Load) float64 {
	x := t.largest.index
	k, eligible := l.asked(len(t.shards)), min(l.Rows/len(t.shards)+1, x.Rows())
	k = min(k, x.Rows())
	search := t.searchCost(x, l, k, eligible)
	if l.Filtered {
		for eligible /= 4; eligible > 4*k; eligible /= 4 {
			search = max(search, t.searchCost(x, l, k, eligible))
		}
	}
	cost := shardTime + float64(l.Vectors)*search*(rowTime+componentTime*float64(t.dim))
	cost += float64(k * mergeTime * (1 + l.Limits))
	if l.Vectors > 1 {
		cost += float64(l.Vectors*k) * sortTime * float64(bits.Len(uint(k)))
	}
	if l.Filtered {
		cost += float64(x.Rows()/64)*wordTime + float64(l.Filter*clauseTime)
		cost += float64(l.Explain) * (float64(x.Rows()/64)*wordTime + mergeTime*float64(l.K))
	}
	return cost
}

func (t *Tower) searchCost(x *index.Index, l Load, k, eligible int) float64 {
	ef := l.Ef
	if ef == 0 && l.Target < 1 {
		ef = x.FilteredEffortFor(k, l.Target, eligible)
	}
	return x.Cost(k, ef, eligible)
}

// asked returns how many rows one of several shards is asked for at first.
func (l *Load) asked(shards int) int {
	k := l.K
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
	hitMemory  = 64
	nodeMemory = 32
)

// Memory estimates the bytes of memory that a query takes while shards are asked, beside
// its answer. As many shards are searched at a time as there are workers.
func (t *Tower) Memory(l Load, workers int) int {
	n := len(t.shards)
	if n == 0 {
		return 0
	}
	rows := t.largest.Rows()
	k := min(l.asked(n), rows)
	memory := n * k * hitMemory
	memory += min(workers, n) * (min(max(l.Ef, k), rows)*nodeMemory + rows/8)
	if l.Limits > 0 {
		memory += t.rows / 8 // of every shard what is eligible is kept
	}
	return memory + l.Listed*16
}
