package remote

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// NodeOptions say how a node is asked. A zero field means its default.
type NodeOptions struct {
	// Address is HOST:PORT. Required.
	Address string
	// TLS has connections speak TLS. It is not changed. Default: nil, they speak clear text.
	TLS *tls.Config
	// Token, if set, returns the token that requests bring. It is called for each.
	Token func() string
	// MaxReplyBytes is how large a reply may be. Default: twice DefaultMaxReplyBytes, for nodes
	// count without what separates fields.
	MaxReplyBytes int
	// Silence is how long nothing may arrive for a call, not even a sign of life, until it is given
	// up, and half of how long nothing may for the status. A process that gets no processor is
	// silent, too. Default: DefaultSilence.
	Silence time.Duration
}

// DefaultSilence is how long a node may be silent by default: one that works on a call gives four
// signs of life in that time.
const DefaultSilence = time.Second

// Node asks one node. It has a connection for the status of the node, which it makes when it is
// asked first and again when that is lost, and as many as calls are under way at a time. It is
// safe for any number of goroutines.
//
// # Errors
//
// An error is that of the context if that has ended; a [*Refusal], of which that of BadQuery
// is of class [index.ErrQuery]; a [*shard.PanicError] of a bug on the node; or any other, which
// says that the node could not be asked, or has replied what is no reply. After such a one
// nothing is known, and another node may be asked the same.
type Node struct {
	o         NodeOptions
	lines     *lines
	transport *http.Transport
	base      string                            // of its URL
	client    shardv1connect.ShardServiceClient // of streams
	protocol  atomic.Uint32                     // that requests are of
	calls     sync.Pool                         // *call
}

const (
	dialTime      = time.Second
	handshakeTime = 2 * time.Second
	idleTime      = 5 * time.Minute
	// routerSilence is how long a router may be silent. Nobody waits for it.
	routerSilence = 20 * time.Second
)

// A frame of HTTP/2 is as large as most replies, so that each is written and read at once, and
// windows have room for several without a word from the reader.
const (
	frameBytes  = 256 << 10
	windowBytes = 4<<20 - 1
)

// HTTP2 returns what the server of a node's handler sets of HTTP/2. Each router has one
// connection, with so many requests at a time.
func HTTP2(streams int) *http.HTTP2Config {
	c := http2Config(routerSilence)
	c.MaxConcurrentStreams = streams
	return c
}

// http2Config returns what both sides set of HTTP/2. A quarter of the silence passes before a
// sign of life is asked for.
func http2Config(silence time.Duration) *http.HTTP2Config {
	return &http.HTTP2Config{
		StrictMaxConcurrentRequests: true,
		MaxReadFrameSize:            frameBytes, MaxReceiveBufferPerConnection: windowBytes, MaxReceiveBufferPerStream: windowBytes,
		SendPingTimeout: silence / 4, PingTimeout: silence - silence/4, WriteByteTimeout: silence,
	}
}

// NewNode returns a node to ask. It does not connect.
func NewNode(o NodeOptions) *Node {
	o.MaxReplyBytes = cmp.Or(o.MaxReplyBytes, 2*DefaultMaxReplyBytes)
	o.Silence = cmp.Or(o.Silence, DefaultSilence)
	n := &Node{o: o}
	n.lines = newLines(&n.o)
	n.protocol.Store(Protocol)
	n.calls.New = func() any { return newCall() }
	dialer := &net.Dialer{Timeout: dialTime, KeepAliveConfig: net.KeepAliveConfig{Enable: false}} // HTTP/2 pings
	n.transport = &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: handshakeTime, IdleConnTimeout: idleTime,
		DisableCompression: true, MaxResponseHeaderBytes: 64 << 10, HTTP2: http2Config(2 * o.Silence), Protocols: new(http.Protocols),
	}
	scheme := "http"
	if o.TLS != nil {
		scheme = "https"
		n.transport.TLSClientConfig = o.TLS.Clone()
		n.transport.Protocols.SetHTTP2(true)
	} else {
		n.transport.Protocols.SetUnencryptedHTTP2(true)
	}
	n.base = scheme + "://" + o.Address
	n.client = shardv1connect.NewShardServiceClient(&http.Client{Transport: n.transport}, n.base,
		connect.WithReadMaxBytes(o.MaxReplyBytes), connect.WithAcceptCompression("gzip", nil, nil))
	return n
}

