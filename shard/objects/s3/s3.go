// Package s3 links the client of S3: with it imported, [objects.Open] takes s3:// URLs.
package s3

import (
	"github.com/aws/aws-sdk-go-v2/service/s3"
	_ "gocloud.dev/blob/s3blob" // s3://

	"github.com/tandem-ann/tandem/shard/objects"
)

func init() { objects.Register("s3", objects.Driver{BeforeRead: quietly}) }

// quietly keeps the client library from writing a line to stderr for each object without a checksum of
// the whole, which many stores have none of. It checks those that there are.
func quietly(as func(any) bool) error {
	var options *[]func(*s3.Options)
	if as(&options) {
		*options = append(*options, func(o *s3.Options) { o.DisableLogOutputChecksumValidationSkipped = true })
	}
	return nil
}
