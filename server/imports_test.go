package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
)

// importing returns a server that takes events, and what bounds its requests.
func importing(t *testing.T) (*site, *limiter) {
	c := smallTowers(index.Dot).named(t, Config{})
	c.Live = writes()
	return serveLimited(t, followed(t, c), Options{MaxMessageBytes: 64 << 10})
}

// message returns a message of a stream, with n takedowns.
func message(from, n int) *tandemv1.ImportRequest {
	r := &tandemv1.ImportRequest{Author: "import"}
	for i := range n {
		e := takedown(fmt.Sprintf("a%d", from+i))
		e.EventId = fmt.Sprint("import ", from+i)
		r.Events = append(r.Events, e)
	}
	return r
}

// A stream of events is written message by message, by every protocol, and one that is sent
// again counts once.
func TestImport(t *testing.T) {
	s, l := importing(t)
	for round, name := range []string{"connect", "connect json", "connect gzip", "grpc", "grpc json", "grpc-web", "grpc-web json"} {
		stream := s.liveClient(protocols[name]...).Import(t.Context())
		for i := range 5 {
			require.NoError(t, stream.Send(message(10*i, 10)), name)
		}
		got, err := stream.CloseAndReceive()
		require.NoError(t, err, name)
		repeated := uint64(50)
		if round == 0 {
			repeated = 0
		}
		assert.Equal(t, []uint64{50, repeated}, []uint64{got.Msg.Events, got.Msg.RepeatedEvents}, name)
		assert.NotZero(t, got.Msg.Position.Sequence)
	}
	assert.Len(t, s.candidates(t, &tandemv1.RetrieveRequest{}), 10)
	wait(t, func() bool { return l.bytes.inUse() == 0 })

	// Over HTTP/1.1 too.
	stream := tandemv1connect.NewLiveServiceClient(s.http1, s.url).Import(t.Context())
	require.NoError(t, stream.Send(message(0, 10)))
	got, err := stream.CloseAndReceive()
	require.NoError(t, err)
	assert.EqualValues(t, 10, got.Msg.RepeatedEvents)

	stream = s.liveClient().Import(t.Context())
	got, err = stream.CloseAndReceive()
	require.NoError(t, err)
	assert.Zero(t, got.Msg.Events)
	assert.NotZero(t, got.Msg.Position.Sequence, "where the server is")
}

// If a message fails those before it stay, and the error says how many events that are.
func TestImportFails(t *testing.T) {
	s, l := importing(t)
	large := message(0, 1)
	large.Events[0].EventId = ""
	large.Events[0].GetTakedown().Reason = strings.Repeat("x", 100<<10)
	broken := message(30, 2)
	broken.Events[1].GetTakedown().Reason = ""
	for i, test := range []struct {
		message *tandemv1.ImportRequest
		reason  reason
		text    string
	}{
		{broken, reasonRule, "events[1].takedown.reason: reason has 0 bytes; accepted: 1 to 1024; 20 events of the stream were written before"},
		{large, reasonMessage, "the message has more than 65536 bytes; accepted: up to 65536; 20 events of the stream were written before"},
		{&tandemv1.ImportRequest{}, reasonRule, "events has 0 events; accepted: 1 to 1000; 20 events of the stream were written before"},
	} {
		for _, name := range []string{"connect", "grpc", "grpc-web"} {
			stream := s.liveClient(protocols[name]...).Import(t.Context())
			for j := range 2 {
				require.NoError(t, stream.Send(message(10*j, 10)))
			}
			_ = stream.Send(test.message) // the server may have refused it already
			_, err := stream.CloseAndReceive()
			require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), "%d %s: %v", i, name, err)
			assert.ErrorContains(t, err, test.text, name)
			info, _ := detailsOf(t, err)
			assert.Equal(t, string(test.reason), info.GetReason(), name)
		}
	}
	assert.Len(t, s.candidates(t, &tandemv1.RetrieveRequest{}), 40)
	wait(t, func() bool { return l.bytes.inUse() == 0 })
}

// A stream that stalls is ended, whether between messages or within one.
func TestImportStalls(t *testing.T) {
	s, l := importing(t)
	l.idle = 100 * time.Millisecond
	whole, err := proto.Marshal(message(0, 1))
	require.NoError(t, err)
	first := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(whole))), whole...)
	stall := func(client *http.Client, sent []byte) string {
		body, sender := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+tandemv1connect.LiveServiceImportProcedure, body)
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/connect+proto")
		go func() { _, _ = sender.Write(sent) }()
		response, err := client.Do(r)
		require.NoError(t, err)
		data, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.NoError(t, sender.Close())
		return string(data)
	}
	for i, sent := range [][]byte{nil, first, append(bytes.Clone(first), 0, 0, 0), append(bytes.Clone(first), first[:len(first)-1]...)} {
		for _, client := range []*http.Client{s.http1, s.http2} {
			data := stall(client, sent)
			for tries := 0; tries < 100 && i > 0 && strings.Contains(data, "within 100ms; 0 events"); tries++ { // on a busy machine the first may be late, too
				data = stall(client, sent)
			}
			assert.Contains(t, data, fmt.Sprintf("no whole message arrived within 100ms; %d events", min(i, 1)))
			assert.Contains(t, data, "deadline_exceeded")
		}
	}
	wait(t, func() bool { return l.bytes.inUse() == 0 })
}

// As many streams as are accepted may be open, and none of them keeps the server from ending.
func TestImportsAreFew(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{Logger: slog.New(slog.DiscardHandler)})
	c.Live = writes()
	p := start(t, c)
	var open []*connect.ClientStreamForClient[tandemv1.ImportRequest, tandemv1.ImportResponse]
	for i := range maxImports {
		stream := p.liveClient().Import(t.Context())
		require.NoError(t, stream.Send(message(i, 1)))
		open = append(open, stream)
	}
	wait(t, func() bool { return len(p.candidates(t, &tandemv1.RetrieveRequest{})) == 60-maxImports })
	stream := p.liveClient().Import(t.Context())
	_ = stream.Send(message(20, 1))
	_, err := stream.CloseAndReceive()
	require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), "%v", err)
	p.stop()
	require.NoError(t, <-p.done)
	for _, stream := range open {
		_, err := stream.CloseAndReceive()
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "%v", err)
	}
}
