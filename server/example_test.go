package server_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Serve what is released in a store until the process is interrupted.
func ExampleRun() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	store, err := snapshots.OpenStore(context.Background(), "/var/lib/tandem", snapshots.Options{})
	if err != nil {
		log.Fatal(err)
	}
	err = server.Run(ctx, server.Config{
		Store:     store,
		Listen:    "127.0.0.1:7700",
		Listening: func(a net.Addr) { fmt.Println("listening on", a) },
		Ready:     func(s server.Snapshot) { fmt.Println("serving", s.Digest()) },
	})
	if err != nil {
		log.Fatal(err)
	}
}
