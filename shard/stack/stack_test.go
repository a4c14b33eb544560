package stack_test

import (
	"testing"

	"github.com/tandem-ann/tandem/shard/stack"
)

// deep is a call that is as many calls deep, each with a small frame.
//
//go:noinline
func deep(calls int) int {
	var frame [64]byte
	if calls == 0 {
		return int(frame[0])
	}
	return deep(calls-1) + int(frame[calls%len(frame)])
}

// What a deep call on a new goroutine costs, and with its stack grown at first.
func BenchmarkGrow(b *testing.B) {
	for name, first := range map[string]func(){"never": func() {}, "first": stack.Grow} {
		b.Run(name, func(b *testing.B) {
			done := make(chan int)
			for b.Loop() {
				go func() {
					first()
					done <- deep(80)
				}()
				<-done
			}
		})
	}
}
