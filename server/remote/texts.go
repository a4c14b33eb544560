package remote

import (
	"fmt"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
)

// textsOf returns texts on the wire, nil for none.
func textsOf(list []string) *shardv1.Texts {
	if len(list) == 0 {
		return nil
	}
	t := &shardv1.Texts{}
	grow(t, list)
	for _, text := range list {
		addText(t, text)
	}
	return t
}

// grow makes room for texts.
func grow(t *shardv1.Texts, list []string) {
	size := 0
	for _, text := range list {
		size += len(text)
	}
	t.Text, t.Lengths = make([]byte, 0, size), make([]uint32, 0, len(list))
}

// addText adds a text.
func addText(t *shardv1.Texts, text string) {
	t.Text, t.Lengths = append(t.Text, text...), append(t.Lengths, uint32(len(text)))
}

// checkTexts returns an error unless the lengths are those of the bytes.
func checkTexts(name string, t *shardv1.Texts) error {
	sum := uint64(0)
	for _, n := range t.GetLengths() {
		sum += uint64(n)
	}
	if sum != uint64(len(t.GetText())) {
		return fmt.Errorf("%s has %d bytes of text, and lengths of %d; want both equal", name, len(t.GetText()), sum)
	}
	return nil
}

// appendTexts appends texts that pass checkTexts. They share one copy of the bytes.
func appendTexts(dst []string, t *shardv1.Texts) []string {
	text := string(t.GetText())
	for _, n := range t.GetLengths() {
		dst, text = append(dst, text[:n]), text[n:]
	}
	return dst
}

// Texts returns texts that were checked as they were read, such as those of a [Node.GetShard].
func Texts(t *shardv1.Texts) []string { return appendTexts(nil, t) }

// readTexts returns texts.
func readTexts(name string, t *shardv1.Texts) ([]string, error) {
	if err := checkTexts(name, t); err != nil {
		return nil, err
	}
	if len(t.GetLengths()) == 0 {
		return nil, nil
	}
	return appendTexts(make([]string, 0, len(t.GetLengths())), t), nil
}
