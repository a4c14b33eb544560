package kernel

import "fmt"

// Split sets eligible to the nodes of a list, up to its first [End], that filter has a
// bit for, and others to those that it has none for, both without nodes whose mark is
// epoch, in the order of the list, and returns how many they are. It sets the marks of
// the eligible ones to epoch.
//
// The nodes must be less than 64*len(filter) and than len(marks), and that is not
// checked, as for Dot. Split panics if eligible or others has not room for the whole
// list; what it does not use of them is undefined afterwards.
func Split(list []uint32, filter []uint64, marks []uint8, epoch uint8, eligible, others []uint32) (n, m int) {
	if len(eligible) < len(list) || len(others) < len(list) {
		panic(fmt.Sprintf("kernel: split %d nodes: room for %d and %d", len(list), len(eligible), len(others)))
	}
	return split(list, filter, marks, epoch, eligible, others)
}

// Through adds to the first n of eligible the nodes of other lists that filter has a bit
// for and whose mark is not epoch, and sets their marks to epoch: those of the nodes in
// via, one after the other until eligible holds at least want. The list of node v is
// links[v*width : (v+1)*width], up to its first [End]. It returns how many eligible
// holds then, and of how many nodes in via the lists were read; their marks are set too.
//
// Nodes are not checked, as for Split. Through panics if eligible has not room for
// want+width.
func Through(links []uint32, width int, via []uint32, want int, filter []uint64, marks []uint8, epoch uint8, eligible []uint32, n int) (count, used int) {
	if len(eligible) < want+width || n < 0 || width < 1 {
		panic(fmt.Sprintf("kernel: %d and up to %d nodes from lists of %d: room for %d", n, want, width, len(eligible)))
	}
	return through(links, width, via, want, filter, marks, epoch, eligible, n)
}

func splitGeneric(list []uint32, filter []uint64, marks []uint8, epoch uint8, eligible, others []uint32) (n, m int) {
	for _, node := range list {
		if node == End {
			break
		}
		switch {
		case marks[node] == epoch:
		case filter[node/64]>>(node%64)&1 != 0:
			marks[node] = epoch
			eligible[n] = node
			n++
		default:
			others[m] = node
			m++
		}
	}
	return n, m
}

func throughGeneric(links []uint32, width int, via []uint32, want int, filter []uint64, marks []uint8, epoch uint8, eligible []uint32, n int) (count, used int) {
	for used < len(via) && n < want {
		from := int(via[used]) * width
		marks[via[used]] = epoch
		used++
		for _, node := range links[from : from+width] {
			if node == End {
				break
			}
			if filter[node/64]>>(node%64)&1 != 0 && marks[node] != epoch {
				marks[node] = epoch
				eligible[n] = node
				n++
			}
		}
	}
	return n, used
}
