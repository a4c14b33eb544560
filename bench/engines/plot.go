package engines

import (
	"fmt"
	"io"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The size of the part of a plot that is for one k.
const (
	plotWidth  = 14 * vg.Centimeter
	plotHeight = 11 * vg.Centimeter
)

// The plot begins at half of the rows and ends where one in 10,000 is missed.
const (
	leastRecall = 0.5
	leastMissed = 1e-4
)

// nines maps a recall to the number of nines it has, which is how far it is along
// a plot: 0.9 is 1, 0.99 is 2.
func nines(recall float64) float64 {
	return -math.Log10(max(1-recall, leastMissed))
}

// WriteSVG draws, for each k side by side, the front of every engine.
func (r *Report) WriteSVG(w io.Writer) error {
	var ks []int
	for _, result := range r.Results {
		ks = append(ks, result.K)
	}
	ks = ascending(ks)
	row := make([]*plot.Plot, len(ks))
	for i, k := range ks {
		p, err := r.plot(k)
		if err != nil {
			return err
		}
		row[i] = p
	}
	return writeTiles(w, [][]*plot.Plot{row})
}

// writeTiles draws plots in rows of equal length.
func writeTiles(w io.Writer, rows [][]*plot.Plot) error {
	tiles := draw.Tiles{Rows: len(rows), Cols: len(rows[0]), PadX: vg.Centimeter, PadY: vg.Centimeter, PadLeft: 2, PadRight: 12, PadTop: 4, PadBottom: 2}
	canvas := vgsvg.New(plotWidth*vg.Length(tiles.Cols), plotHeight*vg.Length(tiles.Rows))
	for i, list := range plot.Align(rows, tiles, draw.New(canvas)) {
		for j, part := range list {
			rows[i][j].Draw(part)
		}
	}
	_, err := canvas.WriteTo(w)
	return err
}

func (r *Report) plot(k int) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = r.title()
	p.X.Label.Text = fmt.Sprintf("recall@%d", k)
	p.Y.Label.Text = "queries per second, one thread"
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = decades{}
	p.X.Tick.Marker = recallTicks()
	p.X.Min, p.X.Max = nines(leastRecall), nines(1)
	p.Legend.Top, p.Legend.Left, p.Legend.Padding = true, true, vg.Points(4)
	p.Legend.XOffs = vg.Centimeter
	p.Add(plotter.NewGrid())
	slowest, fastest := math.Inf(1), 0.0
	for i, e := range r.Engines {
		var line plotter.XYs
		for _, at := range frontOf(r.Results, e.Engine, k) {
			if at.recall >= leastRecall {
				line = append(line, plotter.XY{X: nines(at.recall), Y: at.qps})
				slowest, fastest = min(slowest, at.qps), max(fastest, at.qps)
			}
		}
		if len(line) == 0 {
			continue
		}
		l, points, err := plotter.NewLinePoints(line)
		if err != nil {
			return nil, err
		}
		l.Color, points.Color = plotutil.Color(i), plotutil.Color(i)
		l.Width = vg.Points(1.5)
		points.Shape = plotutil.Shape(i)
		p.Add(l, points)
		p.Legend.Add(e.Engine.String(), l, points)
	}
	if fastest == 0 {
		slowest, fastest = 1, 10
	}
	// Room for the legend above.
	p.Y.Min, p.Y.Max = slowest/1.2, fastest*math.Pow(fastest/slowest*2, 0.3)
	return p, nil
}

func recallTicks() plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, recall := range [...]float64{0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, 1} {
		ticks = append(ticks, plot.Tick{Value: nines(recall), Label: strconv.FormatFloat(recall, 'g', -1, 64)})
	}
	return ticks
}

// decades labels 1, 2 and 5 of each decade.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for decade := math.Pow(10, math.Floor(math.Log10(low))); decade <= high; decade *= 10 {
		for n := 1.0; n < 10; n++ {
			tick := plot.Tick{Value: n * decade}
			if n == 1 || n == 2 || n == 5 {
				tick.Label = short(tick.Value)
			}
			if tick.Value >= low && tick.Value <= high {
				ticks = append(ticks, tick)
			}
		}
	}
	return ticks
}

// short writes 20000 as 20k.
func short(x float64) string {
	switch {
	case x >= 1e6:
		return strconv.FormatFloat(x/1e6, 'g', 3, 64) + "M"
	case x >= 1e3:
		return strconv.FormatFloat(x/1e3, 'g', 3, 64) + "k"
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}
