package attack

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// The most that the contract accepts.
const (
	maxK       = 10_000
	maxVectors = 32
	maxEf      = 1_000_000
	maxIDs     = 100_000
	maxIDBytes = 256
	maxBatch   = 256
	maxExplain = 100
)

// user is a query by a user that exists.
func (c *campaign) user(r *rand.Rand, k uint32) *tandemv1.RetrieveRequest {
	return &tandemv1.RetrieveRequest{UserId: pick(r, c.target.Users...), K: k}
}

// vector returns a vector as the target's models may have them.
func (c *campaign) vector(r *rand.Rand) []float32 {
	v := make([]float32, c.target.Dim)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func (c *campaign) vectors(r *rand.Rand, n int) []*tandemv1.Vector {
	list := make([]*tandemv1.Vector, n)
	for i := range list {
		list[i] = &tandemv1.Vector{Values: c.vector(r)}
	}
	return list
}

// sendBatch sends as much as a batch may ask for, and batches that are partly wrong.
func sendBatch(ctx context.Context, a *attacker) {
	b := &tandemv1.BatchRetrieveRequest{}
	k := pick(a.rand, uint32(1), 10, 100, 1000, maxK)
	for i := range pick(a.rand, 2, 16, 96, maxBatch) {
		r := a.user(a.rand, k)
		switch a.rand.IntN(12) {
		case 0, 1, 2:
			r.Attributes = []string{"*"}
		case 3:
			r.UserId = "nobody"
		case 4:
			r.Filter = a.filter(a.rand, 200)
		case 5:
			r.UserId, r.Vectors = "", a.vectors(a.rand, 8)
		case 6:
			r.K = 0
		case 7:
			r.ExplainIds = a.target.Apps[:min(len(a.target.Apps), maxExplain)]
		}
		if i == 0 && a.chance(4) {
			r.Attributes = []string{"*"}
		}
		b.Requests = append(b.Requests, r)
	}
	a.send(ctx, "BatchRetrieve", b)
}

// sendVectors asks with as many vectors and as much effort as one query may.
func sendVectors(ctx context.Context, a *attacker) {
	r := &tandemv1.RetrieveRequest{Vectors: a.vectors(a.rand, pick(a.rand, 1, 8, maxVectors)), K: pick(a.rand, uint32(10), 1000, maxK)}
	if a.chance(2) {
		r.Ef = ptr(pick(a.rand, uint32(1), 10_000, maxEf))
	} else {
		r.RecallTarget = ptr(pick(a.rand, 1, 0.999999, math.SmallestNonzeroFloat64))
	}
	if a.chance(3) {
		r.Target = tandemv1.Tower_TOWER_USERS
	}
	if a.chance(4) {
		r.Attributes = []string{"*"}
	}
	r.MinCoverage = pick(a.rand, nil, ptr(0.0), ptr(1.0))
	a.send(ctx, "Retrieve", r)
}

// sendIDs sends as many ids as one query may have: of the target, unknown, equal, long.
func sendIDs(ctx context.Context, a *attacker) {
	shape := pick(a.rand, "known", "unknown", "equal", "long", "unicode", "one byte", "too long", "both")
	include := a.chance(2)
	p := pick(a.rand, connectProto, grpcProto, connectJSON)
	name, body := a.kept(fmt.Sprint("ids/", shape, include, p == connectJSON), 2, func(r *rand.Rand) []byte {
		q := a.user(r, pick(r, uint32(1), 100, maxK))
		list := a.ids(r, shape)
		if include || shape == "both" {
			q.IncludeIds = list
		}
		if !include || shape == "both" {
			q.ExcludeIds = list
		}
		return marshal(p, q)
	})
	a.do(ctx, call{path: methodPath("Retrieve"), protocol: p, name: name, body: body, encoding: pick(a.rand, "", "gzip", "zstd")})
}

func (c *campaign) ids(r *rand.Rand, shape string) []string {
	n, each := maxIDs, func(i int) string { return fmt.Sprint("unknown-", i) }
	switch shape {
	case "known", "both":
		each = func(int) string { return pick(r, c.target.Apps...) }
		if shape == "both" {
			n /= 2
		}
	case "equal":
		each = func(int) string { return c.target.Apps[0] }
	case "long":
		n = 30_000
		each = func(i int) string { return fmt.Sprintf("%0*d", maxIDBytes, i) }
	case "unicode":
		n = 50_000
		each = func(i int) string { return strings.Repeat("e\u0301\u202e\U0001f3ae", 8) + fmt.Sprint(i) }
	case "one byte":
		each = func(i int) string { return string(rune(1 + i%127)) }
	case "too long":
		n = 20
		each = func(int) string { return strings.Repeat("x", 400<<10) }
	}
	list := make([]string, n)
	for i := range list {
		list[i] = each(i)
	}
	return list
}

// sendBindings binds long lists and uses them often.
func sendBindings(ctx context.Context, a *attacker) {
	uses := pick(a.rand, 1, 10, 100, 1000)
	name, body := a.kept(fmt.Sprint("bindings/", uses), 3, func(r *rand.Rand) []byte {
		values := make([]*structpb.Value, pick(r, 1000, 20_000, 400_000))
		number := r.IntN(2) == 0
		for i := range values {
			if number {
				values[i] = structpb.NewNumberValue(float64(i))
			} else {
				values[i] = structpb.NewStringValue(fmt.Sprint("w", i))
			}
		}
		field := first(a.target.named(attribute.Keyword, attribute.KeywordList))
		use := field + " in user.l"
		if number {
			use = first(a.target.named(attribute.Int)) + " in user.l"
		} else if r.IntN(2) == 0 {
			use = "user.l.exists(x, x in " + field + ")"
		}
		var filter strings.Builder
		for i := range uses {
			if filter.Len()+len(use)+16 > 16<<10 {
				break
			}
			if i > 0 {
				filter.WriteString(pick(r, "||", "&&"))
			}
			if r.IntN(2) == 0 {
				filter.WriteString("!")
			}
			fmt.Fprintf(&filter, "(%s)", use)
		}
		q := a.user(r, 10)
		q.Filter = filter.String()
		q.Bindings = map[string]*structpb.Value{"l": structpb.NewListValue(&structpb.ListValue{Values: values})}
		return marshal(connectProto, q)
	})
	a.do(ctx, call{
		path: methodPath("Retrieve"), protocol: pick(a.rand, connectProto, grpcProto), name: name, body: body,
		encoding: pick(a.rand, "", "gzip", "zstd"), timeout: pick(a.rand, 0, time.Millisecond, time.Second),
	})
}

// first returns the first of a list of names, or one that nothing has.
func first(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return names[0]
}

// sendExplain asks for all that may be explained and limited.
func sendExplain(ctx context.Context, a *attacker) {
	q := a.user(a.rand, pick(a.rand, uint32(10), 1000, maxK))
	for range maxExplain {
		q.ExplainIds = append(q.ExplainIds, pick(a.rand, pick(a.rand, a.target.Apps...), "unknown", strings.Repeat("y", maxIDBytes)))
	}
	q.AtMost = a.atMost(a.rand)
	if a.chance(2) {
		q.Filter = a.filter(a.rand, 16<<10)
	}
	a.send(ctx, "Retrieve", q)
}

// sendAtMost passes over nearly all that there is.
func sendAtMost(ctx context.Context, a *attacker) {
	q := a.user(a.rand, maxK)
	q.AtMost = a.atMost(a.rand)
	if a.chance(2) {
		q.UserId, q.Vectors = "", a.vectors(a.rand, maxVectors)
	}
	if a.chance(3) {
		q.RecallTarget = ptr(1.0)
	}
	a.send(ctx, "Retrieve", q)
}

func (c *campaign) atMost(r *rand.Rand) []*tandemv1.AtMost {
	var list []*tandemv1.AtMost
	for _, name := range c.target.named(attribute.Keyword, attribute.KeywordList, attribute.Int, attribute.Bool) {
		if len(list) < 8 {
			list = append(list, &tandemv1.AtMost{Attribute: name, N: pick(r, uint32(1), 1, 2, 10_000)})
		}
	}
	return list[min(len(list), r.IntN(3)):]
}

// sendNumbers sends vectors of numbers that arithmetic is not made for.
func sendNumbers(ctx context.Context, a *attacker) {
	v := a.vector(a.rand)
	strange := pick(a.rand, float32(math.NaN()), float32(math.Inf(1)), math.MaxFloat32, -math.MaxFloat32,
		math.SmallestNonzeroFloat32, 1e-40, 0, float32(math.Copysign(0, -1)))
	for i := range v {
		if a.chance(2) {
			v[i] = strange
		}
	}
	q := &tandemv1.RetrieveRequest{Vector: v, K: pick(a.rand, uint32(0), 1, 100, math.MaxUint32)}
	switch a.rand.IntN(6) {
	case 0:
		q.Vector = make([]float32, 1_000_000)
	case 1:
		q.Vector = v[:len(v)-1]
	case 2:
		q.Vector, q.Vectors = nil, []*tandemv1.Vector{{Values: v}, {}, {Values: make([]float32, 100_000)}}
	case 3:
		q.Ef, q.RecallTarget, q.MinCoverage = ptr(uint32(0)), ptr(math.NaN()), ptr(math.Inf(-1))
	}
	a.send(ctx, "Retrieve", q)
}

// sendHurried sends what takes long with deadlines that are too short, and goes away.
func sendHurried(ctx context.Context, a *attacker) {
	q := &tandemv1.RetrieveRequest{Vectors: a.vectors(a.rand, maxVectors), K: maxK, Ef: ptr(uint32(maxEf)), MinCoverage: ptr(0.0)}
	if a.chance(3) {
		q.Filter = a.filter(a.rand, 16<<10)
	}
	c := call{path: methodPath("Retrieve"), protocol: pick(a.rand, connectProto, grpcProto, grpcWeb), body: marshal(connectProto, q)}
	for range 20 {
		c.timeout, c.cancel = time.Millisecond, 0
		if a.chance(2) {
			c.timeout, c.cancel = 0, time.Duration(1+a.rand.IntN(20_000))*time.Microsecond
		}
		a.do(ctx, c)
	}
}

// storm sends very many small queries at a time, which are all that most callers send.
func storm(ctx context.Context, a *attacker) {
	body, p := a.valid(a.rand), pick(a.rand, connectProto, grpcProto)
	calls := make([]*http.Request, pick(a.rand, 10, 100, 300))
	for i := range calls {
		request, err := a.request(ctx, call{path: methodPath("Retrieve"), protocol: p, body: body})
		if err != nil {
			a.note("not sent")
			return
		}
		calls[i] = request
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, request := range calls {
		all.Go(func() {
			if err := a.exchange(a.http2, p, request); err != nil {
				a.note(broken(ctx, err))
			}
		})
	}
}

// sendNames sends names that nothing has, which are long, many and of strange characters.
func sendNames(ctx context.Context, a *attacker) {
	strange := pick(a.rand, "\u0000", "\u202e", "\r\nGrpc-Status: 0\r\n", "%s%n", "e\u0301", "\U0001f3ae", "../", "<script>", "*")
	name := strings.Repeat(strange, pick(a.rand, 1, 20, 1000, 100_000))
	q := a.user(a.rand, 10)
	switch a.rand.IntN(7) {
	case 0:
		q.Segment = name
	case 1:
		q.ModelVersion = name
	case 2:
		q.RequestId = name
	case 3:
		q.RequestKey = name
	case 4:
		q.UserId = name
	case 5:
		for i := range 256 {
			q.Attributes = append(q.Attributes, name[:min(len(name), 8000)]+fmt.Sprint(i))
		}
	case 6:
		q.AtMost = []*tandemv1.AtMost{{Attribute: name, N: 1}, {Attribute: name, N: math.MaxUint32}}
	}
	a.send(ctx, "Retrieve", q)
}

// sendEmbeddings asks for as many vectors as may be.
func sendEmbeddings(ctx context.Context, a *attacker) {
	q := &tandemv1.GetEmbeddingsRequest{Tower: pick(a.rand, tandemv1.Tower_TOWER_APPS, tandemv1.Tower_TOWER_USERS, 7)}
	shape := a.rand.IntN(4)
	for range pick(a.rand, 1, 1000, 1000, 1001) {
		switch shape {
		case 0:
			q.Ids = append(q.Ids, strings.Repeat("z", maxIDBytes))
		case 1:
			q.Ids = append(q.Ids, a.target.Users[0])
		case 2:
			q.Ids = append(q.Ids, "")
		default:
			q.Ids = append(q.Ids, pick(a.rand, a.target.Apps...))
		}
	}
	a.send(ctx, "GetEmbeddings", q)
}

func ptr[T any](v T) *T { return &v }
