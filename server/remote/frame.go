package remote

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
)

// Unary calls go over lines. A line is a connection that begins as a request of HTTP/1.1 with
// the token, for linePath, which asks to go on in frames: the node says 101 (RFC 9110, section
// 7.8). Then the router sends a frame for each call, and the node one or more for its answer.
// One call is under way on a line at a time, so whoever asks writes and reads by itself, and no
// goroutine is woken but by the kernel: a call of HTTP/2 takes four times as much of the
// processors on both sides (BenchmarkSearch). A node of before, which has no lines, is asked by
// Connect; see unary.go.
//
// A frame of a router is a head, little-endian, and a message in protobuf:
//
//	bytes of the message   uint32
//	place in lineMethods   uint8
//	zero                   3 bytes
//	time that is left      int64, in nanoseconds; 0 if there is no end
//
// A frame of a node is a head and a message, that of the method or a google.rpc.Status:
//
//	bytes of the message   uint32
//	kind                   uint8: frameReply, frameError, frameWorking
//	zero                   3 bytes
//
// A frame of kind frameWorking has no message. The node sends one now and then while it works on
// a call, as a sign of life. A line ends when either side closes it; a router that does not want
// the answer of a call does so.
const (
	linePath = "/" + shardv1connect.ShardServiceName + "/Line"
	lineName = "tandem-shard-frames"

	askHead    = 16
	answerHead = 8
)

// lineMethods are the methods of lines. A frame has the place of one here, so more come at the end.
var lineMethods = []string{
	shardv1connect.ShardServiceSearchProcedure, shardv1connect.ShardServiceExplainProcedure, shardv1connect.ShardServiceVectorsProcedure,
	shardv1connect.ShardServiceAttributesProcedure, shardv1connect.ShardServiceGetShardProcedure,
}

// The kinds of a node's frames.
const (
	frameReply byte = iota
	frameError
	frameWorking
)

const (
	// workingEvery is how often a node gives a sign of life.
	workingEvery = 250 * time.Millisecond
	// slowestBytes is how many bytes a second a line takes at least.
	slowestBytes = 4 << 20
)

// past ends what waits for a connection.
var past = time.Unix(1, 0)

// transferTime is how long so many bytes may take.
func transferTime(bytes int) time.Duration {
	return time.Duration(bytes) * time.Second / slowestBytes
}

// beginFrame makes a buffer the room of a head.
func beginFrame(b *bytes.Buffer, head int) {
	b.Reset()
	b.Write(make([]byte, head))
}

// endAsk writes the head of a router's frame.
func endAsk(frame []byte, method int, left time.Duration) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-askHead))
	frame[4] = byte(method)
	binary.LittleEndian.PutUint64(frame[8:], uint64(left))
}

// endAnswer writes the head of a node's frame.
func endAnswer(frame []byte, kind byte) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-answerHead))
	frame[4] = kind
}

// readFrame reads the message of a frame.
func readFrame(b *bytes.Buffer, from *bufio.Reader, length int) error {
	b.Reset()
	b.Grow(min(length, keptBuffer)) // what comes decides about more
	_, err := io.CopyN(b, from, int64(length))
	return err
}

// tooLarge is the error of a message that has too many bytes.
func tooLarge(length uint32, most int) error {
	return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("the message has %d bytes; accepted: up to %d", length, most))
}

// appendError appends an error as a frame has it.
func appendError(b *bytes.Buffer, err error) {
	told, ok := errors.AsType[*connect.Error](err)
	if !ok {
		told = connect.NewError(connect.CodeUnknown, errors.New(cut(err.Error())))
	}
	m := &status.Status{Code: int32(told.Code()), Message: told.Message()}
	for _, d := range told.Details() {
		m.Details = append(m.Details, &anypb.Any{TypeUrl: detailPrefix + d.Type(), Value: d.Bytes()})
	}
	if err := marshal(b, m); err != nil { // a text that is no UTF-8
		b.Truncate(answerHead)
		_ = marshal(b, &status.Status{Code: m.Code, Message: "the error cannot be told"})
	}
}

// readFrameError returns the error that a frame has.
func readFrameError(body []byte) error {
	var m status.Status
	if err := proto.Unmarshal(body, &m); err != nil || m.GetCode() == 0 {
		return errors.New("its answer is an error that cannot be read")
	}
	return newWireError(connect.Code(m.GetCode()), m.GetMessage(), m.GetDetails())
}

// methodNumber returns the place of a procedure, which is one of lineMethods.
func methodNumber(procedure string) int { return slices.Index(lineMethods, procedure) }

// isTimeout reports whether a connection was waited for too long.
func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
