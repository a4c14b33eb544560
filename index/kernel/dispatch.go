package kernel

// An implementation is one way to compute the same bits.
type implementation uint8

const (
	generic implementation = iota // pure Go, everywhere
	avx2
	avx512
	vnni // for codes only
	neon
	dotprod // for codes only
)

func (i implementation) String() string {
	return [...]string{
		generic: "generic",
		avx2:    "avx2",
		avx512:  "avx512",
		vnni:    "avx512vnni",
		neon:    "neon",
		dotprod: "neon+dotprod",
	}[i]
}
