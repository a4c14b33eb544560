package server

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// hashRequest returns a hash of all of a request but what may differ from page to page: k,
// page_token, explain, explain_ids, attributes, min_live, request_id, experiment, variant and min_coverage. It is
// the same in every process.
func hashRequest(r *tandemv1.RetrieveRequest) uint64 {
	var h requestHash
	h.Reset()
	h.floats(1, r.Vector)
	for _, v := range r.Vectors {
		h.floats(2, v.GetValues())
	}
	h.text(3, r.UserId)
	h.text(4, r.AppId)
	h.number(5, uint64(r.Target))
	h.text(7, r.Filter)
	h.bindings(8, r.Bindings)
	h.texts(9, r.ExcludeIds)
	h.text(10, r.ModelVersion)
	if r.RecallTarget != nil {
		h.number(11, math.Float64bits(*r.RecallTarget))
	}
	if r.Ef != nil {
		h.number(12, uint64(*r.Ef))
	}
	h.texts(17, r.IncludeIds)
	for _, limit := range r.AtMost {
		h.text(18, limit.GetAttribute())
		h.number(18, uint64(limit.GetN()))
	}
	h.text(20, r.Segment)
	h.text(21, r.RequestKey)
	h.number(22, uint64(r.Fallback))
	return h.Sum64()
}

// requestHash hashes the fields of a request: of each its number, and what it has, of a
// known length.
type requestHash struct{ xxhash.Digest }

func (h *requestHash) uint64(n uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], n)
	_, _ = h.Write(b[:]) // it never fails, nor does WriteString
}

func (h *requestHash) number(field, n uint64) {
	h.uint64(field)
	h.uint64(n)
}

func (h *requestHash) text(field uint64, text string) {
	h.number(field, uint64(len(text)))
	_, _ = h.WriteString(text)
}

func (h *requestHash) texts(field uint64, list []string) {
	h.number(field, uint64(len(list)))
	for _, text := range list {
		h.uint64(uint64(len(text)))
		_, _ = h.WriteString(text)
	}
}

func (h *requestHash) floats(field uint64, list []float32) {
	h.number(field, uint64(len(list)))
	var b [256]byte
	for len(list) > 0 {
		n := min(len(list), len(b)/4)
		for i, x := range list[:n] {
			binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
		}
		_, _ = h.Write(b[:4*n])
		list = list[n:]
	}
}

// bindings adds up the hashes of bindings, which have no order.
func (h *requestHash) bindings(field uint64, values map[string]*structpb.Value) {
	h.number(field, uint64(len(values)))
	var sum uint64
	for name, v := range values {
		var one requestHash
		one.Reset()
		one.text(field, name)
		one.value(v)
		sum += one.Sum64()
	}
	h.uint64(sum)
}

// value hashes the value of a binding: its kind, by the number of its field, and what it is.
func (h *requestHash) value(v *structpb.Value) {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		h.number(2, math.Float64bits(kind.NumberValue))
	case *structpb.Value_StringValue:
		h.text(3, kind.StringValue)
	case *structpb.Value_BoolValue:
		n := uint64(0)
		if kind.BoolValue {
			n = 1
		}
		h.number(4, n)
	case *structpb.Value_StructValue:
		h.bindings(5, kind.StructValue.GetFields())
	case *structpb.Value_ListValue:
		list := kind.ListValue.GetValues()
		h.number(6, uint64(len(list)))
		for _, v := range list {
			h.value(v)
		}
	default:
		h.number(1, 0)
	}
}