// Address returns HOST:PORT.
func (n *Node) Address() string { return n.o.Address }

// Close closes each connection once nothing is under way on it.
func (n *Node) Close() {
	n.lines.end()
	n.transport.CloseIdleConnections()
}

// Cut ends all calls that are under way: the node is not expected to answer them. Their errors say
// so, and another node may be asked the same.
func (n *Node) Cut() { n.lines.cut() }

// towers are the towers on the wire.
var towers = map[shard.Kind]tandemv1.Tower{shard.Apps: tandemv1.Tower_TOWER_APPS, shard.Users: tandemv1.Tower_TOWER_USERS}

// stateOf returns a state of a shard on the wire. The error is of class [index.ErrQuery].
func (n *Node) stateOf(of ShardID, at shard.Moment) (*shardv1.ShardState, error) {
	if year := at.Time.Year(); year < 1678 || year > 2261 { // what nanoseconds have room for
		return nil, fmt.Errorf("the time of the request is %s, want one of the years 1678 to 2261: %w", at.Time.Format(time.RFC3339), index.ErrQuery)
	}
	return &shardv1.ShardState{
		Protocol: n.protocol.Load(), Snapshot: string(of.Snapshot), Tower: towers[of.Tower], Number: uint32(of.Number), Of: uint32(of.Of),
		Position: wire.LivePosition(at.Position), UnixNanos: at.Time.UnixNano(),
	}, nil
}

// do makes a call, and once more if the node wants it to be of the protocol before.
func do[R any, Q interface {
	*R
	proto.Message
}](ctx context.Context, n *Node, of ShardID, state *shardv1.ShardState, m proto.Message, procedure string) (*R, error) {
	for {
		reply := new(R)
		err := n.call(ctx, procedure, m, Q(reply))
		if err == nil {
			return reply, nil
		}
		err = n.readError(ctx, of.String(), err)
		if refused, ok := errors.AsType[*Refusal](err); !ok || !n.lower(refused, state) {
			return nil, err
		}
	}
}

// lower makes requests be of a protocol that a node takes which has refused one, and reports
// whether it could.
func (n *Node) lower(r *Refusal, state *shardv1.ShardState) bool {
	if r.Reason != WrongProtocol || r.Protocol < OldestProtocol || r.Protocol >= state.Protocol {
		return false
	}
	state.Protocol = r.Protocol
	n.protocol.Store(r.Protocol)
	return true
}

// authorize adds the token.
func (n *Node) authorize(h http.Header) {
	if n.o.Token != nil {
		h["Authorization"] = []string{"Bearer " + n.o.Token()}
	}
}

// Search makes reply what a shard has of the best rows for a request, at the moment that the
// request names: its zero position is that before all events. names are those of the shard at
// that position.
func (n *Node) Search(ctx context.Context, of ShardID, r *shard.Request, names *Names, reply *shard.Reply) error {
	c := n.calls.Get().(*call)
	defer c.release(&n.calls)
	state, err := n.stateOf(of, r.Moment)
	if err != nil {
		return err
	}
	if err := c.write(state, r, names); err != nil {
		return err
	}
	got, err := do[shardv1.SearchResponse](ctx, n, of, state, c.message, shardv1connect.ShardServiceSearchProcedure)
	if err != nil {
		return err
	}
	if err := readReply(got, r, names, reply); err != nil {
		return n.broken(of, err)
	}
	return nil
}

// broken returns the error of a reply that is none.
func (n *Node) broken(of ShardID, err error) error {
	return fmt.Errorf("reply of node %s for %s: %w", n.o.Address, of, err)
}

// Explain returns for each id what a shard knows of its row; see [shard.Part].
func (n *Node) Explain(ctx context.Context, of ShardID, r *shard.Request, ids []string) ([]shard.ExplainedRow, error) {
	state, err := n.stateOf(of, r.Moment)
	if err != nil {
		return nil, err
	}
	m := &shardv1.ExplainRequest{State: state, Segment: r.Segment, VectorCount: uint32(len(r.Vectors)), Ids: textsOf(ids)}
	if m.Vectors, err = appendVectors(nil, r.Vectors); err != nil {
		return nil, err
	}
	if m.Filter, err = filterOf(r.Filter); err != nil {
		return nil, err
	}
	for _, field := range r.Limited {
		m.Limited = append(m.Limited, uint32(field))
	}
	got, err := do[shardv1.ExplainResponse](ctx, n, of, state, m, shardv1connect.ShardServiceExplainProcedure)
	if err != nil {
		return nil, err
	}
	rows, err := readExplained(got, len(ids), r.Limited)
	if err != nil {
		return nil, n.broken(of, err)
	}
	return rows, nil
}

