package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// liveSite is a store with two snapshots of one model, and servers that follow its live log.
// Each has a way of its own to the store, which can be cut: in a folder a symbolic link, in
// S3 a proxy.
type liveSite struct {
	program  string // of the servers
	location string // of the store, past what cuts servers off
	dir      string // its folder; empty in S3
	nowhere  string // an empty folder
	cache    string
	fence    time.Duration
	more     []string // flags of the servers
	releases *release.Releases
	bucket   *objects.Bucket
	servers  []*liveServer
	http     *http.Client
}

// onLiveStores runs a test on a site in a folder, and on one in S3 if there is a server of it.
func onLiveStores(t *testing.T, servers int, fence time.Duration, test func(t *testing.T, s *liveSite)) {
	for name, location := range map[string]func(*testing.T) string{
		"folder": func(t *testing.T) string { return filepath.Join(t.TempDir(), "store") },
		"s3":     objectstest.S3Location,
	} {
		t.Run(name, func(t *testing.T) { test(t, newLiveSite(t, location(t), servers, fence)) })
	}
}

// newLiveSite makes a store at a location, and ways to it for so many servers, none of which
// is started. Of its releases, 1 is of the first snapshot and 3 of the second.
func newLiveSite(t *testing.T, location string, servers int, fence time.Duration) *liveSite {
	s := &liveSite{
		program: "tandem", location: location, nowhere: t.TempDir(), cache: t.TempDir(), fence: fence,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	t.Cleanup(s.http.CloseIdleConnections)
	made := &releasing{location: location, cache: s.cache}
	towers := t.TempDir()
	made.run(t, "generate", "--out", towers, "--apps", "300", "--users", "80", "--dim", "8", "--interactions-per-user", "0")
	for _, version := range []string{"1", "2"} {
		made.run(t, "build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
			"--model", "feed", "--model-version", version, "--metric", "dot", "--shards", version, "--store", location, "--cache", s.cache)
	}
	store, err := snapshots.OpenStore(t.Context(), location, snapshots.Options{Cache: s.cache})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	s.releases = release.New(store)
	list, err := store.Snapshots(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)
	for _, p := range list {
		_, err := s.releases.Start(t.Context(), release.StartOptions{Snapshot: p.Digest, Change: release.Change{Override: "a test"}})
		require.NoError(t, err)
	}
	_, err = s.releases.Promote(t.Context(), release.Change{}, release.Candidate)
	require.NoError(t, err)
	s.bucket, err = objects.Open(t.Context(), location)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.bucket.Close()) })
	s.dir = s.bucket.Dir()
	for i := range servers {
		s.servers = append(s.servers, s.newServer(t, i))
	}
	return s
}

// liveServer is a server of a site. Its process comes and goes; what it remembers stays.
type liveServer struct {
	site   *liveSite
	number int
	way    string       // location of the store as it reaches it
	link   string       // its way to a folder, a symbolic link
	proxy  *brokenProxy // its way to S3
	state  string
	cache  string

	mu      sync.Mutex // guards what follows
	process *liveProcess
}

// liveProcess is a process of a server.
type liveProcess struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
	done   chan struct{}
	url    string
}

func (s *liveSite) newServer(t *testing.T, number int) *liveServer {
	p := &liveServer{site: s, number: number, state: t.TempDir(), cache: t.TempDir()}
	t.Cleanup(p.kill)
	if s.dir != "" {
		p.link = filepath.Join(t.TempDir(), "store")
		p.way = p.link
		require.NoError(t, os.Symlink(s.dir, p.link))
		return p
	}
	u, err := url.Parse(s.location)
	require.NoError(t, err)
	query := u.Query()
	p.proxy = newBrokenProxy(t, query.Get("endpoint"), s.fence, *trialSeed+uint64(number))
	query.Set("endpoint", p.proxy.server.URL)
	u.RawQuery = query.Encode()
	p.way = u.String()
	return p
}

// The ways to cut a server off from its store.
func (p *liveServer) cuts() []string {
	if p.link != "" {
		return []string{"gone", "empty"}
	}
	return []string{string(hang), string(cut), string(lost), string(fail), string(slow), "some"}
}

// cutOff cuts the server off from the store in one of the ways that there are, until heal:
// the folder is not there, or another, empty one is, as where a file system is not mounted;
// all requests to S3 hang, are cut, are cut when they have been carried out, fail or are
// slow, or some of them do any of that.
func (p *liveServer) cutOff(how string) {
	switch how {
	case "gone":
		p.relink("")
	case "empty":
		p.relink(p.site.nowhere)
	case "some":
		p.proxy.set(troubles{share: 0.5, kinds: []trouble{hang, stall, cut, lost, half, slow, fail}})
	default:
		p.proxy.set(troubles{share: 1, kinds: []trouble{trouble(how)}})
	}
}

func (p *liveServer) heal() {
	if p.link != "" {
		p.relink(p.site.dir)
		return
	}
	p.proxy.set(troubles{})
}

