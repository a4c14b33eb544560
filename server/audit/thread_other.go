//go:build !linux

package audit

import "time"

// lower does nothing: threads have no priorities of their own that Go could set.
func lower() error { return nil }

// isFirstThread does not know.
func isFirstThread() bool { return false }

// threadTime does not know.
func threadTime() (time.Duration, bool) { return 0, false }