// Rows are what there is of an id, whatever lies over it.
type Rows struct {
	Told       bool // whether the node tells; older ones do not
	InSnapshot bool // a row of the snapshot, dead or not
	Fresh      bool // a fresh one that is not dead, at whatever times
}

// Rows returns what a shard of vectors of so many components has of an id.
func (n *Node) Rows(ctx context.Context, of ShardID, at shard.Moment, dim int, id string) (Rows, error) {
	state, err := n.stateOf(of, at)
	if err != nil {
		return Rows{}, err
	}
	some := make([]float32, dim) // an older node explains the id, and wants something to compare it with
	some[0] = 1
	m := &shardv1.ExplainRequest{State: state, Vectors: some, VectorCount: 1, Ids: textsOf([]string{id}), Rows: true}
	got, err := do[shardv1.ExplainResponse](ctx, n, of, state, m, shardv1connect.ShardServiceExplainProcedure)
	if err != nil {
		return Rows{}, err
	}
	if len(got.GetRows()) != 1 {
		return Rows{}, n.broken(of, fmt.Errorf("%d rows for 1 id", len(got.GetRows())))
	}
	row := got.Rows[0]
	return Rows{Told: row.InSnapshot != nil, InSnapshot: row.GetInSnapshot(), Fresh: row.GetFreshRow()}, nil
}

func readExplained(m *shardv1.ExplainResponse, want int, limited []int) ([]shard.ExplainedRow, error) {
	if len(m.GetRows()) != want {
		return nil, fmt.Errorf("%d rows for %d ids", len(m.GetRows()), want)
	}
	rows := make([]shard.ExplainedRow, want)
	for i, row := range m.GetRows() {
		rows[i] = shard.ExplainedRow{
			Known: row.GetKnown(), OutsideWindow: row.GetOutsideWindow(), Fresh: row.GetFresh(), Score: row.GetScore(),
			Outside: row.GetOutside(), Eligible: row.GetEligible(), Clause: row.GetClause(),
		}
		if row.GetValues() == nil {
			continue
		}
		var err error
		if rows[i].Values, err = readFieldValues("values", row.GetValues(), limited); err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
	}
	return rows, nil
}

// Vectors sets each place of dst, which is as long as ids, to the embedding of that id, and to
// nil if the shard does not have it. What the node does not return at once is asked for again.
func (n *Node) Vectors(ctx context.Context, of ShardID, at shard.Moment, ids []string, dst [][]float32) error {
	for len(ids) > 0 {
		state, err := n.stateOf(of, at)
		if err != nil {
			return err
		}
		got, err := do[shardv1.VectorsResponse](ctx, n, of, state, &shardv1.VectorsRequest{State: state, Ids: textsOf(ids)}, shardv1connect.ShardServiceVectorsProcedure)
		if err != nil {
			return err
		}
		done, err := readEmbeddings(got, dst)
		if err != nil {
			return n.broken(of, err)
		}
		ids, dst = ids[done:], dst[done:]
	}
	return nil
}

func readEmbeddings(m *shardv1.VectorsResponse, dst [][]float32) (done int, err error) {
	done = int(m.GetDone())
	if done < 1 || done > len(dst) {
		return 0, fmt.Errorf("%d of %d ids are done", done, len(dst))
	}
	vectors, err := readVectors(m.GetVectors(), uint32(len(m.GetFound())))
	if err != nil {
		return 0, err
	}
	clear(dst[:done])
	for i, place := range m.GetFound() {
		if int64(place) >= int64(done) {
			return 0, fmt.Errorf("embedding %d is of place %d of %d", i, place, done)
		}
		dst[place] = vectors[i]
	}
	return done, nil
}

