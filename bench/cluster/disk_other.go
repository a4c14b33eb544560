//go:build !linux

package cluster

import "errors"

var errLinux = errors.New("it is for Linux")

// mountDisk mounts a disk of its own over a folder.
func mountDisk(string) error { return errLinux }

// unmountDisk takes a disk away, with all that is on it.
func unmountDisk(string) error { return errLinux }

// fillDisk leaves no byte of a disk.
func fillDisk(string) error { return errLinux }

// emptyDisk takes back what has filled a disk.
func emptyDisk(string) error { return errLinux }
