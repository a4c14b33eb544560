package shard

import (
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/index/sections"
)

// UnreadableError says that a shard did not answer because a page of its file could not
// be read, and which. It is of class [sections.ErrUnreadable].
type UnreadableError struct {
	Shard string
	Fault *sections.FaultError
}

// Error implements error. The text does not name the file, for it goes to callers, whom
// paths on this machine are no use to; that of Fault does.
func (e *UnreadableError) Error() string {
	return fmt.Sprintf("shard %s cannot be read (%s, the page at %d): its disk failed, or its file was cut", e.Shard, e.Fault.Part, e.Fault.Offset)
}

// Unwrap returns the fault.
func (e *UnreadableError) Unwrap() error { return e.Fault }

// named returns an error of reading the shard's file as one that names the shard, and
// any other as it is.
func (s *Shard) named(err error) error {
	if fault, ok := errors.AsType[*sections.FaultError](err); ok {
		return &UnreadableError{s.name, fault}
	}
	return err
}
