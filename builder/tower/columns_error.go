package tower

// ColumnsError says that columns cannot become attributes. [Options.IgnoreColumns] leaves
// them out.
type ColumnsError struct {
	Err error // says which, and why not
}

// Error implements [error].
func (e *ColumnsError) Error() string { return e.Err.Error() }

// Unwrap returns why.
func (e *ColumnsError) Unwrap() error { return e.Err }
