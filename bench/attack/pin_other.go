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
