//go:build s3

package objectstest

// s3://, where the variable has one. Its client is a fourth of all that a test with stores compiles and
// links: step s3 of .ci/run asks for it.
import _ "github.com/tandem-ann/tandem/shard/objects/s3"
