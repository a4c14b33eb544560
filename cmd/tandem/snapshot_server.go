package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/builder/compare"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// askedFlags say who is asked of snapshots: a store, or a server that follows it.
type askedFlags struct {
	Store string `variable:"TANDEM_STORE" placeholder:"STORE" help:"Store: a folder, or a URL such as s3://bucket?region=eu-west-1&prefix=tandem/, gs://bucket or azblob://container."`
	cacheFlags
	clientFlags
	Server []string `sep:"none" variable:"TANDEM_SERVER" placeholder:"HOST:PORT" help:"Server that follows the store, by its address or its URL: it is asked, in place of the store."`
}

// server returns a client of the server that is named, nil if it is a store.
func (f *askedFlags) server(e *environment) (*serverReleaser, error) {
	if err := onlyServer(f.Store, f.Server); err != nil || f.Store != "" {
		return nil, err
	}
	return openServer(e, &f.clientFlags, f.Server[0])
}

// listed returns the snapshots of the store of a server, as lines of snapshot ls, the newest
// first; the errors are of snapshots that are listed all the same.
func (s *serverReleaser) listed(ctx context.Context) (list []listedSnapshot, corrupt []error, err error) {
	list = []listedSnapshot{}
	for summary, err := range s.summaries(ctx) {
		if err != nil {
			return nil, nil, err
		}
		line := listedSnapshot{
			Snapshot: manifest.Digest(summary.Snapshot), Model: summary.Model, ModelVersion: summary.ModelVersion, Published: summary.Published.AsTime(),
			Apps: int(summary.Apps), Users: int(summary.Users), Shards: int(summary.Shards), Bytes: int64(summary.Bytes), Arm: strings.Join(summary.Arms, "+"),
		}
		var unknown error
		if summary.Error != "" {
			unknown = errors.New(summary.Error)
			corrupt = append(corrupt, unknown)
		}
		line.setGates(wire.VerdictOf(summary.Gates), unknown)
		list = append(list, line)
	}
	return list, corrupt, nil
}

// summaries asks for the snapshots, a page at a time.
func (s *serverReleaser) summaries(ctx context.Context) iter.Seq2[*tandemv1.SnapshotSummary, error] {
	return func(yield func(*tandemv1.SnapshotSummary, error) bool) {
		for token := ""; ; {
			page, err := s.client.ListSnapshots(ctx, connect.NewRequest(&tandemv1.ListSnapshotsRequest{PageToken: token}))
			if err != nil {
				yield(nil, ofReleases(err))
				return
			}
			for _, summary := range page.Msg.Snapshots {
				if !yield(summary, nil) {
					return
				}
			}
			if token = page.Msg.NextPageToken; token == "" {
				return
			}
		}
	}
}

// newest returns the newest release that can be read, nil if there is none or none is known,
// and tells people if that is not what was released last.
func (s *serverReleaser) newest(e *environment) (*release.Release, error) {
	var unreadable *release.UnreadableError
	for r, err := range s.history(e.ctx) {
		u, b := (*release.UnreadableError)(nil), (*release.BrokenError)(nil)
		switch {
		case errors.As(err, &u) && unreadable == nil:
			unreadable = u
		case errors.As(err, &u), errors.As(err, &b):
		case err != nil:
			return nil, err
		default:
			tellUnreadable(e, unreadable)
			return r, nil
		}
	}
	return nil, nil
}

// snapshot returns a snapshot by its digest, the beginning of it, or, where that is empty, what
// is released, and tells people which that is.
func (s *serverReleaser) snapshot(e *environment, ref string) (d manifest.Digest, m *manifest.Manifest, verdict *gates.Verdict, err error) {
	if ref, err = s.named(e, ref); err != nil {
		return "", nil, nil, err
	}
	got, err := s.client.GetSnapshot(e.ctx, connect.NewRequest(&tandemv1.GetSnapshotRequest{Snapshot: ref}))
	if err != nil {
		return "", nil, nil, ofReleases(err)
	}
	if d = manifest.Digest(got.Msg.Snapshot); manifest.Sum(got.Msg.Manifest) != d {
		return "", nil, nil, fmt.Errorf("manifest of snapshot %s, as the server has sent it: its digest is %s: %w", d.Short(), manifest.Sum(got.Msg.Manifest).Short(), sections.ErrCorrupt)
	}
	m, err = manifest.Decode(got.Msg.Manifest)
	return d, m, wire.VerdictOf(got.Msg.Gates), err
}

// named returns what names a snapshot: what is released, of which people are told, where it is
// not named. It is empty where nothing is released, which the server tells more of.
func (s *serverReleaser) named(e *environment, ref string) (string, error) {
	if ref != "" {
		return ref, nil
	}
	now, err := s.newest(e)
	if err != nil || now == nil {
		return "", err
	}
	return string(tellReleased(e, now)), nil
}

// diff compares a snapshot with another one, or, where that is not named, with what is
// released.
func (s *serverReleaser) diff(e *environment, candidate, previous string) (*compare.Report, error) {
	before, err := s.named(e, previous)
	if err != nil {
		return nil, err
	}
	if previous == "" && strings.HasPrefix(before, candidate) {
		return nil, usagef("%.12s is what is released: name what to compare it with", before)
	}
	got, err := s.client.DiffSnapshots(e.ctx, connect.NewRequest(&tandemv1.DiffSnapshotsRequest{Candidate: candidate, Previous: before}))
	if err != nil {
		return nil, ofReleases(err)
	}
	report := &compare.Report{}
	if err := json.Unmarshal(got.Msg.Report, report); err != nil {
		return nil, fmt.Errorf("report of the server: %w", err)
	}
	return report, nil
}
