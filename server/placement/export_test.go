package placement

// NegLog2 is how scores of hashes are made, with so many bits behind the point.
func NegLog2(hash uint64) (log uint64, bits int) { return logarithms().of(hash), logBits }
