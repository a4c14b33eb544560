package eligibility

import "fmt"

// Error says why a filter does not compile.
type Error struct {
	Line, Column int // 1-based, in characters, of the text
	Message      string
}

// Error returns the message with its place.
func (e *Error) Error() string {
	return fmt.Sprintf("filter: line %d, column %d: %s", e.Line, e.Column, e.Message)
}

func (e *Error) before(o *Error) bool {
	return e.Line < o.Line || e.Line == o.Line && e.Column < o.Column
}

// BindError says why values cannot be bound to a filter.
type BindError struct {
	Binding string // without "user."
	Message string
}

// Error returns the message with the binding's name.
func (e *BindError) Error() string {
	return fmt.Sprintf("filter: binding user.%s: %s", e.Binding, e.Message)
}
