package attack

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// watch keeps very many streams of the health service and of reflection open.
func watch(ctx context.Context, a *attacker) {
	path, message := "/grpc.health.v1.Health/Watch", []byte{}
	if a.chance(2) { // of a service that nobody has
		message = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), strings.Repeat("s", a.rand.IntN(5000)))
	}
	reflection := a.chance(2)
	if reflection {
		path = pick(a.rand, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
		field := pick(a.rand, protowire.Number(3), 4, 6, 7)
		message = protowire.AppendString(protowire.AppendTag(nil, field, protowire.BytesType), pick(a.rand, "tandem.v1.RetrievalService", strings.Repeat("n", 60_000)))
	}
	transport := &http.Transport{DialContext: a.dialer.DialContext, Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	limited, cancel := context.WithTimeout(ctx, time.Duration(1+a.rand.IntN(12))*time.Second)
	defer cancel()
	var streams sync.WaitGroup
	defer streams.Wait()
	for range pick(a.rand, 10, 100, 1000) {
		reader, writer := io.Pipe()
		request, err := http.NewRequestWithContext(limited, http.MethodPost, a.url+path, reader)
		if err != nil {
			a.note("not sent")
			return
		}
		request.Header.Set("Content-Type", "application/grpc+proto")
		request.Header.Set("Te", "trailers")
		streams.Go(func() { // the caller's side
			for range 20 {
				if _, err := writer.Write(envelope(message, false)); err != nil || !reflection {
					break
				}
			}
			<-limited.Done()
			_ = writer.Close() // a pipe's close has no error
		})
		streams.Go(func() {
			defer func() { _ = reader.Close() }() // so that the caller's side ends
			if err := a.exchange(transport, grpcProto, request); err != nil {
				a.note(broken(limited, err))
			}
		})
	}
}

// callOthers calls what is not retrieval, with too much of it.
func callOthers(ctx context.Context, a *attacker) {
	for range 50 {
		if over(ctx) {
			return
		}
		c := call{path: "/tandem.v1.AdminService/GetStatus", protocol: pick(a.rand, connectProto, connectJSON, grpcProto, connectGet)}
		if c.protocol == connectJSON {
			c.body = []byte("{}")
		}
		switch a.rand.IntN(6) {
		case 0:
			c.path, c.protocol = "/grpc.health.v1.Health/Check", grpcProto
			c.body = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), strings.Repeat("s", pick(a.rand, 0, 10, 4000, 1_000_000)))
		case 1:
			c.path, c.body = pick(a.rand, "/healthz", "/readyz", "/nothing"), make([]byte, 1<<20)
		case 2:
			c.name, c.body = a.kept("others", 1, func(*rand.Rand) []byte { return make([]byte, maxMessage) })
			c.encoding = "gzip"
		}
		a.do(ctx, c)
	}
}
