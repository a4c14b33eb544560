//go:build !nogcs

package main

// gs://. It brings gRPC with xDS, a sixth of all that is compiled, which step race of .ci/run does
// without: no test of the command has such a bucket.
import _ "github.com/tandem-ann/tandem/shard/objects/gcs"
