package main

import (
	"errors"

	"github.com/tandem-ann/tandem/bench/engines"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// benchFiltersCommand is `tandem bench filters`.
type benchFiltersCommand struct {
	enginesFlags
	Filters      string   `required:"" xor:"predicates" placeholder:"FILE" help:"JSON array of objects with a name, an eligibility filter in CEL over the attributes of --base and, if it is known, how many rows are eligible."`
	Synthetic    bool     `required:"" xor:"predicates" help:"Draw predicates that need no attributes: at random, from a region that a query of the sample is nearest to or farthest from, and both."`
	Bind         []string `sep:"none" placeholder:"NAME=JSON" help:"Value of user.NAME in the filters. May be repeated."`
	IgnoreColumn []string `sep:"none" placeholder:"NAME" help:"Column of --base that does not become an attribute. May be repeated."`
}

func (benchFiltersCommand) Help() string {
	return `Measures engines as tandem bench engines does, once for each predicate, when only the rows that it leaves may be returned. Every engine is given those rows beforehand: how long a filter takes to evaluate is told by itself. Our index is asked at recall targets, where it chooses its plan, and by each plan: the exact scan of the eligible rows and walks of a sweep of efforts.

The correlation of a predicate is the share of the 100 rows nearest to a query that are eligible, over the share of all rows that are: below 1 the queries do not want what is eligible.

Synthetic predicates have a selectivity S. random S are rows drawn without replacement; near S and far S are the rows that score best and worst against one query that is not asked; and S are those that both a random and a near predicate of selectivity sqrt(S) leave. --seed decides them.

Examples:

    tandem bench filters --base apps.parquet --queries users.parquet --metric dot \
        --filters filters.json --json filters-report.json --svg filters.svg
    tandem bench filters --base sift/base.u8bin --queries sift/query.u8bin --metric l2 --synthetic`
}

func (c *benchFiltersCommand) Run(e *environment) error {
	p := newProgress(e.stderr)
	defer p.Done()
	o, err := c.options(p)
	if err != nil {
		return err
	}
	values, err := bindings(c.Bind)
	if err != nil {
		return err
	}
	var filters []engines.Filter
	if !c.Synthetic {
		if filters, err = engines.ReadFilters(c.Filters); err != nil {
			return err
		}
	}
	p.Stage("read", -1)
	so := c.setOptions()
	so.Attributes, so.Base.IgnoreColumns = !c.Synthetic, c.IgnoreColumn
	set, err := engines.ReadSet(e.ctx, so)
	if err != nil {
		return err
	}
	var predicates []*engines.Predicate
	if c.Synthetic {
		predicates, err = set.Synthetic(c.Seed)
	} else {
		predicates, err = set.Predicates(e.ctx, filters, values)
	}
	if errors.As(err, new(*eligibility.Error)) || errors.As(err, new(*eligibility.BindError)) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	report, err := engines.RunFilters(e.ctx, set, predicates, o)
	if err != nil {
		return err
	}
	p.Done()
	return c.write(e, report)
}
