//go:build !linux

package attack

import (
	"errors"
	"os/exec"
)

var errLinux = errors.New("attacks are measured on Linux only, which tells the memory of a process and has it run on one processor")

func processors() ([]int, error) { return nil, errLinux }

func startOn(*exec.Cmd, int) error { return errLinux }

func pin([]int) error { return errLinux }

func lower(int) error { return errLinux }

// StartOwned starts a command that ends with this process, however that ends; if pinned, it
// runs on the first of this process's processors. It is for Linux.
func StartOwned(*exec.Cmd, bool) error { return errLinux }
