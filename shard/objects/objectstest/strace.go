package objectstest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// straced names the environment variable of a test that runs under strace.
const straced = "TANDEM_TEST_STRACED"

// UnderStrace runs a function of a test in a process of its own, in which system calls
// fail as the arguments of strace say, such as "-e", "inject=fsync:error=EIO:when=2", and
// returns the lines that the function says it did. It is given the folder. strace counts
// the calls of its goroutine alone. Every call of UnderStrace in a test must be for the
// same function. The test is skipped where there is no strace.
func UnderStrace(t *testing.T, dir string, function func(dir string) (lines []string), arguments ...string) []string {
	t.Helper()
	const mark = "straced: "
	if dir := os.Getenv(straced); dir != "" {
		runtime.LockOSThread()
		lines := function(dir)
		runtime.UnlockOSThread()
		for _, line := range lines {
			_, _ = os.Stdout.WriteString("\n" + mark + line) // read below
		}
		_, _ = os.Stdout.WriteString("\n")
		t.SkipNow()
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace")
	}
	arguments = append(append([]string{"-f", "-qq", "-o", os.DevNull}, arguments...), os.Args[0], "-test.run=^"+t.Name()+"$")
	command := exec.CommandContext(t.Context(), strace, arguments...)
	command.Env = append(os.Environ(), straced+"="+dir)
	output, err := command.CombinedOutput()
	if strings.Contains(string(output), "Operation not permitted") && !strings.Contains(string(output), mark) {
		t.Skipf("strace may not trace here: %s", output)
	}
	require.NoError(t, err, string(output))
	var lines []string
	for line := range strings.Lines(string(output)) {
		if said, ok := strings.CutPrefix(strings.TrimSpace(line), mark); ok {
			lines = append(lines, said)
		}
	}
	return lines
}
