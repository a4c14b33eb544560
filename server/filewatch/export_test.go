package filewatch

import "time"

// SetPatience sets for how long files may be read.
func (f *Files) SetPatience(d time.Duration) { f.patience = d }
