package attack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// processors returns the processors that this process may run on, lowest first.
func processors() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read the processors of this process: %w", err)
	}
	var list []int
	for n := range len(set) * strconv.IntSize {
		if set.IsSet(n) {
			list = append(list, n)
		}
	}
	return list, nil
}

func setOf(list []int) *unix.CPUSet {
	set := new(unix.CPUSet)
	for _, n := range list {
		set.Set(n)
	}
	return set
}

// startOn starts a command on one processor, which is all that it sees. It ends with this
// process, however that ends.
func startOn(cmd *exec.Cmd, processor int) error {
	before, err := processors()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // a process begins as the thread that starts it
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, setOf([]int{processor})); err != nil {
		return fmt.Errorf("run %s on processor %d: %w", cmd.Path, processor, err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	err = cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, setOf(before)))
}

// pin has all threads of this process run on some processors.
func pin(list []int) error {
	set := setOf(list)
	seen := map[int]bool{}
	for again := true; again; { // until none was started meanwhile by one that was not pinned yet
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list the threads of this process: %w", err)
		}
		for _, task := range tasks {
			id, err := strconv.Atoi(task.Name())
			if err != nil || seen[id] {
				continue
			}
			seen[id], again = true, true
			if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("run thread %d on processors %v: %w", id, list, err)
			}
		}
	}
	return nil
}

// niceness is how much lower the priority of attackers is than that of this process.
const niceness = 10

// lower lowers the priority of a process that startOn has started, which leads a group
// of its own: of a group all threads are meant.
func lower(pid int) error {
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return fmt.Errorf("read the priority of this process: %w", err)
	}
	own = 20 - own // as the system call has it, which returns nothing negative
	if err := unix.Setpriority(unix.PRIO_PGRP, pid, own+niceness); err != nil {
		return fmt.Errorf("lower the priority of process %d: %w", pid, err)
	}
	return nil
}
