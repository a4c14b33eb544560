package attack

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
)

// maxMessage is the largest message that a server accepts by default.
const maxMessage = 8 << 20

// Numbers of fields of RetrieveRequest, by what an empty element of them is.
var (
	listFields   = []protowire.Number{9, 13, 17, 19} // strings
	structFields = []protowire.Number{2, 8, 18}      // messages
)

// sendEmpties sends lists of very many empty elements, which are two bytes each.
func sendEmpties(ctx context.Context, a *attacker) {
	method := pick(a.rand, "Retrieve", "Retrieve", "BatchRetrieve", "GetEmbeddings")
	name, body := a.kept("empties/"+method, 8, func(r *rand.Rand) []byte {
		n := pick(r, 1000, 50_000, 1_000_000, maxMessage/2-100)
		field := pick(r, pick(r, listFields...), pick(r, structFields...), protowire.Number(1), protowire.Number(500))
		if method == "BatchRetrieve" {
			field = 1
		} else if method == "GetEmbeddings" {
			field = 2
		}
		element := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), nil)
		return append(a.valid(r), bytes.Repeat(element, n)...)
	})
	a.do(ctx, call{
		path: methodPath(method), protocol: pick(a.rand, connectProto, grpcProto, grpcWeb), name: name, body: body,
		encoding: pick(a.rand, "", "gzip", "gzip", "zstd"),
	})
}

// valid is a small query.
func (c *campaign) valid(r *rand.Rand) []byte { return marshal(connectProto, c.user(r, 10)) }

// sendGzipBomb and sendZstdBomb send little that becomes much when it is decompressed.
func sendGzipBomb(ctx context.Context, a *attacker) { a.sendBomb(ctx, "gzip") }

func sendZstdBomb(ctx context.Context, a *attacker) { a.sendBomb(ctx, "zstd") }

func (a *attacker) sendBomb(ctx context.Context, encoding string) {
	name, body := a.kept("bomb/"+encoding, 6, func(r *rand.Rand) []byte {
		switch r.IntN(6) {
		case 0:
			return zeros(encoding, 256, 1)
		case 1:
			return zeros(encoding, 8, 500)
		case 2: // empty members
			return bytes.Repeat(compress(encoding, nil), 200_000)
		case 3: // a frame of zstd that says that it has 2^60 bytes, and another of a window of 2^41
			return []byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 0, 0}
		case 4:
			return append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8}, bytes.Repeat([]byte{0x02, 0xff, 0xff, 0}, 1000)...)
		}
		whole := compress(encoding, bytes.Repeat(a.valid(r), 1000))
		return whole[:len(whole)/2]
	})
	p := pick(a.rand, connectProto, connectJSON, grpcProto, grpcWeb)
	if p == grpcProto || p == grpcWeb {
		body = a.bank.get(name+".enveloped", func() []byte { return envelope(body, true) })
	}
	a.do(ctx, call{path: methodPath(pick(a.rand, "Retrieve", "BatchRetrieve", "GetEmbeddings")), protocol: p, body: body, packed: true, encoding: encoding})
}

// sendNested sends messages that are nested as deep as their size allows.
func sendNested(ctx context.Context, a *attacker) {
	if a.chance(2) {
		name, body := a.kept("nested/json", 6, func(r *rand.Rand) []byte {
			n := pick(r, 100, 10_000, 1_000_000)
			inner := strings.Repeat("[", n) + strings.Repeat("]", n)
			switch r.IntN(5) {
			case 0:
				inner = strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n)
			case 1:
				inner = strings.Repeat("[", n)
			case 2:
				return []byte(inner)
			case 3:
				return []byte(`{"unknown":` + inner + `}`)
			}
			return []byte(`{"userId":"u","k":1,"bindings":{"l":` + inner + `}}`)
		})
		a.do(ctx, call{path: methodPath(pick(a.rand, "Retrieve", "BatchRetrieve")), protocol: connectJSON, name: name, body: body, encoding: pick(a.rand, "", "gzip")})
		return
	}
	name, body := a.kept("nested/proto", 6, func(r *rand.Rand) []byte {
		depth := pick(r, 90, 5000, 100_000)
		switch r.IntN(3) {
		case 0: // groups of an unknown field, some of which end
			n := depth * pick(r, 1, 10)
			return append(bytes.Repeat([]byte{0xab, 0x06}, n), bytes.Repeat([]byte{0xac, 0x06}, n*r.IntN(2))...)
		case 1: // unknown fields
			return bytes.Repeat([]byte{0xa2, 0x06, 0}, maxMessage/3-10)
		}
		// Lists in lists, in a binding: each level says how long what is in it is.
		value := []byte{}
		for range min(depth, 10_000) {
			list := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), value)
			value = protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), list)
		}
		entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "l")
		entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), value)
		return protowire.AppendBytes(protowire.AppendTag(a.valid(r), 8, protowire.BytesType), entry)
	})
	a.do(ctx, call{path: methodPath("Retrieve"), protocol: pick(a.rand, connectProto, grpcProto), name: name, body: body, encoding: pick(a.rand, "", "gzip")})
}

