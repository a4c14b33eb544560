//go:build !amd64 && !arm64

package kernel

func (implementation) routines() routines { return genericRoutines }

func (implementation) codeRoutines() codeRoutines { return genericCodeRoutines }
