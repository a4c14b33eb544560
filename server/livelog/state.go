package livelog

import (
	"errors"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard/appendlog"
)

// StateOf returns what the error of a look at a log says of the log.
func StateOf(err error) tandemv1.LogState {
	switch {
	case err == nil:
		return tandemv1.LogState_LOG_STATE_FOLLOWED
	case errors.Is(err, appendlog.ErrForked):
		return tandemv1.LogState_LOG_STATE_FORKED
	case errors.Is(err, appendlog.ErrBehind):
		return tandemv1.LogState_LOG_STATE_BEHIND
	case errors.Is(err, appendlog.ErrGap):
		return tandemv1.LogState_LOG_STATE_GAP
	}
	return tandemv1.LogState_LOG_STATE_UNREAD
}

// Broken reports whether the log that is there does not go on from the one that was
// followed.
func Broken(s tandemv1.LogState) bool {
	switch s {
	case tandemv1.LogState_LOG_STATE_FORKED, tandemv1.LogState_LOG_STATE_BEHIND, tandemv1.LogState_LOG_STATE_GAP:
		return true
	}
	return false
}