// relink has the link lead elsewhere, at once, or nowhere at all.
func (p *liveServer) relink(to string) {
	if to == "" {
		_ = os.Remove(p.link) // it may be gone
		return
	}
	if err := os.Symlink(to, p.link+".new"); err != nil {
		panic(err)
	}
	if err := os.Rename(p.link+".new", p.link); err != nil {
		panic(err)
	}
}

// launch starts a process of the server, and returns once it listens, or has ended.
func (p *liveServer) launch(t *testing.T, more ...string) *liveProcess {
	t.Helper()
	return p.launchUnder(t, nil, more...)
}

// launchUnder does so under another program.
func (p *liveServer) launchUnder(t *testing.T, under []string, more ...string) *liveProcess {
	t.Helper()
	args := append(slices.Clone(under),
		p.site.program, "serve", "--store", p.way, "--listen", "127.0.0.1:0", "--drain-delay", "0s", "--log-format", "json",
		"--live-writes", "--live-fence", p.site.fence.String(), "--state", p.state)
	if p.link == "" {
		args = append(args, "--cache", p.cache)
	}
	args = append(append(args, p.site.more...), more...)
	q := &liveProcess{cmd: exec.Command(args[0], args[1:]...), stderr: &lockedBuffer{}, done: make(chan struct{})}
	q.cmd.Stderr = q.stderr
	require.NoError(t, q.cmd.Start())
	go func() {
		defer close(q.done)
		_ = q.cmd.Wait() // its state says how it ended
	}()
	for until := time.Now().Add(catchUp); time.Now().Before(until) && !q.ended(); time.Sleep(2 * time.Millisecond) {
		if m := whereServing.FindStringSubmatch(q.stderr.String()); m != nil {
			q.url = "http://" + m[1]
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.process = q
	return q
}

// start starts the server and waits until it is ready.
func (p *liveServer) start(t *testing.T, more ...string) {
	t.Helper()
	q := p.launch(t, more...)
	err := p.awaitReady(catchUp)
	if err != nil && !q.ended() { // it says what it waits for
		_ = q.cmd.Process.Signal(syscall.SIGQUIT)
		<-q.done
	}
	require.NoError(t, err, "server %d: %s", p.number, q.stderr)
}

func (q *liveProcess) ended() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// now returns the process that there is, nil if there is none.
func (p *liveServer) now() *liveProcess {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.process
}

// ready reports whether the server says that it is.
func (p *liveServer) ready() bool {
	q := p.now()
	if q == nil || q.url == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, q.url+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := p.site.http.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close() // its status is what counts
	return response.StatusCode == http.StatusOK
}

// awaitReady waits until the server is ready, and returns an error if it takes too long.
func (p *liveServer) awaitReady(limit time.Duration) error {
	for until := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if p.ready() {
			return nil
		}
		if q := p.now(); q == nil || q.ended() {
			return fmt.Errorf("server %d has ended", p.number)
		}
		if time.Now().After(until) {
			return fmt.Errorf("server %d is not ready after %s", p.number, limit)
		}
	}
}

// kill kills the process, if there is one, and waits until it is gone.
func (p *liveServer) kill() {
	if q := p.now(); q != nil {
		_ = q.cmd.Process.Kill() // it may have ended
		<-q.done
	}
}

// stop has the server end, which must end well.
func (p *liveServer) stop(t *testing.T) {
	t.Helper()
	q := p.now()
	if q == nil || q.ended() {
		return
	}
	require.NoError(t, q.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-q.done:
	case <-time.After(catchUp):
		_ = q.cmd.Process.Kill()
		<-q.done
	}
	require.True(t, q.cmd.ProcessState.Success(), "server %d ended with %s: %s", p.number, q.cmd.ProcessState, q.stderr)
}

// freeze stops the process in the middle of what it does; thaw has it go on.
func (p *liveServer) freeze() { _ = p.now().cmd.Process.Signal(syscall.SIGSTOP) } // it may have ended
func (p *liveServer) thaw()   { _ = p.now().cmd.Process.Signal(syscall.SIGCONT) }

// errNotThere is the error of what is asked of a server that does not run.
var errNotThere = connect.NewError(connect.CodeUnavailable, errors.New("it does not run"))

func (p *liveServer) url() (string, error) {
	if q := p.now(); q != nil && q.url != "" {
		return q.url, nil
	}
	return "", errNotThere
}

// write writes events, and returns the position behind them and how many there were before.
func (p *liveServer) write(ctx context.Context, events ...*tandemv1.LiveEvent) (shard.Position, int, error) {
	u, err := p.url()
	if err != nil {
		return shard.Position{}, 0, err
	}
	a, err := tandemv1connect.NewLiveServiceClient(p.site.http, u).Write(ctx, connect.NewRequest(&tandemv1.WriteRequest{Events: events, Author: "a test"}))
	if err != nil {
		return shard.Position{}, 0, err
	}
	return wire.Position(a.Msg.Position), int(a.Msg.RepeatedEvents), nil
}

// status returns what the server knows of the live log.
func (p *liveServer) status(ctx context.Context) (*tandemv1.GetLiveStatusResponse, error) {
	u, err := p.url()
	if err != nil {
		return nil, err
	}
	a, err := tandemv1connect.NewLiveServiceClient(p.site.http, u).GetLiveStatus(ctx, connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	if err != nil {
		return nil, err
	}
	return a.Msg, nil
}

// retrieve asks for those of some apps that may be returned.
func (p *liveServer) retrieve(ctx context.Context, minLive *tandemv1.LivePosition, apps ...string) (*tandemv1.RetrieveResponse, error) {
	u, err := p.url()
	if err != nil {
		return nil, err
	}
	a, err := tandemv1connect.NewRetrievalServiceClient(p.site.http, u).Retrieve(ctx, connect.NewRequest(retrieveRequest(minLive, apps)))
	if err != nil {
		return nil, err
	}
	return a.Msg, nil
}

func retrieveRequest(minLive *tandemv1.LivePosition, apps []string) *tandemv1.RetrieveRequest {
	one := 1.0
	return &tandemv1.RetrieveRequest{UserId: userID(1), K: uint32(len(apps)), RecallTarget: &one, IncludeIds: apps, MinLive: minLive}
}

func takedownOf(id, app string) *tandemv1.LiveEvent {
	return &tandemv1.LiveEvent{EventId: id, Change: &tandemv1.LiveEvent_Takedown{Takedown: &tandemv1.Takedown{App: app, Reason: "a test"}}}
}

func restoreOf(id, app string) *tandemv1.LiveEvent {
	return &tandemv1.LiveEvent{EventId: id, Change: &tandemv1.LiveEvent_Restore{Restore: &tandemv1.Restore{App: app}}}
}

func livePositionOf(p shard.Position) *tandemv1.LivePosition {
	return &tandemv1.LivePosition{Log: p.Log, Sequence: p.Sequence}
}

// before reports whether a position comes before another.
func before(a, b shard.Position) bool { return a.Compare(b) < 0 }

func appID(i int) string { return fmt.Sprintf("app-%07d", i) }

// reasonOf returns the reason of an error, empty if it has none.
func reasonOf(err error) string {
	coded, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return ""
	}
	for _, d := range coded.Details() {
		if v, err := d.Value(); err == nil {
			if info, ok := v.(*errdetails.ErrorInfo); ok {
				return info.Reason
			}
		}
	}
	return ""
}

// command runs a command on the store, past what cuts servers off, and returns what it says.
func (s *liveSite) command(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	if code := run(ctx, args, &stdout, &stderr); code != 0 {
		return "", fmt.Errorf("tandem %s: exit code %d: %s", strings.Join(args, " "), code, &stderr)
	}
	return stdout.String(), nil
}

// liveCopy is a copy of the objects of the live log.
type liveCopy map[string][]byte

// copyLive copies the live log.
func (s *liveSite) copyLive(ctx context.Context) (liveCopy, error) {
	out := liveCopy{}
	for o, err := range s.bucket.List(ctx, "live/") {
		if err != nil {
			return nil, err
		}
		data, err := s.bucket.Read(ctx, o.Key)
		switch {
		case err == nil:
			out[o.Key] = data
		case !errors.Is(err, objects.ErrNotFound): // it may have gone meanwhile
			return nil, err
		}
	}
	return out, nil
}

// putBack makes the live log what it was when it was copied, as who restores a bucket does:
// what came later goes first, the last of it before the rest, until nothing more comes.
func (s *liveSite) putBack(ctx context.Context, c liveCopy) error {
	for again := true; again; {
		now, err := s.copyLive(ctx)
		if err != nil {
			return err
		}
		again = false
		for _, key := range sortedDown(now) {
			if bytes.Equal(now[key], c[key]) {
				continue
			}
			again = true
			if err := s.bucket.Delete(ctx, key); err != nil && !errors.Is(err, objects.ErrNotFound) {
				return err
			}
			delete(now, key)
		}
		for key, data := range c {
			if _, there := now[key]; !there {
				if err := s.bucket.Create(ctx, key, data); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// acceptedLost is by which flag a person accepts that entries are missing.
var acceptedLost = regexp.MustCompile(`--lost \d+`)

// accept accepts the live log of the store as it is, and returns where it goes on.
func (s *liveSite) accept(ctx context.Context) (shard.Position, error) {
	args := []string{"live", "accept", "--store", s.location, "--cache", s.cache, "--reason", "a test", "--json"}
	said, err := s.command(ctx, args...)
	// A write that was on its way when the store was replaced may have come behind a gap.
	if lost := acceptedLost.FindString(fmt.Sprint(err)); err != nil && lost != "" {
		said, err = s.command(ctx, append(args, strings.Fields(lost)...)...)
	}
	if err != nil {
		return shard.Position{}, err
	}
	var accepted struct{ Position shard.Position }
	err = json.Unmarshal([]byte(said), &accepted)
	return accepted.Position, err
}

// ageCheckpoints makes the checkpoints in a folder as old as those whose entries may go.
func (s *liveSite) ageCheckpoints() error {
	return filepath.WalkDir(filepath.Join(s.dir, "live", "checkpoints"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chtimes(path, time.Time{}, time.Now().Add(-48*time.Hour))
	})
}
