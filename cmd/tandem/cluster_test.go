package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/api/tandem/shard/v1/shardv1connect"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/remote"
)

// asknode URL TOKEN-FILE WHAT ANSWER asks a node for the first shard of the apps of the snapshot
// $digest, with the token of a file, or none. WHAT is ok, or what of the request is that of
// another state. ANSWER is OK, the code of the refusal, or its reason where it has one.
func askNode(ts *testscript.TestScript, _ bool, args []string) {
	r := connect.NewRequest(&shardv1.GetShardRequest{State: &shardv1.ShardState{
		Protocol: remote.Protocol, Snapshot: ts.Getenv("digest"), Tower: tandemv1.Tower_TOWER_APPS, Of: 1,
		Position: &tandemv1.LivePosition{}, UnixNanos: time.Now().UnixNano(),
	}})
	switch state := r.Msg.State; args[2] {
	case "ok":
	case "protocol":
		state.Protocol++
	case "snapshot":
		state.Snapshot = strings.Repeat("0", 64)
	case "number":
		state.Number, state.Of = 1, 2
	case "of":
		state.Of++
	case "position":
		state.Position.Sequence = 1 << 40
	case "log":
		state.Position.Log = strings.Repeat("0", 32)
	default:
		ts.Fatalf("nothing of a request is called %q", args[2])
	}
	if args[1] != "none" {
		token, err := os.ReadFile(ts.MkAbs(args[1]))
		ts.Check(err)
		r.Header().Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := shardv1connect.NewShardServiceClient(http.DefaultClient, args[0]).GetShard(ctx, r)
	if got := answerOf(err); got != args[3] {
		ts.Fatalf("the node answers %s (%v), want %s", got, err, args[3])
	}
}

// answerOf returns the reason that an error of a node has, or else its code, or OK.
func answerOf(err error) string {
	if err == nil {
		return "OK"
	}
	told, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return err.Error()
	}
	for _, d := range told.Details() {
		if v, err := d.Value(); err == nil {
			if info, ok := v.(*errdetails.ErrorInfo); ok && info.Domain == "tandem.shard" {
				return info.Reason
			}
		}
	}
	return strings.ToUpper(told.Code().String())
}
