package events_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/tandem-ann/tandem/server/events"
)

// logTo returns a log and its lines so far.
func logTo(level slog.Level) (l *events.Log, lines func() []string) {
	var text bytes.Buffer
	l = events.NewLog(slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: level})))
	return l, func() []string { return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n") }
}

// TestFloods tells of failures that come faster than a log should grow: it has some, how
// many were left out before the next that it tells of, and in the end how many after that.
func TestFloods(t *testing.T) {
	for name, test := range map[string]struct {
		fail     func(l *events.Log, i int)
		line     string
		leftOver string
	}{
		"connections": {
			func(l *events.Log, i int) { l.ConnectionFailed(fmt.Sprint("http2: frame ", i)) },
			`level=WARN msg="connection failed" error="http2: frame 0"`,
			`msg="connections failed that the log left out" left_out=`,
		},
		"requests": {
			func(l *events.Log, i int) {
				l.RequestEnd(events.Request{ID: fmt.Sprint("r", i), Code: "invalid_argument", Err: errors.New("k is 0")})
			},
			`level=INFO msg="request failed" procedure="" request_id=r0 code=invalid_argument duration=0s error="k is 0"`,
			`msg="requests failed that the log left out" left_out=`,
		},
		"overload": {
			func(l *events.Log, i int) {
				l.RequestEnd(events.Request{ID: fmt.Sprint("r", i), Code: "resource_exhausted", Err: errors.New("busy"), Overload: true})
			},
			`level=WARN msg="request failed" procedure="" request_id=r0 code=resource_exhausted duration=0s error=busy`,
			`msg="requests failed that the log left out" left_out=`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, lines := logTo(slog.LevelInfo)
				for i := range 10_000 {
					test.fail(l, i)
				}
				require.Len(t, lines(), 100)
				require.Contains(t, lines()[0], test.line)
				time.Sleep(time.Minute)
				test.fail(l, 0)
				require.Regexp(t, `left_out=9900$`, lines()[100])
				for i := range 200 {
					test.fail(l, i)
				}
				require.Len(t, lines(), 200)
				l.TellLeftOut()
				require.Contains(t, lines()[200], test.leftOver+"101")
				l.TellLeftOut()
				require.Len(t, lines(), 201, "nothing was left out since")
			})
		})
	}
}

// TestOurFaults are told whole, each of them, and so is every request at debug level.
func TestOurFaults(t *testing.T) {
	l, lines := logTo(slog.LevelInfo)
	for range 500 {
		l.RequestEnd(events.Request{ID: "r", Code: "internal", Err: errors.New("internal error"), Cause: errors.New("panic: x")})
		l.RequestEnd(events.Request{ID: "good", Code: "ok"})
	}
	require.Len(t, lines(), 500)
	require.Contains(t, lines()[499], `level=ERROR msg="request failed" procedure="" request_id=r code=internal duration=0s error="panic: x"`)

	l, lines = logTo(slog.LevelDebug)
	for range 500 {
		l.RequestEnd(events.Request{ID: "good", Code: "ok", Peer: "127.0.0.1:1", Protocol: "grpc", HTTP: "HTTP/2.0", Bytes: 3, Length: 5})
		l.RequestEnd(events.Request{ID: "bad", Code: "invalid_argument", Err: errors.New("k is 0")})
	}
	require.Len(t, lines(), 1000)
	require.Contains(t, lines()[0], `level=DEBUG msg=request procedure="" request_id=good code=ok duration=0s peer=127.0.0.1:1 protocol=grpc http=HTTP/2.0 bytes=3 content_length=5`)
}

