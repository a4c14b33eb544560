package main

import (
	"bufio"
	"fmt"
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

const readmePath = "../../README.md"

// readmeTimeout is how long the commands of one section may take on a busy machine.
const readmeTimeout = 6 * time.Minute

// TestReadme runs the commands of the README as they stand: each block of ```sh in one
// shell for each section, in an empty folder. A block of ```text that follows has lines of
// what they print, where "..." stands for any. With -update, the lines are written anew
// that differ in digests and numbers only, and the digests in the commands.
func TestReadme(t *testing.T) {
	if raceEnabled {
		t.Skip("commands run ten times as slowly under the race detector, and each has a script of its own")
	}
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the commands of the README were not run: %v", err)
		}
	}
	data, err := os.ReadFile(readmePath)
	require.NoError(t, err)
	r := &readme{lines: strings.Split(string(data), "\n"), digests: map[string]string{}}
	sections := 0
	for _, blocks := range r.sections() {
		sections++
		r.run(t, blocks)
	}
	require.Equal(t, 2, sections, "sections of the README with commands to run")
	if *update && !t.Failed() {
		require.NoError(t, os.WriteFile(readmePath, []byte(strings.Join(r.lines, "\n")), 0o644))
	}
}

// readme is the file, which -update changes.
type readme struct {
	lines   []string
	digests map[string]string // those of the file that are others now
}

// block is the lines of a fenced block, from the first to before the last.
type block struct {
	kind        string
	first, last int
}

// sections returns the blocks of each section that has some to run.
func (r *readme) sections() (list [][]block) {
	var now []block
	for i := 0; i < len(r.lines); i++ {
		switch line := r.lines[i]; {
		case strings.HasPrefix(line, "#"):
			list, now = append(list, now), nil
		case line == "```sh" || line == "```text":
			end := i + 1 + slices.Index(r.lines[i+1:], "```")
			now = append(now, block{strings.TrimPrefix(line, "```"), i + 1, end})
			i = end
		}
	}
	return slices.DeleteFunc(append(list, now), func(b []block) bool { return len(b) == 0 })
}

// run runs the blocks of one section.
func (r *readme) run(t *testing.T, blocks []block) {
	s := newShell(t)
	ports := strings.NewReplacer("127.0.0.1:8080", freeAddress(t), "127.0.0.1:8081", freeAddress(t))
	var printed []string
	for _, b := range blocks {
		lines := r.lines[b.first:b.last]
		if b.kind == "sh" {
			for i, line := range lines {
				lines[i] = word.ReplaceAllStringFunc(line, r.renew)
			}
			printed = s.do(t, ports.Replace(strings.Join(lines, "\n")))
			continue
		}
		for i, line := range lines {
			if line == "..." {
				continue
			}
			printed = r.find(t, b.first+i, line, printed)
		}
	}
}

// word is what may be a digest, or the beginning of one.
var word = regexp.MustCompile(`\b[0-9a-f]{4,64}\b`)

// renew returns a word, or what it is now if it begins a digest that has changed.
func (r *readme) renew(word string) string {
	for before, now := range r.digests {
		if strings.HasPrefix(before, word) {
			return now[:len(word)]
		}
	}
	return word
}

// find finds a line of the file in what was printed, and returns what was printed after
// it.
func (r *readme) find(t *testing.T, at int, line string, printed []string) []string {
	for i, p := range printed {
		if steady(p) == steady(line) {
			return printed[i+1:]
		}
	}
	for i, p := range printed {
		if *update && shape(p) == shape(line) {
			if full := word.FindString(line); len(full) == 64 {
				r.digests[full] = p
			}
			r.lines[at] = keep(line, p)
			return printed[i+1:]
		}
	}
	require.Fail(t, "the README differs from what its commands print",
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

// shell is one that runs the commands of a section.
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
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(cmd.Dir, ".tmp"))
	require.NoError(t, os.Mkdir(filepath.Join(cmd.Dir, ".tmp"), 0o755))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // it may have ended
	late := time.AfterFunc(readmeTimeout, kill)
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
	require.Fail(t, "a command of the README failed", "%s\n%s", commands, strings.Join(lines, "\n"))
	return nil
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
