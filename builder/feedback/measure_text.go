package feedback

import (
	"fmt"
	"io"
	"strings"

	"github.com/tandem-ann/tandem/shard/wording"
)

// mostRanks is how many ranks a table has.
const mostRanks = 20

// text formats an interval.
func (i *Interval) text(format string) string {
	if i == nil {
		return "-"
	}
	return fmt.Sprintf(format+" to "+format, i.Lower, i.Upper)
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	fmt.Fprintf(b, "%s of %s, %s, %s without a candidate; a hit is an exposure with %s\n",
		wording.Plural(r.Requests, "request"), wording.Plural(r.Users, "user"), wording.Plural(r.Shown, "exposure"), wording.Count(r.Empty), strings.Join(r.Hits, ", "))
	t := wording.NewTable(b)
	fmt.Fprintf(t, "\nhit rate\tk\trequests\thits\trate\t95%% by user\n")
	for _, h := range r.HitRates {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%.4f\t%s\n", label(h.By, h.Name), h.K, wording.Count(h.Requests), wording.Count(h.Hits), h.Rate, h.Interval.text("%.4f"))
	}
	fmt.Fprintf(t, "\nexposures\tn\tusers\thits\trate\t95%% by user\tseconds\t95%% by user\n")
	left := 0
	for i := range r.Groups {
		g := &r.Groups[i]
		if g.By == "rank" && rankOf(g.Name) > mostRanks {
			left++
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.4f\t%s\t%.2f\t%s\n", label(g.By, g.Name), wording.Count(g.Exposures), wording.Count(g.Users), wording.Count(g.Hits),
			g.Rate, g.Interval.text("%.4f"), g.PlayTime, g.PlayTimeInterval.text("%.2f"))
	}
	if left > 0 {
		fmt.Fprintf(t, "%s after %d are in the JSON only\n", wording.Plural(left, "rank"), mostRanks)
	}
	fmt.Fprintf(t, "\nday\tgeneration\texposures\tapps shown\tGini\n")
	for _, d := range r.Days {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%.4f\n", d.Day, d.Generation, wording.Count(d.Exposures), wording.Count(d.Apps), d.Gini)
	}
	fmt.Fprintf(t, "\nsnapshot\texposures\tapps shown\tapps\tnever shown\tcoverage\n")
	for _, c := range r.Snapshots {
		apps, starved, coverage := "unknown", "unknown", "unknown"
		if c.Apps != nil {
			apps, starved, coverage = wording.Count(*c.Apps), wording.Count(*c.Starved), fmt.Sprintf("%.4f", *c.Coverage)
		}
		fmt.Fprintf(t, "%.12s\t%s\t%s\t%s\t%s\t%s\n", c.Snapshot, wording.Count(c.Exposures), wording.Count(c.Shown), apps, starved, coverage)
	}
	for _, v := range r.Verdicts {
		fmt.Fprintf(t, "\ninterleaved\trequests\tusers\thits\tusers prefer\tshare of hits\t95%% by user\tp\n")
		for i, arm := range v.Arms {
			share, interval := "-", ""
			if v.Share != nil {
				if share = fmt.Sprintf("%.4f", 1-*v.Share); i == 1 {
					share, interval = fmt.Sprintf("%.4f", *v.Share), v.Interval.text("%.4f")
				}
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.4g\n", arm, wording.Count(v.Requests), wording.Count(v.Users), wording.Count(v.Credits[i]), wording.Count(v.Prefer[i]), share, interval, v.P)
		}
	}
	r.OffPolicy.write(t)
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// write adds what is estimated of policies that were not served.
func (o *OffPolicy) write(t io.Writer) {
	if o.Refused != "" {
		fmt.Fprintf(t, "\nno estimates of other policies: %s\n", o.Refused)
		return
	}
	fmt.Fprintf(t, "\nother policies, of %s with propensities, %s of them explored; %s without\n",
		wording.Plural(o.Requests, "request"), wording.Count(o.Explored), wording.Count(o.Without))
	for _, g := range o.LeftOut {
		fmt.Fprintf(t, "%s of generation %d left out: %s\n", wording.Plural(g.Requests, "request"), g.Generation, g.Why)
	}
	if o.Unanswered+o.Unknown > 0 {
		fmt.Fprintf(t, "%s not in the target; %s of it not used\n", wording.Plural(o.Unanswered, "request"), wording.Plural(o.Unknown, "answer"))
	}
	fmt.Fprintf(t, "policy\tarm\texposures\tnot evaluable\teffective\tserved\tIPS\t95%% by user\tSNIPS\t95%% by user\tDR\t95%% by user\n")
	for i := range o.Policies {
		p := &o.Policies[i]
		arm := label("arm", p.Arm)
		if p.All {
			arm = "all"
		}
		served := "-"
		if p.Logged != nil {
			served = fmt.Sprintf("%.4f", p.Logged.Value)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.1f%%\t%.0f\t%s", p.Policy, arm, wording.Count(p.Exposures), 100*p.Share, p.Effective, served)
		for _, e := range []*Estimate{p.IPS, p.SNIPS, p.DR} {
			if e == nil {
				fmt.Fprint(t, "\t-\t-")
				continue
			}
			fmt.Fprintf(t, "\t%.4f\t%s", e.Value, e.Interval.text("%.4f"))
		}
		fmt.Fprintln(t)
	}
}

func rankOf(name string) (n int) {
	_, _ = fmt.Sscan(name, &n) // it is a number
	return n
}

func label(by, name string) string {
	switch {
	case by == "all":
		return by
	case name == "":
		return "no " + by
	}
	return by + " " + name
}
