package index

// SetCached makes scans take the vectors to be in cache, or not to be.
func (x *Index) SetCached(cached bool) { x.cached = cached }
