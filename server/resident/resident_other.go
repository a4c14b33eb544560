//go:build !linux

package resident

import (
	"errors"
	"fmt"
)

var errLinux = fmt.Errorf("read the memory of a process: it is for Linux: %w", errors.ErrUnsupported)

// Of returns an error of class [errors.ErrUnsupported].
func Of(int) (Memory, error) { return Memory{}, errLinux }

// Self returns an error of class [errors.ErrUnsupported].
func Self() (Memory, error) { return Memory{}, errLinux }