// sendJSON sends JSON that is hard to read, or is none.
func sendJSON(ctx context.Context, a *attacker) {
	name, body := a.kept("json", 14, func(r *rand.Rand) []byte {
		big := 2_000_000
		q := func(rest string) []byte { return []byte(`{"userId":"u","k":1,` + rest + `}`) }
		switch r.IntN(12) {
		case 0:
			return q(`"recallTarget":1e` + strings.Repeat("9", big))
		case 1:
			return q(`"ef":` + strings.Repeat("9", big))
		case 2:
			return q(strings.Repeat(" ", big) + `"ef":1`)
		case 3:
			return q(`"filter":"` + strings.Repeat(`\u0000`, big/6) + `"`)
		case 4:
			return q(`"` + strings.Repeat("x", big) + `":1`)
		case 5:
			return q(`"userId":"` + strings.Repeat(`\ud800`, big/6) + `"`)
		case 6:
			var b strings.Builder
			for i := range 300_000 {
				fmt.Fprintf(&b, `%q:%d,`, fmt.Sprint("n", i), i)
			}
			return q(`"bindings":{` + strings.TrimSuffix(b.String(), ",") + `}`)
		case 7:
			return q(strings.Repeat(`"bindings":{"a":[1]},`, 100_000) + `"ef":1`)
		case 8:
			return q(`"vectors":[` + strings.Repeat(`{},`, big/3) + `{}]`)
		case 9:
			return q("\"requestId\":\"" + strings.Repeat("\xff\xfe", big/2) + "\"")
		case 10:
			return []byte(`{"requests":[` + strings.Repeat(`{"filter":"x"},`, 300_000) + `{}]}`)
		}
		return []byte(`{"vector":[` + strings.Repeat(`1e-400,`, big/8) + `"NaN"]}`)
	})
	a.do(ctx, call{
		path: methodPath(pick(a.rand, "Retrieve", "BatchRetrieve", "GetEmbeddings")), protocol: connectJSON, name: name, body: body,
		encoding: pick(a.rand, "", "gzip", "zstd"),
	})
}

// sendGarbage sends messages of which some bytes are changed, left out or of no sense.
func sendGarbage(ctx context.Context, a *attacker) {
	for range 20 {
		p := pick(a.rand, connectProto, connectJSON, grpcProto, grpcWeb, connectGet)
		q := a.user(a.rand, 10)
		q.Filter, q.AtMost, q.RequestId = a.filter(a.rand, 100), a.atMost(a.rand), "\u202e\r\nrequest"
		q.ExcludeIds = []string{"a", "b"}
		body := marshal(p, q)
		if a.chance(4) {
			body = marshal(p, &tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{q, q}})
		}
		for range 1 + a.rand.IntN(10) {
			if len(body) == 0 {
				break
			}
			at := a.rand.IntN(len(body))
			switch a.rand.IntN(4) {
			case 0:
				body[at] = byte(a.rand.Uint32())
			case 1:
				body = body[:at]
			case 2:
				body = append(body[:at:at], body[at/2:]...)
			case 3:
				body[at] ^= 1 << a.rand.IntN(8)
			}
		}
		a.do(ctx, call{
			path: methodPath(pick(a.rand, "Retrieve", "BatchRetrieve", "GetEmbeddings")), protocol: p, body: body,
			encoding: pick(a.rand, "", "gzip", "zstd"),
		})
	}
}

