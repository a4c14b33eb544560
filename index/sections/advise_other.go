//go:build !linux

package sections

func advise([]byte) {}
