package server

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// longMessage is a message that takes long to decode for its bytes, and that the contract
// accepts, or refuses only once it is decoded.
type longMessage struct {
	name  string
	empty proto.Message
	codec connect.Codec
	data  []byte
	looks int64 // how often its decoding asks whether it has ended, at least
}

// longMessages returns messages of each kind, of up to so many bytes and elements.
func longMessages(size, elements int) []longMessage {
	one, many := new(tandemv1.RetrieveRequest), new(tandemv1.BatchRetrieveRequest)
	field := func(number protowire.Number, inner []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), inner)
	}
	fit := func(element []byte) []byte { return bytes.Repeat(element, min(elements-300, (size-2000)/len(element))) }
	wire := func(name string, m proto.Message, data []byte) longMessage {
		return longMessage{name: "wire " + name, empty: m, codec: protoCodec{}, data: data, looks: int64(len(data) / (4 * pieceBytes))}
	}
	bound := func(name string, v *structpb.Value) longMessage {
		value, _ := proto.Marshal(v)
		return wire(name, one, field(8, append(field(1, []byte("a")), field(2, field(6, fit(field(1, value))))...)))
	}
	batch := func(name string, element []byte) longMessage { // all in its third query
		return wire(name, many, slices.Concat(field(1, nil), field(1, nil), field(1, fit(element))))
	}
	list := func(element string) string {
		return "[" + strings.TrimSuffix(string(fit([]byte(element+","))), ",") + "]"
	}
	text := func(name string, m proto.Message, data string) longMessage {
		return longMessage{name: "json " + name, empty: m, codec: jsonCodec{"json"}, data: []byte(data), looks: int64(strings.Count(data, ",") / 600)}
	}
	refused := func(l longMessage) longMessage { // once it is counted
		l.looks /= 8
		return l
	}
	return []longMessage{
		bound("empty values", nil),
		bound("strings", structpb.NewStringValue("x")),
		bound("bools", structpb.NewBoolValue(true)),
		batch("ids", field(9, []byte("abcdef"))),
		batch("empty ids", field(9, nil)),
		batch("vectors", field(2, nil)),
		batch("floats", []byte{1<<3 | 5, 0, 0, 128, 63}),
		wire("unknown", one, bytes.Repeat([]byte{0xf8, 0x7c, 0}, size/3)),
		wire("numbers", one, bytes.Repeat([]byte{6 << 3, 1}, size/2)),
		text("numbers", one, `{"bindings":{"a":`+list("1")+`}}`),
		text("strings", one, `{"bindings":{"a":`+list(`"x"`)+`}}`),
		text("decimals", one, `{"bindings":{"a":`+list(`"9007199254740993"`)+`}}`),
		text("escapes", one, `{"bindings":{"a":`+list(`"\u00fc"`)+`}}`),
		text("ids", many, `{"requests":[{},{},{"excludeIds":`+list(`"x"`)+`}]}`),
		text("vectors", many, `{"requests":[{},{},{"vectors":`+list(`{}`)+`}]}`),
		text("floats", many, `{"requests":[{"vector":`+list(`0.12345`)+`}]}`),
		text("float strings", many, `{"requests":[{"vector":`+list(`"1"`)+`}]}`),
		refused(text("small lists", many, `{"requests":`+list(`{"excludeIds":["x","y","z","a","b","c"]}`)+`}`)),
	}
}

// decodeWith decodes a message under a context.
func (l *longMessage) decodeWith(ctx context.Context) (proto.Message, error) {
	m := l.empty.ProtoReflect().New().Interface()
	if err := l.codec.Unmarshal(l.data, m); err != nil {
		return nil, err
	}
	return m, decode(ctx, m)
}

// TestDecodingEndsAnywhere ends the context of requests while their messages are decoded:
// nothing goes on, and nothing stays of the message.
func TestDecodingEndsAnywhere(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, large := range longMessages(256<<10, 20_000) {
		all := &looks{Context: t.Context()}
		_, err := large.decodeWith(all)
		if large.name == "json small lists" {
			require.ErrorContains(t, err, "accepted: 1 to 256")
		} else {
			require.NoError(t, err, large.name)
		}
		total := all.n.Load()
		require.GreaterOrEqual(t, total, large.looks, large.name)
		for _, ends := range []int64{1, 1 + random.Int64N(total/2), total/2 + random.Int64N(total/2-1)} {
			l := &looks{Context: t.Context(), ends: ends}
			m, err := large.decodeWith(l)
			require.Equal(t, context.DeadlineExceeded, err, "%s: after %d of %d looks", large.name, ends, total)
			require.LessOrEqual(t, l.n.Load(), ends+3, "%s: it went on", large.name)
			require.Zero(t, proto.Size(m), large.name)
		}
	}
}

