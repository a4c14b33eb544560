package sections

import "golang.org/x/sys/unix"

// advise asks for huge pages, before the mapping is first read. A search reads rows
// all over the file, and with small pages it waits as long for their addresses as
// for the rows. It is advice: where the kernel or the file system cannot follow it,
// nothing is lost, so an error is of no interest.
func advise(mapping []byte) { _ = unix.Madvise(mapping, unix.MADV_HUGEPAGE) }
