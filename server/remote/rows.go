package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// explain answers a request.
func (h *Handler) explain(ctx context.Context, s *held, m *shardv1.ExplainRequest) (*shardv1.ExplainResponse, error) {
	r := &shard.Request{Moment: s.at, Segment: m.GetSegment()}
	ids, err := readTexts("ids", m.GetIds())
	if err == nil {
		r.Vectors, err = readVectors(m.GetVectors(), m.GetVectorCount())
	}
	if err == nil {
		r.Limited, err = readLimited(m.GetLimited(), s)
	}
	if err == nil {
		r.Filter, err = readFilter(ctx, m.GetFilter(), s.tower)
	}
	if err != nil {
		return nil, badQuery(err)
	}
	out := &shardv1.ExplainResponse{Rows: make([]*shardv1.ExplainedRow, len(ids))}
	size := 0
	for i := range ids {
		out.Rows[i] = &shardv1.ExplainedRow{}
	}
	if m.GetRows() {
		return out, tellRows(s.parts, ids, out.Rows)
	}
	for number, p := range s.parts {
		rows, err := p.Explain(ctx, r, ids)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			if row := &rows[i]; row.Known || row.OutsideWindow {
				out.Rows[i] = &shardv1.ExplainedRow{
					Known: row.Known, OutsideWindow: row.OutsideWindow, Fresh: number > 0, Score: row.Score,
					Outside: row.Outside, Eligible: row.Eligible, Clause: row.Clause, Values: fieldValuesOf(row.Values),
				}
				for _, v := range row.Values {
					size += len(v.Text) + 12
				}
				size += len(row.Clause)
			}
		}
		if size > h.o.MaxReplyBytes {
			return nil, refusef(BadQuery, "what there is to explain of %d rows has more than %d bytes: %v", len(ids), h.o.MaxReplyBytes, index.ErrQuery)
		}
	}
	return out, nil
}

// tellRows tells of which ids there are rows, whatever lies over them. It tells nothing where a
// part is not a shard of this process.
func tellRows(parts []part, ids []string, rows []*shardv1.ExplainedRow) (err error) {
	defer sections.Guard(&err)()
	for number, p := range parts {
		l, ok := p.(*shard.Local)
		if !ok {
			return nil
		}
		for i, id := range ids {
			ordinal, has := l.Shard().Ordinal(id)
			if number == 0 {
				rows[i].InSnapshot = new(has)
			} else if has && !l.Overlay().IsDead(ordinal) {
				rows[i].FreshRow = true
			}
		}
	}
	return nil
}

// vectors answers a request.
func (h *Handler) vectors(ctx context.Context, s *held, m *shardv1.VectorsRequest) (*shardv1.VectorsResponse, error) {
	ids, err := readTexts("ids", m.GetIds())
	if err != nil {
		return nil, badQuery(err)
	}
	if len(ids) == 0 {
		return nil, badQuery(errors.New("ids is empty; accepted: at least 1"))
	}
	dim := s.tower.Dim()
	ids = ids[:min(len(ids), max(h.o.MaxReplyBytes/(4*dim), 1))]
	found := make([][]float32, len(ids))
	for _, p := range s.parts {
		of := make([][]float32, len(ids))
		if err := p.Vectors(ctx, s.at, ids, of); err != nil {
			return nil, err
		}
		for i, v := range of {
			if v != nil {
				found[i] = v
			}
		}
	}
	out := &shardv1.VectorsResponse{Done: uint32(len(ids))}
	for i, v := range found {
		if v != nil {
			out.Found = append(out.Found, uint32(i))
			out.Vectors = append(out.Vectors, v...)
		}
	}
	return out, nil
}

// partRows are those of the rows of a request that are of one part.
type partRows struct {
	places []int // in the request
	refs   []uint32
	values []attribute.Value
	done   int // how many have their values
}

// attributes answers a request.
func (h *Handler) attributes(ctx context.Context, s *held, m *shardv1.AttributesRequest) (*shardv1.AttributesResponse, error) {
	rows, fields, err := readRows(s, m)
	if err != nil {
		return nil, err
	}
	most := h.o.MaxReplyBytes
	if m.GetMostText() > 0 {
		most = int(min(uint64(most), m.GetMostText()))
	}
	n := len(m.GetOrdinals())
	values := make([][]attribute.Value, n) // of each row, nil where a part ended before
	for i := range rows {
		of := &rows[i]
		if len(of.refs) == 0 {
			continue
		}
		of.values = make([]attribute.Value, len(of.refs)*len(fields))
		if of.done, err = s.parts[i].Attributes(ctx, s.at, of.refs, fields, most, of.values); err != nil {
			return nil, err
		}
		for j, place := range of.places[:of.done] {
			values[place] = of.values[j*len(fields) : (j+1)*len(fields)]
		}
	}
	return attributesOf(values, len(fields), most), nil
}

