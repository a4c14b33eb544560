//go:build !amd64 && !arm64

package kernel

func (implementation) float16Routines() compactRoutines[uint16] {
	return genericCompactRoutines[uint16]()
}

func (implementation) uint8Routines() compactRoutines[uint8] {
	return genericCompactRoutines[uint8]()
}
