//go:build gcs

package objectstest

// gs://, where the variable has one. It brings gRPC with xDS, a sixth of all that is compiled, into
// every test that has stores: step gcs of .ci/run asks for it.
import _ "github.com/tandem-ann/tandem/shard/objects/gcs"
