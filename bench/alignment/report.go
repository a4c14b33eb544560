package alignment

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/axes"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Report says how often pairs of each kind were refused, passed, and neither.
type Report struct {
	Models int    `json:"models"`
	Seed   uint64 `json:"seed"`
	Dims   []int  `json:"dims"`
	// RefusedModels are those of which at least one pair was refused that belongs
	// together: the pairs of one model are not independent.
	RefusedModels int     `json:"refused_models"`
	Counts        []Count `json:"counts"`
}

// Count counts the pairs of one kind.
type Count struct {
	Together  bool   `json:"together"`  // whether the pairs belong together
	Following bool   `json:"following"` // judged beside a previous snapshot
	By        string `json:"by"`        // what tells the kind: all, pair, training, dim
	Of        string `json:"of"`        // which of those
	Pairs     int    `json:"pairs"`
	Refused   int    `json:"refused"`
	Passed    int    `json:"passed"`
	order     int
}

// Inconclusive is how many were neither refused nor passed.
func (c *Count) Inconclusive() int { return c.Pairs - c.Refused - c.Passed }

// bands are the lowest dimensions of what is reported together.
var bands = []int{MinDim, 24, 64, 256}

func band(dim int) (order int, text string) {
	for order < len(bands)-1 && bands[order+1] <= dim {
		order++
	}
	if order == len(bands)-1 {
		return order, fmt.Sprintf("%d dimensions and more", bands[order])
	}
	return order, fmt.Sprintf("%d to %d dimensions", bands[order], bands[order+1]-1)
}

// add adds what was found of one model.
func (r *Report) add(list []outcome) {
	refused := false
	for i, o := range list {
		refused = refused || o.together && o.state == axes.Apart
		order, dims := band(o.dim)
		r.count(o, "all", "", 0)
		r.count(o, "dim", dims, 1000+order)
		r.count(o, "training", o.training, 2000+slices.Index(trainings, o.training))
		r.count(o, "pair", o.what, 3000+i)
	}
	if refused {
		r.RefusedModels++
	}
}

func (r *Report) count(o outcome, by, of string, order int) {
	i := slices.IndexFunc(r.Counts, func(c Count) bool {
		return c.Together == o.together && c.Following == o.following && c.By == by && c.Of == of
	})
	if i < 0 {
		i = len(r.Counts)
		r.Counts = append(r.Counts, Count{Together: o.together, Following: o.following, By: by, Of: of, order: order})
	}
	c := &r.Counts[i]
	c.Pairs++
	switch o.state {
	case axes.Apart:
		c.Refused++
	case axes.Together:
		c.Passed++
	}
}

// sort puts pairs that belong together first, and first builds before those that follow.
func (r *Report) sort() {
	rank := func(c Count) int {
		n := c.order
		if !c.Together {
			n += 20_000
		}
		if c.Following {
			n += 10_000
		}
		return n
	}
	slices.SortStableFunc(r.Counts, func(a, b Count) int { return rank(a) - rank(b) })
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	fmt.Fprintf(b, "%d models of %s dimensions, seed %d; a pair that belongs together was refused of %d\n",
		r.Models, strings.Trim(fmt.Sprint(r.Dims), "[]"), r.Seed, r.RefusedModels)
	t := wording.NewTable(b)
	for i, c := range r.Counts {
		if i == 0 || c.Together != r.Counts[i-1].Together || c.Following != r.Counts[i-1].Following {
			what, beside := "pairs that do not belong together", "in a first build"
			if c.Together {
				what = "pairs that belong together"
			}
			if c.Following {
				beside = "beside the model as it was trained"
			}
			fmt.Fprintf(t, "\n%s, %s\tpairs\trefused\tat most\tpassed\tat most\tinconclusive\n", what, beside)
		}
		of := c.Of
		if c.By == "all" {
			of = "all"
		}
		n := float64(c.Pairs)
		fmt.Fprintf(t, "  %s\t%d\t%d\t%.2f%%\t%d\t%.2f%%\t%.1f%%\n", of, c.Pairs,
			c.Refused, 100*AtMost(c.Refused, c.Pairs), c.Passed, 100*AtMost(c.Passed, c.Pairs), 100*float64(c.Inconclusive())/n)
	}
	_ = t.Flush() // a page takes everything
	b.WriteString("\nat most: the share's upper bound, of 95% confidence, if pairs were independent\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// AtMost returns the upper bound, of 95% confidence, of the probability of what happened
// x times in n (Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated
// in the Case of the Binomial", Biometrika 1934).
func AtMost(x, n int) float64 {
	if x >= n {
		return 1
	}
	low, high := float64(x)/float64(n), 1.0
	for range 60 {
		p := (low + high) / 2
		if atMost(x, n, p) > 0.05 {
			low = p
		} else {
			high = p
		}
	}
	return high
}

// atMost is the probability of at most x of n events of probability p.
func atMost(x, n int, p float64) (sum float64) {
	all, _ := math.Lgamma(float64(n + 1))
	for k := range x + 1 {
		some, _ := math.Lgamma(float64(k + 1))
		rest, _ := math.Lgamma(float64(n - k + 1))
		sum += math.Exp(all - some - rest + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	}
	return sum
}
