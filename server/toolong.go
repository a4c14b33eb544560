package server

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
)

// estimatedTooLong is the error of an answer that is estimated to have so many bytes, by
// what rows of the tower take on average. before is what the answers before it in a batch
// take.
func estimatedTooLong(r *tandemv1.RetrieveRequest, bytes, before, most int) error {
	fits := ""
	if k := int(int64(r.K) * int64(most-before) / int64(bytes)); k > 0 {
		fits = fmt.Sprintf("about %d", k)
	}
	return tooLong(r, fmt.Sprintf("about %d bytes", bytes), before, most, fits)
}

// textTooLong is the error of an answer whose candidates were looked at until they had too
// much text.
func textTooLong(ctx context.Context, now *pinned, q *query, r *tandemv1.RetrieveRequest, text *shard.TextError, most int) error {
	rest, err := newAnswer(ctx, now, q, &shard.Answer{Shards: make([]shard.ShardAnswer, len(q.tower.Parts()))}, nil)
	if err != nil {
		return err
	}
	list, err := candidates(ctx, text.Found, q.names, nil)
	if err != nil {
		return err
	}
	room := most - proto.Size(rest) - answerOverhead
	if r.Explain || len(r.ExplainIds) > 0 {
		room -= shardOverhead * (len(q.tower.Parts()) + len(r.ExplainIds))
	}
	size := fmt.Sprintf("more than %d bytes after %d of %d candidates", most, len(text.Found), text.Of)
	return tooLong(r, size, 0, most, firstFitting(list, room))
}

// answerTooLong is the error of an answer that has so many bytes.
func answerTooLong(r *tandemv1.RetrieveRequest, answer *tandemv1.RetrieveResponse, bytes, before, most int) error {
	room := most - before - bytes
	for _, c := range answer.Candidates {
		room += listedSize(proto.Size(c))
	}
	return tooLong(r, fmt.Sprintf("%d bytes", bytes), before, most, firstFitting(answer.Candidates, room))
}

// firstFitting returns how many of the best candidates have so many bytes at most, as a
// text, empty for none.
func firstFitting(list []*tandemv1.Candidate, room int) string {
	fit := 0
	for _, c := range list {
		if room -= listedSize(proto.Size(c)); room < 0 {
			break
		}
		fit++
	}
	if fit == 0 {
		return ""
	}
	return fmt.Sprint(fit)
}

// tooLong is the error of an answer of a size. fits says which k would do, empty for none.
func tooLong(r *tandemv1.RetrieveRequest, size string, before, most int, fits string) error {
	names := "none"
	if len(r.Attributes) > 0 {
		short := make([]string, len(r.Attributes))
		for i, name := range r.Attributes {
			short[i] = excerpt(name)
		}
		names = listed(short)
	}
	text := fmt.Sprintf("k is %d and attributes are %s: an answer of %s", r.K, names, size)
	if before > 0 {
		text += fmt.Sprintf(", after %d of the answers before it in the batch", before)
	}
	text += fmt.Sprintf("; accepted: up to %d", most)
	if before > 0 {
		text += " in all"
	}
	if fits != "" {
		text += ", such as k up to " + fits
	}
	return invalidf(reasonAnswer, "k", "%s", text)
}