// Attributes sets dst to the attributes of rows, of which names has those that are fresh; see
// [shard.Part]. What the node does not return at once is asked for again.
func (n *Node) Attributes(ctx context.Context, of ShardID, at shard.Moment, names *Names, refs []uint32, fields []int, most int, dst []attribute.Value) (rows int, err error) {
	text := 0
	for rows < len(refs) {
		state, err := n.stateOf(of, at)
		if err != nil {
			return 0, err
		}
		m := &shardv1.AttributesRequest{State: state}
		if most > 0 {
			m.MostText = uint64(max(most-text, 1))
		}
		for _, field := range fields {
			m.Fields = append(m.Fields, uint32(field))
		}
		if m.Ordinals, m.Fresh, err = names.split(refs[rows:], nil); err != nil {
			return 0, err
		}
		got, err := do[shardv1.AttributesResponse](ctx, n, of, state, m, shardv1connect.ShardServiceAttributesProcedure)
		if err != nil {
			return 0, err
		}
		done, bytes, err := readAttributes(got, len(fields), dst[rows*len(fields):])
		if err != nil {
			return 0, n.broken(of, err)
		}
		rows, text = rows+done, text+bytes
		if most > 0 && text > most {
			break
		}
	}
	return rows, nil
}

func readAttributes(m *shardv1.AttributesResponse, fields int, dst []attribute.Value) (rows, text int, err error) {
	rows = int(m.GetRows())
	if rows < 1 || int64(rows)*int64(fields) > int64(len(dst)) || len(m.GetTypes()) != rows*fields {
		return 0, 0, fmt.Errorf("%d types for %d rows of %d attributes, of which %d are wanted", len(m.GetTypes()), rows, fields, len(dst)/max(fields, 1))
	}
	r, err := newAttributeReader(m)
	if err != nil {
		return 0, 0, err
	}
	for i, kind := range m.GetTypes() {
		if dst[i], err = r.next(kind); err != nil {
			return 0, 0, err
		}
		text += textOf(dst[i])
	}
	return rows, text, r.ended()
}

// GetShard returns what does not change of a shard, with the model of what its searches cost.
// The node must have it at that position.
func (n *Node) GetShard(ctx context.Context, of ShardID, at shard.Moment) (*shardv1.GetShardResponse, *index.CostModel, error) {
	state, err := n.stateOf(of, at)
	if err != nil {
		return nil, nil, err
	}
	got, err := do[shardv1.GetShardResponse](ctx, n, of, state, &shardv1.GetShardRequest{State: state}, shardv1connect.ShardServiceGetShardProcedure)
	if err != nil {
		return nil, nil, err
	}
	costs := new(index.CostModel)
	if err := json.Unmarshal(got.GetCostModel(), costs); err != nil {
		return nil, nil, n.broken(of, fmt.Errorf("cost model: %w", err))
	}
	if err := costs.Validate(); err != nil {
		return nil, nil, n.broken(of, fmt.Errorf("cost model: %w", err))
	}
	if err := checkTexts("unformed_ids", got.GetUnformedIds()); err != nil {
		return nil, nil, n.broken(of, err)
	}
	return got, costs, nil
}

// Watch calls told with each status of the node, until ctx ends or the node cannot be asked,
// and returns why. As long as it does, the node keeps the snapshots that are named.
func (n *Node) Watch(ctx context.Context, router string, snapshots []string, told func(*shardv1.NodeStatus)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		protocol := n.protocol.Load()
		r := connect.NewRequest(&shardv1.WatchRequest{Protocol: protocol, Router: router, Snapshots: snapshots})
		n.authorize(r.Header())
		stream, err := n.client.Watch(ctx, r)
		if err == nil {
			for stream.Receive() {
				status := stream.Msg().GetStatus()
				n.raise(status)
				told(status)
			}
			err = errors.Join(stream.Err(), stream.Close())
		}
		if err == nil {
			return fmt.Errorf("watch node %s: it has ended its status", n.o.Address)
		}
		if !connect.IsWireError(err) && !isUnreached(err) && ctx.Err() == nil {
			err = cmp.Or(n.lines.speech(ctx), err)
		}
		err = n.readError(ctx, "its status", err)
		if refused, ok := errors.AsType[*Refusal](err); !ok || !n.lower(refused, &shardv1.ShardState{Protocol: protocol}) {
			return err
		}
	}
}

// raise makes requests be of the highest protocol that both sides speak, by a status.
func (n *Node) raise(s *shardv1.NodeStatus) {
	if spoken := min(s.GetProtocol(), Protocol); spoken >= OldestProtocol {
		n.protocol.Store(spoken)
	}
}
