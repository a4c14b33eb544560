//go:build !amd64

package kernel

func splitBy(_ implementation, list []uint32, filter []uint64, marks []uint8, epoch uint8, eligible, others []uint32) (n, m int) {
	return split(list, filter, marks, epoch, eligible, others)
}

func throughBy(_ implementation, links []uint32, width int, via []uint32, want int, filter []uint64, marks []uint8, epoch uint8, eligible []uint32, n int) (count, used int) {
	return through(links, width, via, want, filter, marks, epoch, eligible, n)
}
