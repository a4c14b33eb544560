package index

import "fmt"

// Flat returns an index without a graph. Every search of it is an exact scan, and scores are
// to the bit those of an index that [Build] makes of the same rows. It costs far less than a
// graph, so it suits rows that are too new to be in one. The ordinals of some thousand rows
// and more are by likeness, so that scans leave most of them out. Rows are in ascending order of their ids, as in [Input], and Flat takes
// ownership of the vectors. An error names the row that is not valid.
//
// What is flat stays in memory: [Index.Write] refuses it.
func Flat(vectors *Matrix, metric Metric) (*Index, error) {
	rows := vectors.Rows()
	if rows > MaxRows {
		return nil, fmt.Errorf("%d rows, an index holds at most %d", rows, MaxRows)
	}
	x := &Index{params: DefaultParams(metric), dim: vectors.dim, stride: vectors.stride, nodes: rows}
	if err := x.params.Validate(); err != nil {
		return nil, err
	}
	for row := range rows {
		if err := metric.CheckVector(vectors.Row(row)); err != nil {
			return nil, fmt.Errorf("row %d: vector %w", row, err)
		}
	}
	if metric == Cosine {
		x.norms = normalise(vectors)
	}
	x.groups, x.rows = groupRowsOf(vectors)
	if x.norms != nil {
		norms := make([]float32, rows)
		for ordinal, row := range x.rows {
			norms[ordinal] = x.norms[row]
		}
		x.norms = norms
	}
	x.vectors = takeVectors(vectors, x.rows)
	// Rows that repeat a vector are nodes like others: a scan has no use for knowing.
	x.codes = encode(metric, x.dim, rows, &x.vectors)
	return x, x.prepare()
}

// flat reports whether there is no graph to walk.
func (x *Index) flat() bool { return len(x.layers) == 0 }
