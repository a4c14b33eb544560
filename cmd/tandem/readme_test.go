package main

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pageTimeout is how long the commands of one page may take on a busy machine.
const pageTimeout = 15 * time.Minute

// kubectl is for the pages that have a Kubernetes.
var kubectl = flag.String("kubectl", "", "the kubectl that TestReadme runs commands with, in a cluster as .ci/kube has it; none leaves out the pages that need one")

// TestReadme runs the commands of README.md and of the pages of docs/ as they stand: the
// blocks of ```sh of a page in one shell, in an empty folder. A block of ```text that
// follows has lines of what they print, where "..." stands for any. With -update, the lines
// are written anew that differ in digests and numbers only, and the digests in the commands.
func TestReadme(t *testing.T) {
	if raceEnabled {
		t.Skip("commands run ten times as slowly under the race detector, and each has a script of its own")
	}
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the commands of the pages were not run: %v", err)
		}
	}
	t.Parallel()
	var run []string
	for _, path := range pages(t) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		p := &page{lines: strings.Split(string(data), "\n"), digests: map[string]string{}}
		blocks := p.blocks()
		if len(blocks) == 0 {
			continue
		}
		run = append(run, filepath.Base(path))
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel() // it waits
			if _, err := exec.LookPath("openssl"); err != nil && strings.Contains(string(data), "openssl") {
				t.Skipf("the commands of the page were not run: %v", err)
			}
			if *kubectl == "" && strings.Contains(string(data), "\nkubectl ") {
				t.Skip("the commands of the page were not run: they need a Kubernetes; .ci/run kube has one")
			}
			p.run(t, blocks)
			if *update && !t.Failed() {
				require.NoError(t, os.WriteFile(path, []byte(strings.Join(p.lines, "\n")), 0o644))
			}
		})
	}
	require.Equal(t, []string{"README.md", "build-at-scale.md", "capacity.md", "cluster.md", "cookbook.md", "feedback.md", "filters.md", "formats.md", "kubernetes.md", "live.md", "metrics.md", "pipelines.md", "queries.md", "releases.md", "security.md", "traces.md", "tutorial.md"}, run, "pages with commands to run")
}

// pages returns the paths of README.md and of the pages of docs/.
func pages(t *testing.T) []string {
	list, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	return append([]string{"../../README.md"}, list...)
}

// TestPagesLink follows every link of the pages that leads into the repository.
func TestPagesLink(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)# ]*)(?:#([^) ]*))?\)`)
	others := []string{"../../ARCHITECTURE.md", "../../CONTRIBUTING.md", "../../shard/format.md", "../../index/format.md"}
	found := 0
	for _, path := range append(pages(t), others...) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range link.FindAllStringSubmatch(string(data), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			found++
			to := path
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(path), m[1])
			}
			_, err := os.Stat(to)
			require.NoError(t, err, "%s links to it", path)
			if m[2] != "" {
				text, err := os.ReadFile(to)
				require.NoError(t, err)
				require.Contains(t, anchors(string(text)), m[2], "%s links to %s", path, to)
			}
		}
	}
	require.Greater(t, found, 20)
}

// TestStepsAreDocumented looks for every step of .ci/run in CONTRIBUTING.md.
func TestStepsAreDocumented(t *testing.T) {
	script, err := os.ReadFile("../../.ci/run")
	require.NoError(t, err)
	page, err := os.ReadFile("../../CONTRIBUTING.md")
	require.NoError(t, err)
	lists := regexp.MustCompile(`(?m)^(?:first|lanes|last|extras)=\((.+)\)$`).FindAllSubmatch(script, -1)
	require.Len(t, lists, 4)
	for _, list := range lists {
		for _, step := range strings.Fields(strings.ReplaceAll(string(list[1]), `"`, " ")) {
			require.Contains(t, string(page), "`"+step+"`", "steps of .ci/run")
		}
	}
}

