//go:build !linux

package index

import "runtime"

// GiveWay lets other goroutines run. It is for the midst of long work, about every 0.1 ms,
// so that who has little to do need not wait: the scheduler of Go takes a processor from
// a goroutine only after 10 ms.
func GiveWay() { runtime.Gosched() }
