package remote

import (
	"bufio"
	"bytes"
	"context"
	"net"

	"google.golang.org/protobuf/proto"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// NewHandlerOf is NewHandler of a build that speaks another protocol.
func NewHandlerOf(holder Holder, o Options, protocol, oldest uint32) (string, *Handler) {
	return newHandler(&Handler{holder: holder, o: o.withDefaults(), protocol: protocol, oldest: oldest})
}

// Speak has requests be of a protocol, as a newer build has them.
func (n *Node) Speak(protocol uint32) { n.protocol.Store(protocol) }

// Spoken returns the protocol that requests are of.
func (n *Node) Spoken() uint32 { return n.protocol.Load() }

// ReadReply reads the bytes of a reply to a request.
func ReadReply(data []byte, r *shard.Request, metric index.Metric, reply *shard.Reply) error {
	var m shardv1.SearchResponse
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	return readReply(&m, r, NewNames(metric), reply)
}

// Answers answers the bytes of a request of any kind, named by a number, as a node does, and
// returns its error.
func Answers(ctx context.Context, holder Holder, kind byte, data []byte) error {
	h := &Handler{holder: holder, o: Options{MaxReplyBytes: 1 << 20}.withDefaults(), protocol: Protocol, oldest: OldestProtocol}
	newHandler(h)
	switch kind % 5 {
	case 0:
		return answers(ctx, h, data, &shardv1.SearchRequest{}, h.search)
	case 1:
		return answers(ctx, h, data, &shardv1.ExplainRequest{}, h.explain)
	case 2:
		return answers(ctx, h, data, &shardv1.VectorsRequest{}, h.vectors)
	case 3:
		return answers(ctx, h, data, &shardv1.AttributesRequest{}, h.attributes)
	}
	return answers(ctx, h, data, &shardv1.GetShardRequest{}, h.getShard)
}

func answers[M, R any, P interface {
	asked[M]
	proto.Message
}](ctx context.Context, h *Handler, data []byte, m P, do func(context.Context, *held, *M) (*R, error)) error {
	if proto.Unmarshal(data, m) != nil {
		return nil //nolint:nilerr // it is not for the handler to answer
	}
	_, err := answer(ctx, h, m.GetState(), func(s *held) (*R, error) { return do(ctx, s, m) })
	return err
}

// What lines begin with.
const (
	LinePath = linePath
	LineName = lineName
)

// CallLine sends a message on a connection that speaks in frames, and reads what is answered.
func CallLine(ctx context.Context, conn net.Conn, message []byte, in *bytes.Buffer, most int) (kind byte, err error) {
	one := &line{conn: conn, r: bufio.NewReader(conn)}
	frame := append(make([]byte, askHead), message...)
	return one.call(ctx, frame, 0, in, &NodeOptions{MaxReplyBytes: most, Silence: DefaultSilence})
}

// FrameError returns the error that a message is.
func FrameError(message []byte) error { return readFrameError(message) }
