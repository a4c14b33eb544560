package kernel

func splitBy(i implementation, list []uint32, filter []uint64, marks []uint8, epoch uint8, eligible, others []uint32) (n, m int) {
	if i == vnni {
		return splitAVX512(list, filter, marks, epoch, eligible, others)
	}
	return splitGeneric(list, filter, marks, epoch, eligible, others)
}

func throughBy(i implementation, links []uint32, width int, via []uint32, want int, filter []uint64, marks []uint8, epoch uint8, eligible []uint32, n int) (count, used int) {
	if i == vnni {
		return throughAVX512(links, width, via, want, filter, marks, epoch, eligible, n)
	}
	return throughGeneric(links, width, via, want, filter, marks, epoch, eligible, n)
}