// anchors returns what links can name of a page: its headings, in small letters, with
// dashes for spaces and nothing else for what is no letter.
func anchors(text string) (list []string) {
	other := regexp.MustCompile(`[^a-z0-9_ -]`)
	for line := range strings.Lines(text) {
		if name := strings.TrimLeft(line, "#"); name != line {
			name = other.ReplaceAllString(strings.ToLower(strings.TrimSpace(name)), "")
			list = append(list, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return list
}

// page is a file, which -update changes.
type page struct {
	lines   []string
	digests map[string]string // those of the file that are others now
}

// block is the lines of a fenced block, from the first to before the last.
type block struct {
	kind        string
	first, last int
}

// blocks returns the blocks that are run, and those of what they print.
func (p *page) blocks() (list []block) {
	for i := 0; i < len(p.lines); i++ {
		if line := p.lines[i]; line == "```sh" || line == "```text" {
			end := i + 1 + slices.Index(p.lines[i+1:], "```")
			list = append(list, block{strings.TrimPrefix(line, "```"), i + 1, end})
			i = end
		}
	}
	return list
}

// run runs the blocks.
func (p *page) run(t *testing.T, blocks []block) {
	s := newShell(t)
	var addresses []string
	for _, port := range []string{"8080", "8081", "7071", "7072", "7073", "6060"} {
		addresses = append(addresses, "127.0.0.1:"+port, freeAddress(t))
	}
	ports := strings.NewReplacer(addresses...)
	var printed []string
	for _, b := range blocks {
		lines := p.lines[b.first:b.last]
		if b.kind == "sh" {
			for i, line := range lines {
				lines[i] = word.ReplaceAllStringFunc(line, p.renew)
			}
			printed = s.do(t, ports.Replace(strings.Join(lines, "\n")))
			continue
		}
		for i, line := range lines {
			if line == "..." {
				continue
			}
			printed = p.find(t, b.first+i, line, printed)
		}
	}
}

// word is what may be a digest, or the beginning of one.
var word = regexp.MustCompile(`\b[0-9a-f]{4,64}\b`)

// renew returns a word, or what it is now if it begins a digest that has changed.
func (p *page) renew(word string) string {
	for before, now := range p.digests {
		if strings.HasPrefix(before, word) {
			return now[:len(word)]
		}
	}
	return word
}

// find finds a line of the file in what was printed, and returns what was printed after
// it.
func (p *page) find(t *testing.T, at int, line string, printed []string) []string {
	for i, now := range printed {
		if steady(now) == steady(line) {
			return printed[i+1:]
		}
	}
	for i, now := range printed {
		if *update && shape(now) == shape(line) {
			if full := word.FindString(line); len(full) == 64 {
				p.digests[full] = now
			}
			p.lines[at] = keep(line, now)
			return printed[i+1:]
		}
	}
	require.Fail(t, "the page differs from what its commands print",
		"line %d: %q is not in\n%s\nrun go test ./cmd/tandem -run TestReadme -update; what differs in more than digests and numbers is to be written anew", at+1, line, strings.Join(printed, "\n"))
	return nil
}

// unsteady is what differs from run to run: times, salts, who it was, and how many threads
// there are.
var unsteady = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z|\b[0-9a-f]{32}\b|\b([0-9]+m)?[0-9.]+(s|ms|µs)\b|[^ ]+@[^ ]+|on [0-9]+ threads?|127\.0\.0\.1:[0-9]+`)

var spaces = regexp.MustCompile(` +`)

// steady returns a line without what differs from run to run.
func steady(line string) string {
	return strings.TrimSpace(spaces.ReplaceAllString(unsteady.ReplaceAllString(line, "~"), " "))
}

var digits = regexp.MustCompile(`\b[0-9a-f]{12}\b|\b[0-9a-f]{64}\b|[0-9][0-9,.]*`)

// shape returns a line without its digests and numbers.
func shape(line string) string { return digits.ReplaceAllString(steady(line), "#") }

// keep returns a line that was printed, with what differs from run to run as it was.
func keep(before, printed string) string {
	old := unsteady.FindAllString(before, -1)
	i := -1
	return unsteady.ReplaceAllStringFunc(printed, func(now string) string {
		if i++; i < len(old) && len(old) == len(unsteady.FindAllString(printed, -1)) {
			return old[i]
		}
		return now
	})
}

// shell is one that runs the commands of a page.
type shell struct {
	input  *os.File
	output *bufio.Scanner
}

// newShell starts a shell in an empty folder, which ends at the first command that fails,
// or with the test.
func newShell(t *testing.T) *shell {
	stdin, input, err := os.Pipe()
	require.NoError(t, err)
	output, stdout, err := os.Pipe()
	require.NoError(t, err)
	cmd := exec.Command("sh", "-e")
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = t.TempDir(), stdin, stdout, stdout
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(cmd.Dir, ".tmp"), "XDG_STATE_HOME="+filepath.Join(cmd.Dir, ".state"))
	require.NoError(t, os.Mkdir(filepath.Join(cmd.Dir, ".tmp"), 0o755))
	if *kubectl != "" { // and what the page names of the repository
		path, err := filepath.Abs(filepath.Dir(*kubectl))
		require.NoError(t, err)
		cmd.Env = append(cmd.Env, "PATH="+path+":"+os.Getenv("PATH"))
		require.NoError(t, os.CopyFS(filepath.Join(cmd.Dir, "deploy"), os.DirFS("../../deploy")))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // it may have ended
	late := time.AfterFunc(pageTimeout, kill)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // what it has printed tells
		kill()         // servers in the background, which hold the output open
	}()
	t.Cleanup(func() {
		late.Stop()
		kill()
		<-ended
		_, _ = input.Close(), output.Close()
	})
	require.NoError(t, stdin.Close())
	require.NoError(t, stdout.Close())
	return &shell{input, bufio.NewScanner(output)}
}

// do runs commands and returns the lines that they print.
func (s *shell) do(t *testing.T, commands string) (lines []string) {
	const end = "-- the block has ended --"
	_, err := fmt.Fprintf(s.input, "%s\necho '%s'\n", commands, end)
	require.NoError(t, err)
	for s.output.Scan() {
		if s.output.Text() == end {
			return lines
		}
		lines = append(lines, s.output.Text())
	}
	require.Fail(t, "a command of the page failed", "%s\n%s", commands, strings.Join(lines, "\n"))
	return nil
}

// freeAddress returns an address that nobody listens on. It is not one of those that the kernel
// deals to who asks for any, and to connections, which another test may have by the time it is used.
func freeAddress(t *testing.T) string {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(10_000)))
		if err == nil {
			address := l.Addr().String()
			require.NoError(t, l.Close())
			return address
		}
	}
	require.Fail(t, "none of 100 ports is free")
	return ""
}
