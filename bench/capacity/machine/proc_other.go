//go:build !linux

package machine

import (
	"errors"
	"fmt"
)

var errLinux = fmt.Errorf("it is for Linux: %w", errors.ErrUnsupported)

// spent returns the seconds that a processor has worked for this thread.
func spent() (float64, error) { return 0, errLinux }

// ownCPU returns the seconds that processors have worked for this process.
func ownCPU() (float64, error) { return 0, errLinux }

// processCPU returns the seconds that processors have worked for the threads that a process has.
func processCPU(int) (float64, error) { return 0, errLinux }

// memoryOf returns the bytes that a process has in memory.
func memoryOf(int) (own, files float64, err error) { return 0, 0, errLinux }

// machineCPU returns the seconds that all processors of the machine have worked.
func machineCPU() (float64, error) { return 0, errLinux }

// model returns what the processor calls itself.
func model() string { return "unknown" }
