package attack

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A command that is started on one processor sees that one, and this process as many as
// before.
func TestStartOn(t *testing.T) {
	before, err := processors()
	require.NoError(t, err)
	for _, n := range before {
		cmd := exec.Command("sleep", "10")
		require.NoError(t, startOn(cmd, n))
		require.NoError(t, lower(cmd.Process.Pid))
		status, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status")
		require.NoError(t, err)
		assert.Contains(t, string(status), "Cpus_allowed_list:\t"+strconv.Itoa(n)+"\n")
		assert.Equal(t, min(nice(t, os.Getpid())+niceness, 19), nice(t, cmd.Process.Pid))
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
	}
	after, err := processors()
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

// nice returns how much lower than usual the priority of a process is.
func nice(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	require.NoError(t, err)
	const field = 19 - 3 // from the third on
	n, err := strconv.Atoi(strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])[field])
	require.NoError(t, err)
	return n
}

func TestPin(t *testing.T) {
	before, err := processors()
	require.NoError(t, err)
	defer func() { require.NoError(t, pin(before)) }()
	last := before[len(before)-1]
	require.NoError(t, pin([]int{last}))
	tasks, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	for _, task := range tasks {
		status, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(t, err)
		assert.Contains(t, string(status), "Cpus_allowed_list:\t"+strconv.Itoa(last)+"\n")
	}
}
