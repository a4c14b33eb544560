package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tracedCalls are the system calls that are traced: those by which Go reads and changes
// files and folders. A question mark is for those that a kernel may lack.
const tracedCalls = "openat,read,pread64,write,pwrite64,mmap,ftruncate,fallocate,?copy_file_range," +
	"fsync,fdatasync,flock,getdents64,?newfstatat,?statx,fstat,fchmod,fchmodat," +
	"mkdirat,linkat,symlinkat,?renameat,renameat2,unlinkat"

// call is one system call of a traced process.
type call struct {
	name     string
	nth      int      // which call of that name it was in its thread, from 1: strace counts so
	paths    []string // the files that it names, absolute
	args     string   // as strace prints them
	finished bool     // false if the process died in it
	ok       bool     // it returned no error
	injected bool     // strace made it fail, or be late
}

// straceCommand is a command that runs under strace and writes what it calls to a log.
// It is the child that is started, so that it can be killed and waited for as if it ran
// alone; waiting for it with an output that is no file waits for strace too, so that the
// log is whole then. Options are more flags of strace.
func straceCommand(log string, options []string, args ...string) *exec.Cmd {
	flags := []string{"-D", "-f", "-y", "-s", "0", "-e", "signal=none", "-o", log}
	flags = append(flags, "-e", "trace="+tracedCalls)
	if !strings.Contains(strings.Join(options, " "), ":signal=") {
		flags = append(flags, "--seccomp-bpf") // quicker, but strace 6.1 injects no signals then
	}
	flags = append(append(flags, options...), "--", "tandem")
	return exec.Command("strace", append(flags, args...)...)
}

// awaitTrace waits until a traced process has called something: strace has become the
// command that it traces by then.
func awaitTrace(log string) {
	for range 5000 {
		if info, err := os.Stat(log); err == nil && info.Size() > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	returned    = regexp.MustCompile(`\)\s+= (-?\d+|0x[0-9a-f]+)(.*)$`)
	atPath      = regexp.MustCompile(`(?:AT_FDCWD|\d+)<([^>]*)>(?:\(deleted\))?, "((?:[^"\\]|\\.)*)"`)
	fdPath      = regexp.MustCompile(`(?:^|, )\d+<(/[^>]*)>`)
)

// readTrace reads a log of strace.
func readTrace(path string) ([]call, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	calls, err := parseTrace(data)
	if err != nil {
		return nil, fmt.Errorf("read trace %s: %w", path, err)
	}
	return calls, nil
}

func parseTrace(log []byte) ([]call, error) {
	var calls []call
	counts := map[string]int{} // by thread and call
	open := map[string]int{}   // by thread, the call that has not returned
	lines := bufio.NewScanner(bytes.NewReader(log))
	lines.Buffer(nil, len(log)+1)
	for lines.Scan() {
		line := lines.Text()
		if m := resumedLine.FindStringSubmatch(line); m != nil {
			i, is := open[m[1]]
			if !is {
				return nil, fmt.Errorf("nothing to resume: %s", line)
			}
			delete(open, m[1])
			// It takes effect now, after those that returned meanwhile.
			c := calls[i]
			calls[i].name = ""
			c.finish(c.args + m[3])
			calls = append(calls, c)
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue // an exit or a signal
		}
		counts[m[1]+m[2]]++
		c := call{name: m[2], nth: counts[m[1]+m[2]]}
		if args, unfinished := strings.CutSuffix(m[3], " <unfinished ...>"); unfinished {
			c.args = args
			c.paths = pathsOf(args)
			open[m[1]] = len(calls)
		} else {
			c.finish(m[3])
		}
		calls = append(calls, c)
	}
	return slices.DeleteFunc(calls, func(c call) bool { return c.name == "" }), lines.Err()
}

// finish notes how a call ended, from the text after its opening parenthesis.
func (c *call) finish(text string) {
	c.args, c.finished = text, true
	if at := returned.FindStringSubmatchIndex(text); at != nil {
		value, rest := text[at[2]:at[3]], text[at[4]:at[5]]
		c.args = text[:at[0]]
		c.ok = !strings.HasPrefix(value, "-")
		c.injected = strings.Contains(rest, "(INJECTED)") || strings.Contains(rest, "(DELAYED)")
	} else {
		c.finished = false // it has no result: the process died in it
	}
	c.paths = pathsOf(c.args)
}

// pathsOf returns the files that the arguments of a call name.
func pathsOf(args string) []string {
	var paths []string
	for _, m := range atPath.FindAllStringSubmatch(args, -1) {
		path, err := strconv.Unquote(`"` + m[2] + `"`)
		if err != nil {
			path = m[2]
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(m[1], path)
		}
		paths = append(paths, filepath.Clean(path))
	}
	if len(paths) == 0 {
		if m := fdPath.FindStringSubmatch(args); m != nil {
			paths = append(paths, m[1])
		}
	}
	return paths
}

// within reports whether a call names a file below a folder.
func (c *call) within(dir string) bool {
	return slices.ContainsFunc(c.paths, func(path string) bool {
		return path == dir || strings.HasPrefix(path, dir+"/")
	})
}
