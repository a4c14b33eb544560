// Package input finds, opens and hashes the files that a build reads: files, folders and
// globs, on this machine and in buckets.
package input
