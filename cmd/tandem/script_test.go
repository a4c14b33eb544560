package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

var update = flag.Bool("update", false, "write what scripts compare with anew")

func TestMain(m *testing.M) {
	testscript.Main(forgetting{m}, map[string]func(){"tandem": func() { os.Exit(mainExit()) }})
}

// forgetting has the servers of the tests remember live logs in a folder that ends with them.
type forgetting struct{ *testing.M }

// Run implements [testscript.TestingM].
func (f forgetting) Run() int {
	dir, err := os.MkdirTemp("", "tandem-state-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Setenv("XDG_STATE_HOME", dir); err != nil {
		panic(err)
	}
	for _, name := range []string{storeVariable, serverVariable} { // of who runs the tests
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	return f.M.Run()
}

// TestScripts runs the command line; each script is a use of it.
func TestScripts(t *testing.T) {
	t.Parallel() // it waits
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, ".state")) // what servers remember
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"lastline": lastLine,
			"serving":  serving,
			"silent":   silent,
			"refused":  refusedQuery,
			"good":     good,
			"notgood":  notGood,
			"shows":    shows,
			"story":    storyFits,
			"shard":    shardFile,
			"corrupt":  corrupt,
			"damage":   damage,
			"fbin":     fbin,
			"forge":    forge,
			"empty":    empty,
			"oldstore": oldStore,
			"pause":    pause,
			"holds":    holds,
			"vectorof": vectorOf,
			"resume":   resume,
			"asknode":  askNode,
		},
	})
}

// exits CODE PROGRAM ARG... runs a program that must exit with the code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if code := exitCode(ts, args[1:]); code != want {
		ts.Fatalf("exit code is %d, want %d", code, want)
	}
}

// exitCode runs a program and returns how it exits.
func exitCode(ts *testscript.TestScript, args []string) int {
	if err := ts.Exec(args[0], args[1:]...); err != nil {
		ee := (*exec.ExitError)(nil)
		if !errors.As(err, &ee) {
			ts.Fatalf("%v", err)
		}
		return ee.ExitCode()
	}
	return 0
}

// lastline VAR FILE sets a variable to the last line of a file or of stdout.
func lastLine(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.TrimRight(ts.ReadFile(args[1]), "\n")
	ts.Setenv(args[0], text[strings.LastIndex(text, "\n")+1:])
}

// whereServing finds where a server says it listens, in its log or the demo's output.
var whereServing = regexp.MustCompile(`(?:Serving on http://|"msg":"listening","address":")(127\.0\.0\.1:[0-9]+)`)

// serving VAR FILE waits until the server that writes to a file answers queries,
// and sets a variable to its address. Until the server begins it, the file may be that of
// one that has ended.
func serving(ts *testscript.TestScript, _ bool, args []string) {
	var address string
	deadline := time.Now().Add(2 * time.Minute)
	for ; time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		data, err := os.ReadFile(ts.MkAbs(args[1]))
		m := whereServing.FindSubmatch(data)
		if err != nil || m == nil {
			continue // not even listening
		}
		address = string(m[1])
		response, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			ts.Setenv(args[0], address)
			return
		}
	}
	ts.Fatalf("no server is ready at %q", address)
}

// refused ADDRESS REASON waits until a server refuses queries for a reason.
func refusedQuery(ts *testscript.TestScript, _ bool, args []string) {
	var said string
	deadline := time.Now().Add(time.Minute)
	for ; time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		response, err := http.Post("http://"+args[0]+"/tandem.v1.RetrievalService/Retrieve", "application/json", strings.NewReader(`{"userId": "user-0000001", "k": 1}`))
		ts.Check(err)
		body, err := io.ReadAll(response.Body)
		ts.Check(errors.Join(err, response.Body.Close()))
		if said = string(body); response.StatusCode != http.StatusOK && strings.Contains(said, args[1]) {
			return
		}
	}
	ts.Fatalf("it does not refuse a query for %s, it answers %s", args[1], said)
}

// good ADDRESS waits until tandem status finds nothing at a server, and has what it prints as the
// output.
func good(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "tandem status finds nothing", func() bool {
		return ts.Exec("tandem", "status", "--server", args[0]) == nil
	})
}

// notGood ADDRESS ALERT waits until tandem status finds something at a server, and has what it
// prints as the output.
func notGood(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "tandem status finds "+args[1], func() bool {
		err := ts.Exec("tandem", "status", "--server", args[0])
		return err != nil && strings.Contains(ts.ReadFile("stdout"), args[1])
	})
}

// shows CODE TEXT PROGRAM ARG... runs a program, again and again, until it exits with the code and
// prints the text: a server may not be good for a moment.
func shows(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	await(ts, fmt.Sprintf("%s exits with %d and prints %q", args[2], want, args[1]), func() bool {
		return exitCode(ts, args[2:]) == want && strings.Contains(ts.ReadFile("stdout"), args[1])
	})
}

// await waits until something is so of what a command prints.
func await(ts *testscript.TestScript, what string, so func() bool) {
	for deadline := time.Now().Add(2 * time.Minute); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("it is not so that %s; what is printed is %s", what, ts.ReadFile("stdout"))
		}
	}
}

