// Package members says who the nodes of a cluster are: it follows something that knows, which
// is a file, the DNS of a service, or the EndpointSlices of one.
//
// # Goals
//
// A list of members outlives what it was heard from: a router goes on with whom it knows while
// a source is silent, refuses, or says what cannot be. A member that is in the list and gone
// costs little, since a router hears from each node itself whether it is there. A member that
// is missing from the list costs what it holds.
//
// # Design
//
// A [Source] tells of [Members]: the list as it was heard last, when that was, and what is
// wrong now. What is wrong never takes members out of the list. That a source does not answer
// is wrong, and so is an answer that cannot be read, that has more than [MaxMembers], or that
// has none: a cluster without nodes answers nobody, so nothing is won by believing in it, and
// empty answers are what half-written files, new DNS servers, services whose selector has a
// typing error, and namespaces that were deleted by mistake give. So NXDOMAIN, an empty file,
// [] and a service without endpoints all leave the members that were there. A process that was
// started afterwards knows none of them.
//
// All nodes of a cluster are to use one source, since they compute from the names of members
// who holds what, and sources have different names for one node.
//
// Package node places shards on members, package router asks them; the command line parses
// what names a source.
package members
