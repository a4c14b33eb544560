package server

import (
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// rowSizes is what the rows of a tower take in an answer, on average.
type rowSizes struct {
	id         float64      // bytes of a candidate without attributes, in protobuf
	attributes []valueSizes // by schema position
}

// valueSizes is what an attribute takes, on average over rows with and without it.
type valueSizes struct {
	wire float64 // bytes in protobuf
	heap float64 // bytes of memory
}

// sampledRows is how many rows of a tower tell what all take.
const sampledRows = 1024

// The memory of a candidate, of its map of attributes, of one of those, and of a string
// of a list, beside the bytes of their texts.
const (
	candidateHeap = 200
	mapHeap       = 300
	valueHeap     = 260
	listedHeap    = 20
)

// sizeRows looks at some rows of a tower, spread over all. What it cannot read tells
// nothing.
func sizeRows(t *shard.Tower) *rowSizes {
	out := &rowSizes{attributes: make([]valueSizes, t.Schema().Len())}
	rows := 0
	for _, s := range t.Local() {
		n := min(s.Rows(), sampledRows/len(t.Local())+1)
		for i := range n {
			if out.add(s, uint32(i*s.Rows()/n)) == nil {
				rows++
			}
		}
	}
	if rows > 0 {
		out.id /= float64(rows)
		for i := range out.attributes {
			out.attributes[i].wire /= float64(rows)
			out.attributes[i].heap /= float64(rows)
		}
	}
	return out
}

// add adds what one row takes. The error is of class [sections.ErrUnreadable].
func (r *rowSizes) add(s *shard.Shard, ordinal uint32) (err error) {
	defer sections.Guard(&err)()
	candidate := &tandemv1.Candidate{Id: s.ID(ordinal), Score: 1}
	r.id += float64(listedSize(proto.Size(candidate)))
	for field := range r.attributes {
		v := s.Attributes().Value(ordinal, field)
		if v.Absent() {
			continue
		}
		name := s.Attributes().Schema().Field(field).Name
		entry := &tandemv1.Candidate{Attributes: map[string]*tandemv1.AttributeValue{name: wire.AttributeValue(v)}}
		r.attributes[field].wire += float64(proto.Size(entry))
		r.attributes[field].heap += float64(valueHeap + len(v.Keyword()))
		for _, text := range v.Keywords() {
			r.attributes[field].heap += float64(listedHeap + len(text))
		}
	}
	return nil
}

// sizesOf returns what rows take of which nodes have told.
func sizesOf(mean router.MeanRow, schema attribute.Schema) *rowSizes {
	const score, value, entry, text = 7, 9, 12, 4 // bytes beside those of ids, names and texts
	out := &rowSizes{id: float64(listedSize(int(mean.ID) + score)), attributes: make([]valueSizes, schema.Len())}
	for field, a := range mean.Attributes[:min(len(mean.Attributes), schema.Len())] {
		out.attributes[field] = valueSizes{
			wire: a.Share*float64(entry+value+len(schema.Field(field).Name)) + a.Texts*text + a.TextBytes,
			heap: a.Share*valueHeap + a.Texts*listedHeap + a.TextBytes,
		}
	}
	return out
}

// listedSize returns how many bytes a message takes in a list, in protobuf.
func listedSize(n int) int {
	size := 2 + n
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// sizes returns what rows of a tower take. The first request that asks computes it.
func (s *serving) sizes(kind shard.Kind) *rowSizes {
	known := &s.appSizes
	if kind == shard.Users {
		known = &s.userSizes
	}
	sizes := known.Load()
	if sizes == nil {
		if l, ok := s.snapshot.(*router.Layer); ok {
			sizes = sizesOf(l.MeanRow(kind), l.Tower(kind).Schema())
		} else {
			sizes = sizeRows(s.snapshot.Tower(kind))
		}
		known.Store(sizes)
	}
	return sizes
}

// answerOverhead is about what an answer has beside its candidates, and shardOverhead
// what an explanation has for each shard and id.
const (
	answerOverhead = 400
	shardOverhead  = 250
)

// estimate returns what a request, which keeps the contract's rules, will cost where so
// many processors search at a time.
func (p *pinned) estimate(r *tandemv1.RetrieveRequest, processors int) cost {
	k := p.estimateOne(r, processors)
	if p.twin != nil && p.twin.pinned != nil {
		other := p.twin.estimateOne(r, processors)
		k.answer = max(k.answer, other.answer) + int(r.K)*(len(p.name)+len(p.twin.name))
		k.work, k.memory = k.work+other.work, k.memory+other.memory
	}
	return k
}

// estimateOne is estimate of a request that one arm answers.
func (p *pinned) estimateOne(r *tandemv1.RetrieveRequest, processors int) cost {
	tower := p.tower(kindOf(r.Target))
	before := earlier(r)
	l := shard.Load{
		Vectors: max(len(r.Vectors), 1), K: min(int(r.K), maxCandidates-before), Before: before, Ef: int(r.GetEf()), Target: DefaultRecallTarget,
		Rows: tower.Rows(), Filter: len(r.Filter), Listed: len(r.IncludeIds) + len(r.ExcludeIds),
		Limits: len(r.AtMost), Explain: len(r.ExplainIds),
		Filtered: r.Filter != "" || r.Segment != "" || len(r.IncludeIds) > 0 || len(r.ExcludeIds) > 0,
	}
	if r.RecallTarget != nil {
		l.Target = *r.RecallTarget
	}
	if rows, ok := tower.SegmentSize(r.Segment); ok {
		l.Rows = min(l.Rows, rows)
	}
	if len(r.IncludeIds) > 0 {
		l.Rows = min(l.Rows, len(r.IncludeIds))
	}
	message := 24*(len(r.IncludeIds)+len(r.ExcludeIds)) + len(r.Filter)
	for _, v := range r.Bindings {
		n := len(v.GetListValue().GetValues())
		l.Listed += n
		message += 128 * (1 + n)
	}
	for _, v := range r.Vectors {
		message += 4 * len(v.GetValues())
	}
	k := float64(min(l.K, l.Rows))
	sizes := p.sizes(tower.Kind())
	wire, heap := sizes.id, candidateHeap+sizes.id
	fields := returned(tower, r.Attributes)
	if l.Returned = len(fields); l.Returned > 0 {
		heap += mapHeap
	}
	for _, field := range fields {
		wire += sizes.attributes[field].wire
		heap += sizes.attributes[field].heap
	}
	k = min(k, float64(l.Rows))
	answer := int(k*wire) + answerOverhead
	if r.Explain || len(r.ExplainIds) > 0 {
		answer += shardOverhead * (len(tower.Parts()) + len(r.ExplainIds))
	}
	work := tower.Cost(l)
	if x := p.explore; x != nil && x.does && x.may(r) {
		further := l
		further.K, further.Before, further.Returned = x.Pool-l.K, l.K, 0
		work += tower.Cost(further)
		answer += int(k) * propensityBytes
	}
	return cost{
		work: work, answer: answer,
		memory: message + tower.Memory(l, processors) + int(k*heap) + encodings*answer,
	}
}

// propensityBytes is what the propensity of a candidate takes in an answer.
const propensityBytes = 5

// encodings is how many times an answer in protobuf is in memory while it is encoded: in
// JSON it is larger, and it may be compressed.
const encodings = 4

// returned returns the schema positions of the attributes that a request names. Those
// that there are not are rejected later.
func returned(tower *shard.Tower, names []string) []int {
	var fields []int
	schema := tower.Schema()
	for _, name := range names {
		if name == allAttributes {
			fields = fields[:0]
			for field := range schema.Len() {
				fields = append(fields, field)
			}
			return fields
		}
		if field, ok := schema.Lookup(name); ok {
			fields = append(fields, field)
		}
	}
	return fields
}

// servingSizes are computed when they are first asked for.
type servingSizes struct {
	appSizes, userSizes atomic.Pointer[rowSizes]
}