// TestTee calls every function of a listener: each that listens is told once, in order, and
// nobody needs to listen.
func TestTee(t *testing.T) {
	var told []string
	listen := func(who string) *events.Listener {
		l := &events.Listener{}
		fields := reflect.ValueOf(l).Elem()
		for i := range fields.NumField() {
			fields.Field(i).Set(reflect.MakeFunc(fields.Field(i).Type(), func([]reflect.Value) []reflect.Value {
				told = append(told, who+" "+fields.Type().Field(i).Name)
				return nil
			}))
		}
		return l
	}
	none, all := events.Tee(&events.Listener{}), events.Tee(listen("first"), &events.Listener{}, listen("second"))
	for i := range reflect.TypeFor[events.Listener]().NumField() {
		name := reflect.TypeFor[events.Listener]().Field(i).Name
		call := func(l *events.Listener) {
			f := reflect.ValueOf(l).Elem().Field(i)
			require.False(t, f.IsNil(), name)
			f.Call([]reflect.Value{reflect.Zero(f.Type().In(0))})
		}
		told = nil
		call(all)
		require.Equal(t, []string{"first " + name, "second " + name}, told)
		told = nil
		call(none)
		require.Empty(t, told)
	}
}

// TestNothingOfACallerIsTold has the log tell of errors: those whose texts name what was sent by
// their reasons and fields, unless it is to tell all, and others as they are.
func TestNothingOfACallerIsTold(t *testing.T) {
	failed := func(code connect.Code, reason string, fields ...string) *connect.Error {
		err := connect.NewError(code, errors.New("user_id is very-secret"))
		violations := &errdetails.BadRequest{}
		for _, field := range fields {
			violations.FieldViolations = append(violations.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: field, Description: "very-secret"})
		}
		for _, m := range []proto.Message{&errdetails.ErrorInfo{Reason: reason, Domain: "tandem"}, violations} {
			detail, detailErr := connect.NewErrorDetail(m)
			require.NoError(t, detailErr)
			err.AddDetail(detail)
		}
		return err
	}
	l, lines := logTo(slog.LevelInfo)
	last := func() string { all := lines(); return all[len(all)-1] }
	for _, test := range []struct {
		err  *connect.Error
		want string
	}{
		{failed(connect.CodeInvalidArgument, "BINDING_INVALID", `requests[3].bindings["very-secret \"]"].int`, "k"), `reason=BINDING_INVALID fields="[requests[3].bindings[...].int k]"`},
		{failed(connect.CodeInvalidArgument, "MESSAGE_MALFORMED", "very-secret"), `reason=MESSAGE_MALFORMED`},
		{failed(connect.CodeNotFound, "ENTITY_UNKNOWN"), `reason=ENTITY_UNKNOWN`},
	} {
		l.RequestEnd(events.Request{Code: test.err.Code().String(), Err: test.err})
		require.Contains(t, last(), test.want)
		require.NotContains(t, last(), "very-secret")
	}
	l.RequestEnd(events.Request{Code: "unavailable", Err: failed(connect.CodeUnavailable, "STOPPING")})
	require.Contains(t, last(), `error="unavailable: user_id is very-secret" reason=STOPPING`)
	l.IDs = true
	l.RequestEnd(events.Request{Code: "not_found", Err: failed(connect.CodeNotFound, "ENTITY_UNKNOWN")})
	require.Contains(t, last(), `error="not_found: user_id is very-secret"`)
}

// TestSecretsInTheLog says how many tokens there were and are, and of what cannot be used why.
func TestSecretsInTheLog(t *testing.T) {
	l, lines := logTo(slog.LevelInfo)
	l.Secrets(events.Secrets{Name: "tokens", Before: 2, After: 0})
	l.Secrets(events.Secrets{Name: "certificates"})
	l.Secrets(events.Secrets{Name: "tokens", Err: errors.New("the file is empty")})
	got := lines()
	require.Len(t, got, 3)
	require.Contains(t, got[0], `level=INFO msg="changed files are in use" files=tokens tokens_before=2 tokens=0`)
	require.True(t, strings.HasSuffix(got[1], "files=certificates"))
	require.Contains(t, got[2], `level=ERROR msg="CHANGED FILES CANNOT BE USED: what was read before stays in use" files=tokens error="the file is empty"`)
}