// storyFits FILE checks that what the demo has told fits on one screen.
func storyFits(ts *testscript.TestScript, _ bool, args []string) {
	var lines []string
	for i := 0; i < 600 && !strings.Contains(strings.Join(lines, "\n"), "Ctrl-C"); i++ {
		time.Sleep(50 * time.Millisecond) // it goes on once it serves
		lines = strings.Split(strings.TrimRight(ts.ReadFile(args[0]), "\n"), "\n")
	}
	if len(lines) > 40 {
		ts.Fatalf("%d lines, want at most 40", len(lines))
	}
	for _, line := range lines[1:] { // the first has the path of the folder
		if len(line) > 100 && !strings.Contains(line, ".tmp") {
			ts.Fatalf("%d characters, want at most 100: %s", len(line), line)
		}
	}
}

// silent VAR has a server listen that takes requests and never answers, and sets a
// variable to its address.
func silent(ts *testscript.TestScript, _ bool, args []string) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { ts.Check(listener.Close()) })
	ts.Setenv(args[0], listener.Addr().String()) // the kernel takes what nobody accepts
}

// shard VAR STORE TOWER NUMBER sets a variable to the path of a shard file of the
// newest snapshot, as a command on that store names it.
func shardFile(ts *testscript.TestScript, _ bool, args []string) {
	store, err := snapshots.OpenStore(context.Background(), ts.MkAbs(args[1]), snapshots.Options{})
	ts.Check(err)
	digest, err := store.Resolve(context.Background(), "")
	ts.Check(err)
	m, err := store.Manifest(context.Background(), digest)
	ts.Check(err)
	number, err := strconv.Atoi(args[3])
	ts.Check(err)
	path := store.ShardPath(m.Tower(shard.Kind(args[2])).Shards[number].Digest)
	ts.Setenv(args[0], filepath.Join(args[1], "shards", filepath.Base(path)))
}

// corrupt FILE SECTION flips a bit in the middle of a section of a shard file.
func corrupt(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	f, err := sections.Open(path)
	ts.Check(err)
	at := uint64(0)
	for _, e := range f.Entries() {
		if e.Name == args[1] {
			at = e.Offset + e.Length/2
		}
	}
	ts.Check(f.Close())
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[at] ^= 1
	ts.Check(os.WriteFile(path, data, 0o644))
}

// damage HOW FILE changes a file: flip a bit of it, truncate it, extend it, zero a block of
// it, or delete it.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[1])
	data, err := os.ReadFile(path)
	ts.Check(err)
	at := len(data) / 3
	switch args[0] {
	case "flip":
		data[at] ^= 1
	case "truncate":
		data = data[:at]
	case "extend":
		data = append(data, 0)
	case "zero":
		clear(data[max(0, len(data)-4096):][:min(512, len(data))])
	case "delete":
		ts.Check(os.Remove(path))
		return
	default:
		ts.Fatalf("no damage is called %q", args[0])
	}
	ts.Check(os.WriteFile(path, data, 0o644))
}

// fbin FILE "X X ..." ... writes vectors in the big-ann format.
func fbin(ts *testscript.TestScript, _ bool, args []string) {
	data := binary.LittleEndian.AppendUint32(nil, uint32(len(args)-1))
	data = binary.LittleEndian.AppendUint32(data, uint32(len(strings.Fields(args[1]))))
	for _, row := range args[1:] {
		for word := range strings.FieldsSeq(row) {
			x, err := strconv.ParseFloat(word, 32)
			ts.Check(err)
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(x)))
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}

// forge VAR STORE publishes the newest snapshot with another tool and recall than it has,
// and sets a variable to its digest.
func forge(ts *testscript.TestScript, _ bool, args []string) {
	ctx := context.Background()
	store, err := snapshots.OpenStore(ctx, ts.MkAbs(args[1]), snapshots.Options{})
	ts.Check(err)
	digest, err := store.Resolve(ctx, "")
	ts.Check(err)
	m, err := store.Manifest(ctx, digest)
	ts.Check(err)
	m.Tool, m.Users.Recall[1].Recall = "tandem v0", 0.125
	digest, err = store.Publish(ctx, m)
	ts.Check(err)
	ts.Check(store.Close())
	ts.Setenv(args[0], string(digest))
}

// empty DIR fails if a folder has anything in it.
func empty(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	for _, e := range entries {
		ts.Fatalf("%s has %s", args[0], e.Name())
	}
}

// oldStore VERSION DIR makes DIR the small store that a version of the tool wrote, with
// the times that its files had.
func oldStore(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Open(filepath.Join(oldStores, args[0]+".tar.gz"))
	ts.Check(err)
	defer f.Close()
	unpacked, err := gzip.NewReader(f)
	ts.Check(err)
	for files := tar.NewReader(unpacked); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		ts.Check(err)
		path := filepath.Join(ts.MkAbs(args[1]), strings.TrimPrefix(filepath.Clean(h.Name), "store"))
		if h.FileInfo().IsDir() {
			ts.Check(os.MkdirAll(path, 0o755))
			continue
		}
		data, err := io.ReadAll(files)
		ts.Check(err)
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
		ts.Check(os.WriteFile(path, data, 0o644))
		ts.Check(os.Chtimes(path, h.ModTime, h.ModTime))
	}
}

// pause FILE stops the process whose id is in a file until it is told to go on, or the
// script ends.
func pause(ts *testscript.TestScript, _ bool, args []string) {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Defer(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // it may have ended
	ts.Check(syscall.Kill(pid, syscall.SIGSTOP))
}

// resume FILE has the process whose id is in a file go on that was paused.
func resume(ts *testscript.TestScript, _ bool, args []string) {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, syscall.SIGCONT))
}

// oldStores is where the stores of earlier versions are, one archive each.
var oldStores, _ = filepath.Abs(filepath.Join("testdata", "stores"))
