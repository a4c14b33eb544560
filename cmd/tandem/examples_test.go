package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// example is a command that a page shows without running it, as an indented block.
type example struct {
	page, command string // a command is on one line, without what stands behind #
	line          int
}

// aCommand and aReply tell a command from a program, a formula and what a command says.
var (
	aCommand = regexp.MustCompile(`^(\$ )?(tandem [a-z]|curl )`)
	aReply   = regexp.MustCompile(`^tandem( [a-z]+)+: `)
)

// examplesOf returns the commands of a page's indented blocks, those within lists too.
func examplesOf(page, text string) (list []example) {
	lines := strings.Split(text, "\n")
	fenced := false
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		}
		command := strings.TrimSpace(line)
		if fenced || !strings.HasPrefix(line, "    ") || !aCommand.MatchString(command) || aReply.MatchString(command) {
			continue
		}
		e := example{page: page, line: i + 1}
		// A line goes on in the next after a backslash, and within quotes.
		for ; ; i++ {
			part, more := strings.CutSuffix(strings.TrimSpace(lines[i]), `\`)
			e.command += " " + strings.TrimSpace(part)
			if !more && strings.Count(e.command, "'")%2 == 0 {
				break
			}
		}
		e.command = strings.TrimPrefix(strings.TrimSpace(e.command), "$ ")
		e.command, _, _ = strings.Cut(e.command, " # ")
		e.command = strings.TrimSpace(e.command)
		list = append(list, e)
	}
	return list
}

// examplesWorld is what the commands of examples work on.
type examplesWorld struct {
	dir           string // has towers, and a store of two snapshots, of which the first is released
	first, latest string // their digests
}

func newExamplesWorld(t *testing.T) *examplesWorld {
	w := &examplesWorld{dir: t.TempDir()}
	w.do(t, w.dir, `tandem generate --out . --apps 600 --users 400 --dim 16 >generated
		printf 'norms: off\n' >gates.yaml
		build() { tandem build --apps apps.parquet --users users.parquet --store ./store --model feed --model-version $1 --metric dot --shards 2 --interactions interactions.parquet >built; tail -n 1 built; }
		build 1 >first
		tandem release start --store ./store $(cat first) --reason one >released
		build 2 >latest
		cp -R store copy`)
	for name, digest := range map[string]*string{"first": &w.first, "latest": &w.latest} {
		data, err := os.ReadFile(filepath.Join(w.dir, name))
		require.NoError(t, err)
		*digest = strings.TrimSpace(string(data))
	}
	return w
}

// run runs the command of an example in a copy of the world, with a server if it asks one. What the page calls by
// other names is there by these.
func (w *examplesWorld) run(t *testing.T, e example) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(w.dir)))
	server, admin := freeAddress(t), freeAddress(t)
	command := strings.NewReplacer(
		"OTHER_STORE", "./copy", "STORE", "./store", "s3://backup?region=eu-west-1", "./copy",
		"DIGEST", w.latest, "4be1", w.latest[:12], "dea9", w.latest[:12], "09c2", w.first[:12],
		"10.0.0.1:8080", server, "10.0.0.7:8080", server, "10.0.0.8:8080", strings.Replace(server, "127.0.0.1", "localhost", 1), "ROUTER:8080", server, "127.0.0.1:8080", server, " SERVER", " "+server,
		"127.0.0.1:6060", admin, "APPS", "apps.parquet", "USERS", "users.parquet", "MODEL", "feed", "VERSION", "9", " ARM", " candidate",
		"tandem build ...", "tandem build --apps apps.parquet --users users.parquet --store ./store --model feed --model-version 8 --metric dot",
	).Replace(e.command)
	const state = " --state ./state --drain-delay 0s"
	if strings.HasPrefix(command, "tandem serve ") {
		w.serve(t, dir, command+state+" --listen "+server)()
		return
	}
	if away := strings.Contains(command, "--away-from"); away || strings.Contains(command, "candidate") {
		w.do(t, dir, "tandem release start --store ./store "+w.latest+" --weight 100 --reason two")
		if away {
			w.do(t, dir, "tandem release promote --store ./store candidate --reason two")
		}
	}
	if strings.Contains(command, server) || strings.Contains(command, admin) {
		defer w.serve(t, dir, "tandem serve --store ./store --live-writes --release-writes --listen "+server+" --admin "+admin+state)()
	}
	w.do(t, dir, command)
}

// prepared returns a command in the folder of the world, whose processes end with the test.
func (w *examplesWorld) prepared(t *testing.T, dir, script string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), pageTimeout)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "sh", "-ec", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+filepath.Join(dir, ".state"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// do runs a command.
func (w *examplesWorld) do(t *testing.T, dir, script string) {
	out, err := w.prepared(t, dir, script).CombinedOutput()
	require.NoError(t, err, "%s\n%s", script, out)
}

var isReady = regexp.MustCompile(`msg=(serving|ready)`)

// serve starts a server, and returns what ends it once it is ready.
func (w *examplesWorld) serve(t *testing.T, dir, command string) (end func()) {
	cmd := w.prepared(t, dir, "exec "+command)
	var said bytes.Buffer
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		told := false
		for buffer := make([]byte, 4096); ; {
			n, err := stderr.Read(buffer)
			said.Write(buffer[:n])
			if !told && isReady.Match(said.Bytes()) {
				told = true
				close(ready)
			}
			if err != nil {
				break
			}
		}
		ended <- cmd.Wait()
	}()
	end = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		require.NoError(t, <-ended, "%s\n%s", command, &said)
	}
	select {
	case <-ready:
	case err := <-ended:
		require.Fail(t, "the server has ended", "%s: %v\n%s", command, err, &said)
	}
	return end
}

// notRun has the commands that are not run here, by what is in them, and why. What they are asked with is
// checked all the same.
var notRun = map[string]string{
	"tandem bench ":               "it takes minutes or hours, or sets and machines that are not everywhere",
	"--apps 1000000":              "it takes minutes",
	"s3://":                       "it takes a bucket",
	"https://SERVER":              "it takes certificates: security.md makes some",
	"https://localhost":           "it takes certificates: security.md makes some",
	"--nodes $nodes":              "it takes a cluster: cluster.md has one",
	"token new cluster":           "cluster.md has a block with it",
	"--rebuild ":                  "it takes the files of the build in an archive: script rebuild",
	"--watch":                     "it does not end: script status",
	"curl ... ":                   "it is the body of a request, and no whole command",
	"tandem live accept":          "a log that hangs together has nothing to accept: scripts live_gap and live_restored",
	"--live-position ":            "no log of the test is as long: script live",
	"--extracted-at ":             "the log has nothing of that time: script live",
	"--restored ":                 "nothing is lost: script restore",
	"tandem replay":               "nothing was recorded: script replay",
	"tandem feedback report":      "no day was joined: script feedback_join",
	"tandem feedback obp":         "no day was joined: script feedback_join",
	"--hash-users":                "it takes a key: script feedback_hashed",
	"--app-partition-attributes":  "it takes folders of days: script inputs",
	"pipeline.token":              "it takes a server that asks for tokens: releases.md has one",
	"tandem snapshot gc --keep 7": "it names no store: pipelines.md sets TANDEM_STORE",
}

// TestExamples runs the commands of the indented blocks of README.md and of the pages of docs/, each on a store
// and a server that are there already. Those that cannot be run so are read by the command line, which knows its
// flags.
func TestExamples(t *testing.T) {
	if raceEnabled {
		t.Skip("commands run ten times as slowly under the race detector, and each has a script of its own")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("the commands of the pages were not run: %v", err)
	}
	t.Parallel()
	require.NotZero(t, run(t.Context(), []string{"serve", "--nonsense", "--help"}, io.Discard, io.Discard), "help is asked for after what is wrong")
	w := newExamplesWorld(t)
	ran, left := 0, map[string]bool{}
	for _, path := range pages(t) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, e := range examplesOf(filepath.Base(path), string(data)) {
			runs := true
			for sign := range notRun {
				if strings.Contains(e.command, sign) {
					runs, left[sign] = false, true
				}
			}
			if !runs {
				parses(t, e)
				continue
			}
			ran++
			t.Run(fmt.Sprintf("%s:%d", e.page, e.line), func(t *testing.T) { w.run(t, e) })
		}
	}
	for sign, why := range notRun {
		require.True(t, left[sign], "no example has %q, of which is said: %s", sign, why)
	}
	require.Greater(t, ran, 20)
}

// parses has the command line read a command that is not run: what it is asked with must be there.
func parses(t *testing.T, e example) {
	// What stands for more is left out, and a file that must be there is another one.
	command := strings.NewReplacer(" ... ", " ", " tandem-before", " examples_test.go").Replace(strings.TrimSuffix(e.command, " ..."))
	for _, part := range strings.Split(command, "; ") {
		args := words(part)
		if len(args) == 0 || args[0] != "tandem" {
			continue
		}
		var out bytes.Buffer
		// With --help nothing is done; what is unknown before it is an error all the same.
		code := run(t.Context(), append(slices.Clone(args[1:]), "--help"), io.Discard, &out)
		require.Zero(t, code, "%s:%d: %s\n%s", e.page, e.line, part, &out)
	}
}

// words returns the words of a command, as a shell has them.
func words(command string) (list []string) {
	for _, m := range regexp.MustCompile(`(?:'[^']*'|"[^"]*"|[^\s'"])+`).FindAllString(command, -1) {
		if m == ">" || m == "|" {
			break
		}
		list = append(list, strings.NewReplacer("'", "", `"`, "").Replace(m))
	}
	return list
}