// TestDecodingProperty: a message that is decoded in pieces is what the packages of
// protobuf make of it as a whole, also where a field comes again or it breaks off.
func TestDecodingProperty(t *testing.T) {
	texts := rapid.SampledFrom([]string{"", "x", "ü", strings.Repeat("y", 300), strings.Repeat("z", 3*pieceBytes)})
	drawText := func(t *rapid.T) string { return texts.Draw(t, "text") }
	drawList := func(t *rapid.T) []string {
		return slices.Repeat(rapid.SliceOfN(texts, 0, 5).Draw(t, "texts"), rapid.SampledFrom([]int{1, 3, 30}).Draw(t, "times"))
	}
	drawValue := func(t *rapid.T) *structpb.Value {
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return structpb.NewStringValue(drawText(t))
		case 1:
			return structpb.NewNumberValue(rapid.Float64Range(-9, 9).Draw(t, "number"))
		}
		list := &structpb.ListValue{}
		for _, text := range drawList(t) {
			list.Values = append(list.Values, structpb.NewStringValue(text), structpb.NewNumberValue(1))
		}
		return structpb.NewListValue(list)
	}
	draw := func(t *rapid.T) *tandemv1.RetrieveRequest {
		r := &tandemv1.RetrieveRequest{
			UserId: drawText(t), K: rapid.Uint32Range(0, 3).Draw(t, "k"), ExcludeIds: drawList(t), Filter: drawText(t),
			Bindings: map[string]*structpb.Value{}, Vector: make([]float32, rapid.SampledFrom([]int{0, 2, 3000}).Draw(t, "dim")),
		}
		for range rapid.IntRange(0, 2).Draw(t, "bindings") {
			r.Bindings[drawText(t)] = drawValue(t)
		}
		for range rapid.IntRange(0, 2).Draw(t, "vectors") {
			r.Vectors = append(r.Vectors, &tandemv1.Vector{Values: make([]float32, rapid.SampledFrom([]int{0, 2, 3000}).Draw(t, "dim"))})
		}
		return r
	}
	rapid.Check(t, func(t *rapid.T) {
		batch := &tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{draw(t), {}, draw(t)}}
		for _, m := range []proto.Message{batch, batch.Requests[0]} {
			data, err := proto.Marshal(m)
			require.NoError(t, err)
			more, err := proto.Marshal(batch.Requests[2])
			require.NoError(t, err)
			if m != proto.Message(batch) {
				data = append(data, more...)
			}
			if rapid.Bool().Draw(t, "breaks off") {
				data = data[:rapid.IntRange(0, len(data)).Draw(t, "bytes")]
			}
			want, got := m.ProtoReflect().New().Interface(), m.ProtoReflect().New().Interface()
			wantErr := proto.Unmarshal(data, want)
			d := wireDecoder{pace{ctx: context.Background()}}
			gotErr := d.message(data, got.ProtoReflect())
			require.Equal(t, wantErr == nil, gotErr == nil, "%v, %v", wantErr, gotErr)
			require.True(t, wantErr != nil || proto.Equal(want, got))

			data, err = protojson.Marshal(m)
			require.NoError(t, err)
			got = m.ProtoReflect().New().Interface()
			p := &pace{ctx: context.Background()}
			require.NoError(t, p.unmarshalJSON(data, pacedMessage{got.ProtoReflect(), p}))
			require.True(t, proto.Equal(m, got))
			if len(data) > 2 {
				data = data[:rapid.IntRange(1, len(data)-1).Draw(t, "bytes of JSON")]
				want, got = m.ProtoReflect().New().Interface(), m.ProtoReflect().New().Interface()
				gotErr = p.unmarshalJSON(data, pacedMessage{got.ProtoReflect(), p})
				require.EqualError(t, gotErr, protojson.Unmarshal(data, want).Error())
			}
		}
	})
}

// BenchmarkDecoding decodes the largest messages. It tells how much time of the processor
// that takes, and how much passes at most between two looks whether the request has ended.
func BenchmarkDecoding(b *testing.B) {
	large := longMessages(DefaultMaxMessageBytes, maxElements)
	for name, data := range map[string]string{
		"spaces": `{"k":1` + strings.Repeat(" ", DefaultMaxMessageBytes-8) + `}`,
		"string": `{"filter":"` + strings.Repeat(`\u00fc`, DefaultMaxMessageBytes/6-10) + `"}`,
		"broken": `{"filter":"` + strings.Repeat("x", DefaultMaxMessageBytes-20) + `",`,
		"digits": `{"minCoverage":1` + strings.Repeat("0", DefaultMaxMessageBytes-80) + `e-8388528}`,
	} {
		large = append(large, longMessage{name: "json " + name, empty: new(tandemv1.RetrieveRequest), codec: jsonCodec{"json"}, data: []byte(data)})
	}
	for _, l := range large {
		b.Run(l.name, func(b *testing.B) {
			require.LessOrEqual(b, len(l.data), DefaultMaxMessageBytes)
			start, timed := processorTime(), &timedLooks{Context: b.Context()}
			for b.Loop() {
				timed.last = processorTime()
				_, err := l.decodeWith(timed)
				_ = timed.Err()
				if !slices.Contains([]string{"json small lists", "json broken", "json digits"}, l.name) {
					require.NoError(b, err)
				}
			}
			b.ReportMetric(float64((processorTime()-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(timed.longest.Microseconds())/1000, "cpu-ms/look")
		})
	}
}

// timedLooks is a context that notes how much time of the processor passes between two
// looks whether it has ended.
type timedLooks struct {
	context.Context
	last, longest time.Duration
}

func (l *timedLooks) Err() error {
	now := processorTime()
	l.longest = max(l.longest, now-l.last)
	l.last = now
	return nil
}
