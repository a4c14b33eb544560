package router

import "math/bits"

// bands is how many kinds of searches there are, by how much they ask for.
const bands = 16

// bandOf returns the kind of a search by the rows that it asks for, over all vectors.
func bandOf(rows int) int { return min(bits.Len(uint(rows)), bands-1) }
