package capacity

// Bounds of what is asked for.
const (
	maxDim  = 8192
	maxK    = 10_000
	maxRows = 1 << 30 // of a shard
)