// attributesOf returns the attributes of rows as they are sent, down to the row with which they
// have more than most bytes of text. A part ends no sooner than that with its own.
func attributesOf(rows [][]attribute.Value, fields, most int) *shardv1.AttributesResponse {
	out := &shardv1.AttributesResponse{Keywords: &shardv1.Texts{}, Types: make([]byte, 0, len(rows)*fields)}
	text := 0
	for _, row := range rows {
		for _, v := range row {
			text += textOf(v)
			addAttribute(out, v)
		}
		out.Rows++
		if text > most {
			break
		}
	}
	return out
}

// readRows returns the rows of a request by their parts, and the attributes.
func readRows(s *held, m *shardv1.AttributesRequest) (rows []partRows, fields []int, err error) {
	schema := s.tower.Schema()
	if len(m.GetFields()) == 0 || len(m.GetFields()) > schema.Len() {
		return nil, nil, badQuery(fmt.Errorf("fields has %d attributes; accepted: 1 to %d", len(m.GetFields()), schema.Len()))
	}
	for _, field := range m.GetFields() {
		if int64(field) >= int64(schema.Len()) {
			return nil, nil, badQuery(fmt.Errorf("fields has attribute %d; the schema has %d", field, schema.Len()))
		}
		fields = append(fields, int(field))
	}
	if len(m.GetOrdinals()) == 0 {
		return nil, nil, badQuery(errors.New("ordinals is empty; accepted: at least 1"))
	}
	ids, err := readTexts("fresh", m.GetFresh())
	if err != nil {
		return nil, nil, badQuery(err)
	}
	rows = make([]partRows, len(s.parts))
	var places []int // of fresh rows
	for place, ordinal := range m.GetOrdinals() {
		if ordinal == freshOrdinal {
			places = append(places, place)
			continue
		}
		rows[0].places, rows[0].refs = append(rows[0].places, place), append(rows[0].refs, ordinal)
	}
	if err := checkOrdinals("ordinals", rows[0].refs, s.parts[0]); err != nil {
		return nil, nil, badQuery(err)
	}
	if len(places) != len(ids) {
		return nil, nil, badQuery(fmt.Errorf("fresh has %d ids for %d rows of ordinals; want as many", len(ids), len(places)))
	}
	return rows, fields, s.findFresh(rows, ids, places)
}

// findFresh adds fresh rows to those of their parts. One that there is not is an error: it was
// returned for the same state.
func (s *held) findFresh(rows []partRows, ids []string, places []int) error {
	if len(ids) == 0 {
		return nil
	}
	refs, found := make([]uint32, len(ids)), make([]bool, len(ids))
	known := 0
	for i, p := range s.parts[1:] {
		if err := p.Refs(s.at, ids, refs, found); err != nil {
			return err
		}
		of := &rows[i+1]
		for j, ok := range found {
			if ok {
				of.places, of.refs = append(of.places, places[j]), append(of.refs, refs[j])
				known++
			}
		}
	}
	if known != len(ids) {
		return badQuery(fmt.Errorf("fresh has %d ids, of which %s has %d", len(ids), s.of, known))
	}
	return nil
}

// sampledRows is how many rows of a shard tell what all have.
const sampledRows = 1024

// getShard answers a request.
func (h *Handler) getShard(_ context.Context, s *held, _ *shardv1.GetShardRequest) (*shardv1.GetShardResponse, error) {
	l, ok := s.parts[0].(*shard.Local)
	if !ok {
		return nil, fmt.Errorf("%s is not a shard of this process", s.of)
	}
	costs, err := json.Marshal(l.Shard().Index().CostModel())
	if err != nil {
		return nil, fmt.Errorf("%s: cost model: %w", s.of, err)
	}
	out := &shardv1.GetShardResponse{Name: l.Info().Name, Rows: uint64(l.Shard().Rows()), CostModel: costs}
	if err := sample(l.Shard(), out); err != nil {
		return nil, err
	}
	ids, err := s.tower.UnformedIDs(unformedBytes)
	if err != nil {
		return nil, err
	}
	if len(ids) > 0 {
		out.UnformedIds = textsOf(ids)
	}
	return out, nil
}

// unformedBytes is how many bytes of ids in no Unicode form a node tells of a shard at most.
const unformedBytes = 1 << 20

// sample adds what rows of a shard have, by some that are spread over all.
func sample(l *shard.Shard, out *shardv1.GetShardResponse) (err error) {
	defer sections.Guard(&err)()
	table := l.Attributes()
	for range table.Schema().Len() {
		out.Attributes = append(out.Attributes, &shardv1.AttributeSize{})
	}
	n := min(l.Rows(), sampledRows)
	part := 1 / float64(max(n, 1))
	for i := range n {
		ordinal := uint32(i * l.Rows() / n)
		out.IdBytes += float64(len(l.ID(ordinal))) * part
		for field, size := range out.Attributes {
			v := table.Value(ordinal, field)
			if v.Absent() {
				continue
			}
			size.Share += part
			size.TextBytes += float64(textOf(v)) * part
			if v.Type() == attribute.Keyword {
				size.Texts += part
			}
			size.Texts += float64(len(v.Keywords())) * part
		}
	}
	return nil
}
