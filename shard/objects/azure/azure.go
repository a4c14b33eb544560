// Package azure links the client of Azure Blob Storage: with it imported, [objects.Open] takes
// azblob:// URLs.
package azure

import (
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	_ "gocloud.dev/blob/azureblob" // azblob://

	"github.com/tandem-ann/tandem/shard/objects"
)

func init() { objects.Register("azblob", objects.Driver{Answer: answer}) }

// answer returns what the client library says in fields, where others have methods.
func answer(err error) (status int, code string) {
	if azure := (*azcore.ResponseError)(nil); errors.As(err, &azure) {
		return azure.StatusCode, azure.ErrorCode
	}
	return 0, ""
}
