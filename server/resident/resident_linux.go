package resident

import (
	"fmt"
	"os"
	"strconv"
)

// Of returns the memory of a process. A process that has ended, or that this one may not look at, is an
// error. It is safe for concurrent use.
func Of(pid int) (Memory, error) { return read(strconv.Itoa(pid)) }

// Self returns the memory of this process. It is safe for concurrent use.
func Self() (Memory, error) { return read("self") }

func read(process string) (Memory, error) {
	path := "/proc/" + process + "/status"
	data, err := os.ReadFile(path)
	if err != nil {
		return Memory{}, fmt.Errorf("read the memory of process %s: %w", process, err)
	}
	m, err := parse(string(data))
	if err != nil {
		return Memory{}, fmt.Errorf("read the memory of process %s: %s: %w", process, path, err)
	}
	return m, nil
}
