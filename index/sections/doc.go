// Package sections reads and writes the container of a shard file: named,
// page-aligned, checksummed byte sections that are mapped and used in place.
//
// A [Writer] streams sections to a new file and publishes it with a rename; a
// [File] maps one and verifies every byte of it before handing any out. The
// container knows nothing of what the sections mean: packages index and shard
// give them their content. The layout is drawn in ../format.md.
package sections
