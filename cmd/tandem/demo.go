package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/server/adminhttp"
	"github.com/tandem-ann/tandem/server/console"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
)

type demoCommand struct {
	Apps   int64  `default:"10000" placeholder:"N" help:"Number of apps (default ${default})."`
	Users  int64  `default:"4000" placeholder:"N" help:"Number of users (default ${default})."`
	Listen string `placeholder:"HOST:PORT" help:"Address to listen on; by default 127.0.0.1:8080, or a free port if that is taken."`
	Dir    string `placeholder:"DIR" help:"Folder to leave everything in, new or empty; by default a temporary one, which is removed at the end."`
	Once   bool   `help:"Exit after the story instead of serving on."`
}

func (demoCommand) Help() string {
	return `Towers are generated and built, measured and released; a build that mixes two models is refused; another one gets a tenth of the traffic, an app is explained, and the release is taken back. Every line that begins with $ is a command that can be run again, in the folder of the demo. Then it serves, for you to try, until Ctrl-C.

Example:

    tandem demo`
}

const (
	// The least towers whose gates have something to say.
	demoMinApps  = 1500
	demoMinUsers = 1000
	// demoTimeout is how long anything on loopback may take.
	demoTimeout = 30 * time.Second
)

func (c *demoCommand) Run(e *environment) (err error) {
	switch {
	case c.Apps < demoMinApps || c.Apps > 1e6:
		return usagef("--apps is %d, want %d to 1000000", c.Apps, demoMinApps)
	case c.Users < demoMinUsers || c.Users > 1e6:
		return usagef("--users is %d, want %d to 1000000", c.Users, demoMinUsers)
	}
	listener, err := c.listen()
	if err != nil {
		return err
	}
	defer listener.Close() // the server closes it, if it comes to that
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the console: %w", err)
	}
	defer admin.Close() // likewise
	dir, remove, err := c.folder()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s := &story{environment: e, dir: dir, address: listener.Addr().String(), users: c.Users, began: time.Now()}
	if !c.Once {
		fmt.Fprintf(e.stdout, "Console: http://%s%s (it opens once there is something to serve)\n", admin.Addr(), console.Path)
	}
	fmt.Fprintf(e.stdout, "Tandem in half a minute, on towers of %s and %s, in %s\n", wording.Plural(c.Apps, "app"), wording.Plural(c.Users, "user"), dir)
	if err = s.first(c.Apps); err == nil {
		err = c.serve(e, listener, admin, s)
	}
	return err
}

// listen listens first, so that an address that is taken is found before the work.
func (c *demoCommand) listen() (net.Listener, error) {
	if c.Listen != "" {
		l, err := net.Listen("tcp", c.Listen)
		if err != nil {
			err = fmt.Errorf("--listen: %w", err)
		}
		return l, err
	}
	if l, err := net.Listen("tcp", "127.0.0.1:8080"); err == nil {
		return l, nil
	}
	return net.Listen("tcp", "127.0.0.1:0")
}

// folder returns the folder to work in, and what removes it in the end, if that is ours
// to do.
func (c *demoCommand) folder() (dir string, remove func() error, err error) {
	if c.Dir == "" {
		dir, err = os.MkdirTemp("", "tandem-demo-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(c.Dir); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", nil, err
	}
	list, err := os.ReadDir(dir)
	if err == nil && len(list) > 0 {
		err = usagef("--dir %s is not empty: it has %s; accepted: a new folder, or an empty one", c.Dir, list[0].Name())
	}
	return dir, func() error { return nil }, err
}

// serve serves the store of the story, tells the rest of it, and goes on serving until ctx
// ends.
func (c *demoCommand) serve(e *environment, listener, admin net.Listener, s *story) (err error) {
	store, err := snapshots.OpenStore(e.ctx, filepath.Join(s.dir, demoStore), snapshots.Options{})
	if err != nil {
		return err
	}
	defer closing(&err, store)
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	ready := make(chan struct{})
	served := make(chan error, 1)
	go func() {
		served <- server.Run(ctx, server.Config{
			Store: store, Listener: listener,
			Admin:   &adminhttp.Options{Listen: admin.Addr().String(), Listener: admin},
			Console: &server.Console{},
			Logger:  newLogger(e.stderr, "text", slog.LevelWarn),
			Ready:   func(server.Snapshot) { close(ready) },
		})
	}()
	select {
	case err := <-served: // not before it is ready, unless it failed or was told to stop
		return cmp.Or(err, e.ctx.Err())
	case <-ready:
	}
	err = s.rest()
	if err == nil && !c.Once {
		s.invite(c.Dir == "")
		select {
		case err := <-served:
			return err
		case <-ctx.Done():
		}
	}
	cancel()
	return errors.Join(err, <-served)
}
