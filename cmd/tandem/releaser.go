package main

import (
	"context"
	"io"
	"iter"

	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// releaser tells what is released, and changes it: in a store, or by a server that follows it.
type releaser interface {
	io.Closer
	fleet.Log
	// history is as that of [release.Releases].
	history(ctx context.Context) iter.Seq2[*release.Release, error]
	// start starts a snapshot by its digest or the beginning of it, whatever the options say.
	start(ctx context.Context, snapshot string, o release.StartOptions) (*release.Release, error)
	split(ctx context.Context, o release.SplitOptions) (*release.Release, error)
	promote(ctx context.Context, c release.Change, arm string) (*release.Release, error)
	stop(ctx context.Context, o release.StopOptions) (*release.Release, error)
	rollback(ctx context.Context, o release.RollbackOptions) (*release.Release, error)
}

// releaseFlags say where releases are: in a store, or in that of a server.
type releaseFlags struct {
	Store string `variable:"TANDEM_STORE" placeholder:"STORE" help:"Store: a folder, or a URL such as s3://bucket?region=eu-west-1&prefix=tandem/, gs://bucket or azblob://container. Without it the first --server is asked."`
	cacheFlags
	serverFlags
}

// check returns an error unless the flags say where releases are.
func (f *releaseFlags) check() error {
	if f.Store == "" && len(f.Server) == 0 {
		return usagef("missing flags: --store=STORE or --server=HOST:PORT: where the releases are")
	}
	_, err := f.fleet()
	return err
}

// open returns what tells of the releases, and what is to be called with how long it waits for
// the store.
func (f *releaseFlags) open(e *environment, waiting func(snapshots.Marked)) (releaser, error) {
	if f.Store == "" {
		return openServer(e, &f.clientFlags, f.Server[0])
	}
	o := f.cacheFlags.options()
	o.Waiting = waiting
	store, err := snapshots.OpenStore(e.ctx, f.Store, o)
	if err != nil {
		return nil, err
	}
	return &storeReleaser{release.New(store)}, nil
}

// where names the store or the server, as a flag.
func (f *releaseFlags) where() string {
	if f.Store == "" {
		return "--server " + f.Server[0]
	}
	return "--store " + f.Store
}

// onlyServer returns an error unless a store or one server is named.
func onlyServer(store string, servers []string) error {
	switch {
	case store == "" && len(servers) == 0:
		return usagef("missing flags: --store=STORE or --server=HOST:PORT: whom to ask")
	case store != "" && len(servers) > 0, len(servers) > 1:
		return usagef("--store and --server are given %d times; accepted: one of them, once", min(len(store), 1)+len(servers))
	}
	return nil
}

// storeReleaser changes the releases of a store itself.
type storeReleaser struct{ *release.Releases }

func (s *storeReleaser) history(ctx context.Context) iter.Seq2[*release.Release, error] {
	return s.History(ctx)
}

func (s *storeReleaser) start(ctx context.Context, snapshot string, o release.StartOptions) (*release.Release, error) {
	var err error
	if o.Snapshot, err = s.Store().Resolve(ctx, snapshot); err != nil {
		return nil, err
	}
	return s.Start(ctx, o)
}

func (s *storeReleaser) split(ctx context.Context, o release.SplitOptions) (*release.Release, error) {
	return s.Split(ctx, o)
}

func (s *storeReleaser) promote(ctx context.Context, c release.Change, arm string) (*release.Release, error) {
	return s.Promote(ctx, c, arm)
}

func (s *storeReleaser) stop(ctx context.Context, o release.StopOptions) (*release.Release, error) {
	return s.Stop(ctx, o)
}

func (s *storeReleaser) rollback(ctx context.Context, o release.RollbackOptions) (*release.Release, error) {
	return s.Rollback(ctx, o)
}

// Close implements [io.Closer].
func (s *storeReleaser) Close() error { return s.Store().Close() }
