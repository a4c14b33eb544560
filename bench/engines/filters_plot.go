package engines

import (
	"fmt"
	"io"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// WriteSVG draws, for each k side by side, two plots against selectivity, with a
// point for each predicate. Above, the speed at the report's target: of our index
// when it chooses its plan and when it scans, of the others at their best effort that
// reaches the target, where there is one. Below, what a filter does to recall: our
// index has the target, the others the least effort of the sweep that reaches it
// without a filter.
func (r *FilterReport) WriteSVG(w io.Writer) error {
	rows := make([][]*plot.Plot, 2)
	for _, s := range r.Predicates[0].Summaries {
		speed, err := r.speedPlot(s.K)
		if err != nil {
			return err
		}
		recall, err := r.recallPlot(s.K)
		if err != nil {
			return err
		}
		rows[0], rows[1] = append(rows[0], speed), append(rows[1], recall)
	}
	return writeTiles(w, rows)
}

// series is what is drawn of an engine.
type series struct {
	name   string
	points plotter.XYs
}

// collect makes the series of an engine from its figure under each predicate.
func (r *FilterReport) collect(name string, figure func(p *PredicateResult) (y float64, ok bool)) series {
	s := series{name: name}
	for i := range r.Predicates {
		if y, ok := figure(&r.Predicates[i]); ok {
			s.points = append(s.points, plotter.XY{X: r.Predicates[i].Selectivity, Y: y})
		}
	}
	return s
}

// others makes a series for each engine that is not ours.
func (r *FilterReport) others(figure func(engine Spec, p *PredicateResult) (float64, bool)) []series {
	var list []series
	for _, e := range r.Engines {
		if e.Engine.Name != Tandem {
			list = append(list, r.collect(e.Engine.String(), func(p *PredicateResult) (float64, bool) { return figure(e.Engine, p) }))
		}
	}
	return list
}

func (r *FilterReport) speedPlot(k int) (*plot.Plot, error) {
	p := r.emptyPlot()
	p.Y.Label.Text = fmt.Sprintf("queries per second, recall@%d of %v", k, r.Target)
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades{}
	p.Legend.Top = true
	all := []series{
		r.collect(Tandem, func(p *PredicateResult) (float64, bool) { s := p.summary(k); return s.QPS, s.Met }),
		r.collect(Tandem+", exact scan", func(p *PredicateResult) (float64, bool) { return p.summary(k).ScanQPS, true }),
	}
	all = append(all, r.others(func(engine Spec, p *PredicateResult) (float64, bool) {
		return at(frontOf(p.Results, engine, k), r.Target)
	})...)
	if err := addSeries(p, all); err != nil {
		return nil, err
	}
	p.Y.Max *= math.Pow(p.Y.Max/p.Y.Min*2, 0.4) // room for the legend
	return p, nil
}

func (r *FilterReport) recallPlot(k int) (*plot.Plot, error) {
	p := r.emptyPlot()
	p.Y.Label.Text = fmt.Sprintf("recall@%d", k)
	all := []series{
		r.collect(fmt.Sprintf("%s, target %v", Tandem, r.Target), func(p *PredicateResult) (float64, bool) { return p.summary(k).Recall, true }),
		r.collect(Tandem+", worst hundredth of the queries", func(p *PredicateResult) (float64, bool) { return p.summary(k).Worst, true }),
	}
	all = append(all, r.others(func(engine Spec, p *PredicateResult) (float64, bool) {
		ef, ok := r.Predicates[0].reaches(engine, k, r.Target)
		if !ok {
			return 0, false
		}
		return p.recallAt(engine, k, ef)
	})...)
	if err := addSeries(p, all); err != nil {
		return nil, err
	}
	p.Y.Min, p.Y.Max = -0.3, 1.02 // room for the legend
	p.Y.Tick.Marker = plot.ConstantTicks{{Value: 0, Label: "0"}, {Value: 0.2, Label: "0.2"}, {Value: 0.4, Label: "0.4"}, {Value: 0.6, Label: "0.6"}, {Value: 0.8, Label: "0.8"}, {Value: 1, Label: "1"}}
	return p, nil
}

// summary returns that of k.
func (p *PredicateResult) summary(k int) Summary {
	return p.Summaries[slices.IndexFunc(p.Summaries, func(s Summary) bool { return s.K == k })]
}

// reaches returns the least effort of an engine that reaches a recall.
func (p *PredicateResult) reaches(engine Spec, k int, recall float64) (ef int, ok bool) {
	for _, r := range p.Results {
		if r.Engine == engine && r.K == k && r.Ef > 0 && r.Recall >= recall {
			return r.Ef, true
		}
	}
	return 0, false
}

// recallAt returns the recall of an engine at an effort, or at the last one of a
// sweep that ended before it because nothing was missed.
func (p *PredicateResult) recallAt(engine Spec, k, ef int) (recall float64, ok bool) {
	for _, r := range p.Results {
		if r.Engine == engine && r.K == k && r.Ef > 0 && r.Ef <= ef {
			recall, ok = r.Recall, true
		}
	}
	return recall, ok
}

// emptyPlot returns a plot against selectivity, with its legend at the right.
func (r *FilterReport) emptyPlot() *plot.Plot {
	p := plot.New()
	p.Title.Text = r.title()
	p.X.Label.Text = "selectivity"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{}
	p.Legend.Padding = vg.Points(2)
	p.Legend.XOffs = -vg.Points(6)
	p.Add(plotter.NewGrid())
	return p
}

// addSeries draws points, and leaves a margin around them.
func addSeries(p *plot.Plot, all []series) error {
	for i, s := range all {
		if len(s.points) == 0 {
			continue
		}
		points, err := plotter.NewScatter(s.points)
		if err != nil {
			return err
		}
		points.Color, points.Shape = plotutil.Color(i), plotutil.Shape(i)
		p.Add(points)
		p.Legend.Add(s.name, points)
	}
	p.X.Min, p.X.Max = p.X.Min/1.5, 1.5
	p.Y.Min, p.Y.Max = p.Y.Min/1.2, p.Y.Max*1.2
	return nil
}
