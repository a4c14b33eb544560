package console

import "net/http"

// Secured has a handler's answers carry what the console's own tell browsers: its content security
// policy, and that nothing is kept or shown within other pages.
func Secured(next http.Handler) http.Handler { return secured(next) }