// sendEnvelopes sends envelopes of gRPC that lie.
func sendEnvelopes(ctx context.Context, a *attacker) {
	message := a.valid(a.rand)
	for range 10 {
		length := pick(a.rand, 0, 1, uint32(len(message)), uint32(len(message))+1, maxMessage, maxMessage+1, 1<<31-1, 1<<31, 1<<32-1)
		head := binary.BigEndian.AppendUint32([]byte{pick(a.rand, byte(0), 0, 1, 2, 0x80, 0xff)}, length)
		body := slices.Concat(head, message)
		switch a.rand.IntN(5) {
		case 0:
			body = body[:a.rand.IntN(6)]
		case 1:
			body = append(body, body...)
		case 2:
			body = bytes.Repeat(envelope(message, false), 1000)
		case 3:
			body = append(body, make([]byte, 1<<20)...)
		}
		c := call{path: methodPath("Retrieve"), protocol: pick(a.rand, grpcProto, grpcWeb), body: body, packed: true, encoding: pick(a.rand, "", "", "gzip", "zstd")}
		if a.chance(6) {
			c.header = map[string]string{"Content-Type": pick(a.rand, "application/grpc-web-text", "application/grpc+json", "application/connect+proto", "application/grpc+thrift")}
		}
		a.do(ctx, c)
	}
}

// sendHeaders sends headers, URLs and types that fit nothing.
func sendHeaders(ctx context.Context, a *attacker) {
	long := strings.Repeat("h", pick(a.rand, 10, 1000, 60_000, 130_000, 500_000))
	headers := []map[string]string{
		{"Content-Type": "text/plain"}, {"Content-Type": long}, {"Content-Type": ""}, {"Content-Type": "application/proto; charset=" + long},
		{"Content-Encoding": "br"}, {"Content-Encoding": long}, {"Content-Encoding": "gzip, gzip"}, {"Grpc-Encoding": "snappy"},
		{"Connect-Protocol-Version": "2"}, {"Connect-Protocol-Version": long}, {"Connect-Timeout-Ms": "-1"}, {"Connect-Timeout-Ms": "99999999999"},
		{"Connect-Timeout-Ms": "0"}, {"Grpc-Timeout": "99999999H"}, {"Grpc-Timeout": "0n"}, {"Grpc-Timeout": "1x"}, {"Accept-Encoding": strings.Repeat("gzip,", 10_000)},
		{"X-Request-Id": long}, {"X-Request-Id": "\u202e\u0000id"}, {"Traceparent": "00-" + long}, {"Grpc-Metadata-Bin": "!!!"}, {"Expect": "100-continue"},
		{"Range": "bytes=0-1,2-3"}, {"Cookie": long}, {"X-Http-Method-Override": "DELETE"},
	}
	for range 10 {
		c := call{
			path: methodPath("Retrieve"), protocol: pick(a.rand, connectProto, connectJSON, grpcProto, grpcWeb),
			body: a.valid(a.rand), header: pick(a.rand, headers...),
		}
		switch a.rand.IntN(6) {
		case 0:
			c.header = map[string]string{}
			for i := range 2000 {
				c.header[fmt.Sprint("X-Many-", i)] = "v"
			}
		case 1:
			c.path = pick(a.rand, methodPath("Nothing"), "/tandem.v1.Nothing/Retrieve", "/"+long, "//..%2f", "/healthz", "/readyz", "/debug/pprof/heap", "/grpc.health.v1.Health/Check")
		case 2:
			c.protocol, c.encoding = connectGet, pick(a.rand, "", "gzip", "br")
			c.body = bytes.Repeat(c.body, pick(a.rand, 1, 1000, 20_000))
		case 3:
			c.protocol = connectGet
			c.path += "?message=%%%&base64=7&x=" + long
		}
		a.do(ctx, c)
	}
}
