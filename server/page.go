package server

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/cespare/xxhash/v2"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// maxCandidates is how many candidates all pages of an answer have together. The contract's
// rule for k repeats it, as that has no name for its bound.
const maxCandidates = 10_000

// pageToken is where a page begins, and what it is a page of. Its text is all that there is
// of an answer between two pages.
//
//	version    1 byte: 1
//	snapshot  16 bytes: the first ones of its digest
//	request    8 bytes: its hash
//	score      4 bytes: of the candidate that the page before ended with
//	rank       2 bytes: of that, counted over all pages
//	id        1 to 256 bytes: of that
//	checksum   8 bytes: of what is before it
//
// Of a page that follows an explored answer the version is 3, and before the id there is
//
//	drawn      1 byte: how many were drawn that rank after the candidate
//	hash       8 bytes of each
//
// An interleaved answer has another form, of version 2: see pairToken.
//
// Numbers are big-endian, and all of it is in base64 of the alphabet for URLs, without
// padding. A token grants nothing that its request does not: who makes one up has a page of
// that request. So there is a checksum, against mistakes, and no signature.
type pageToken struct {
	snapshot [tokenDigest]byte
	request  uint64
	score    float32
	rank     int
	id       string
	drawn    []uint64   // hashes of ids that an earlier page has and that rank after it
	pair     *pairToken // of an interleaved answer, which has nothing else but the request; or nil
}

const (
	tokenVersion  = 1
	tokenPair     = 2
	tokenDrawn    = 3
	tokenDigest   = 16
	tokenHead     = 1 + tokenDigest + 8 + 4 + 2
	tokenChecksum = 8
	plainToken    = tokenHead + shard.MaxIDLen + tokenChecksum
	maxToken      = max(plainToken+1+8*release.MaxPlaces, maxPairToken)
)

// tokenEncoding has one text for each token.
var tokenEncoding = base64.RawURLEncoding.Strict()

// tokenOf returns the beginning of a digest that tokens have.
func tokenOf(d manifest.Digest) (out [tokenDigest]byte) {
	_, _ = hex.Decode(out[:], []byte(d[:min(len(d), 2*tokenDigest)])) // a digest is in hex
	return out
}

// String returns the text of the token.
func (p *pageToken) String() string {
	data := make([]byte, 0, plainToken) // others grow
	switch {
	case p.pair != nil:
		data = p.pair.append(append(data, tokenPair), p.request)
	default:
		data = append(data, tokenVersion)
		if len(p.drawn) > 0 {
			data[0] = tokenDrawn
		}
		data = append(data, p.snapshot[:]...)
		data = binary.BigEndian.AppendUint64(data, p.request)
		data = binary.BigEndian.AppendUint32(data, math.Float32bits(p.score))
		data = binary.BigEndian.AppendUint16(data, uint16(p.rank))
		if len(p.drawn) > 0 {
			data = append(data, byte(len(p.drawn)))
			for _, hash := range p.drawn {
				data = binary.BigEndian.AppendUint64(data, hash)
			}
		}
		data = append(data, p.id...)
	}
	data = binary.BigEndian.AppendUint64(data, xxhash.Sum64(data))
	return string(tokenEncoding.AppendEncode(make([]byte, 0, (plainToken*8+5)/6), data))
}

// parseToken reads the text of a token. The error completes a sentence about it.
func parseToken(text string) (*pageToken, error) {
	if strings.ContainsAny(text, "\r\n") { // which base64 would pass over
		return nil, errors.New("has a line break")
	}
	if most := tokenEncoding.EncodedLen(maxToken); len(text) > most {
		return nil, fmt.Errorf("has %d characters, more than the %d of any token", len(text), most)
	}
	data, err := tokenEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("is not base64 for URLs without padding")
	}
	if len(data) < tokenHead+1+tokenChecksum {
		return nil, fmt.Errorf("has %d characters, too few for a token", len(text))
	}
	data, sum := data[:len(data)-tokenChecksum], data[len(data)-tokenChecksum:]
	if xxhash.Sum64(data) != binary.BigEndian.Uint64(sum) {
		return nil, errors.New("is cut or changed: its checksum is wrong")
	}
	version := data[0]
	switch version {
	case tokenVersion, tokenDrawn:
	case tokenPair:
		return parsePair(data[1:])
	default:
		return nil, fmt.Errorf("is of version %d, this server reads versions %d to %d", version, tokenVersion, tokenDrawn)
	}
	p := &pageToken{snapshot: [tokenDigest]byte(data[1:])}
	data = data[1+tokenDigest:]
	p.request = binary.BigEndian.Uint64(data)
	p.score = math.Float32frombits(binary.BigEndian.Uint32(data[8:]))
	p.rank = int(binary.BigEndian.Uint16(data[12:]))
	if data = data[14:]; version == tokenDrawn {
		if p.drawn, data, err = parseDrawn(data); err != nil {
			return nil, err
		}
	}
	p.id = string(data)
	if err := checkCursor(p.score, p.rank, p.id); err != nil {
		return nil, err
	}
	return p, nil
}

// parseDrawn reads how many were drawn, and their hashes, and returns what follows.
func parseDrawn(data []byte) (drawn []uint64, rest []byte, err error) {
	n := int(data[0])
	if data = data[1:]; n < 1 || n > release.MaxPlaces || len(data) < 8*n {
		return nil, nil, fmt.Errorf("has %d candidates that were drawn, in %d bytes", n, len(data))
	}
	for ; n > 0; n-- {
		drawn = append(drawn, binary.BigEndian.Uint64(data))
		data = data[8:]
	}
	return drawn, data, nil
}

// checkCursor returns an error for what no page ends with. It completes a sentence about a token.
func checkCursor(score float32, rank int, id string) error {
	switch {
	case math.IsNaN(float64(score)) || math.IsInf(float64(score), 0):
		return fmt.Errorf("has the score %v", score)
	case rank < 1 || rank >= maxCandidates:
		return fmt.Errorf("has the rank %d, no page follows it", rank)
	case id == "" || len(id) > shard.MaxIDLen:
		return fmt.Errorf("has an id of %d bytes", len(id))
	case !utf8.ValidString(id):
		return errors.New("has an id that is not UTF-8")
	}
	return nil
}

// sameRequest says which request a token is of.
const sameRequest = "accepted: next_page_token of an answer to this request, whatever page_token, k, explain, explain_ids, attributes, min_live, request_id, experiment, variant and min_coverage were"

// pageOf returns the page that a request asks for, nil if that is the first.
func pageOf(r *tandemv1.RetrieveRequest) (*pageToken, error) {
	if r.PageToken == "" {
		return nil, nil
	}
	p, err := parseToken(r.PageToken)
	if err != nil {
		return nil, invalidf(reasonPageToken, "page_token", "page_token %q %w; %s", excerpt(r.PageToken), err, sameRequest)
	}
	if p.request != hashRequest(r) {
		return nil, invalidf(reasonPageToken, "page_token", "page_token %q is of another request; %s", excerpt(r.PageToken), sameRequest)
	}
	return p, nil
}

// setPage sets where the page begins that the request asks for, and how many candidates it
// has at most.
func (q *query) setPage(r *tandemv1.RetrieveRequest) error {
	p, err := pageOf(r)
	if p == nil {
		return err
	}
	if p.pair != nil { // each team has a cursor of its own, which whoever draws sets
		q.K = min(q.K, maxCandidates-p.pair.picks)
		return nil
	}
	q.After = &shard.Cursor{Score: p.score, ID: p.id, Rank: p.rank, Most: maxCandidates}
	q.K, q.drawn = min(q.K, maxCandidates-p.rank), p.drawn
	return nil
}

// earlier returns how many candidates the pages before have that a request asks for, if they
// have any.
func earlier(r *tandemv1.RetrieveRequest) int {
	if r.PageToken == "" {
		return 0
	}
	p, err := parseToken(r.PageToken)
	switch {
	case err != nil:
		return 0
	case p.pair != nil:
		return p.pair.picks
	}
	return p.rank
}

// nextPage returns the token of the page that follows an answer, empty if none does. None
// follows an answer without candidates, whatever shards are missing: so a caller who goes on
// until there is no token comes to an end.
func nextPage(now *pinned, q *query, r *tandemv1.RetrieveRequest, found *shard.Answer) string {
	n, rank := len(found.Candidates), len(found.Candidates)+q.passed
	if q.After != nil {
		rank += q.After.Rank
	}
	whole := found.Answered() == len(found.Shards) && found.Cut() == 0
	switch {
	case n == 0 || rank >= maxCandidates || found.Before+n >= maxCandidates:
		return ""
	case whole && (n < q.K || found.Before+n+q.trailing >= found.Eligible):
		return ""
	}
	last := &found.Candidates[n-1]
	p := pageToken{snapshot: now.short, request: hashRequest(r), score: last.Score, rank: rank, id: last.ID, drawn: q.drawn}
	return p.String()
}

// acquireFor returns the arm that answers a request as it is now, or both if it is to be
// interleaved, for a request that arrived at a time. The caller releases it. A page is of the
// snapshots of the one before, whatever arm its request falls into.
func (s *Service) acquireFor(r *tandemv1.RetrieveRequest, arrived time.Time) (*pinned, error) {
	p, err := pageOf(r)
	switch {
	case err != nil:
		return nil, err
	case p == nil:
		return s.acquireFirst(r, arrived)
	case p.pair != nil:
		return s.acquirePair(r, p.pair, arrived)
	}
	a, err := s.acquirePage(r, p.snapshot, func(now *state) *arm { return now.holder(p.snapshot, requestKey(r)) })
	if err != nil {
		return nil, err
	}
	return a.pin(arrived), nil
}

// acquirePage returns the arm that answers a page of a snapshot, which the caller releases: that
// which holder finds in what answers now, or else the one that the snapshot was when it answered
// last.
func (s *Service) acquirePage(r *tandemv1.RetrieveRequest, snapshot [tokenDigest]byte, holder func(*state) *arm) (*arm, error) {
	for {
		now, err := s.answering()
		if err != nil {
			return nil, err
		}
		a := holder(now)
		if a == nil || !a.acquire() {
			a = s.mapped.acquire(snapshot)
		}
		if a == nil && s.current.Load() != now {
			continue // what it had may be what has answered since
		}
		if a == nil {
			return nil, errorf(connect.CodeFailedPrecondition, reasonPageGone, "page_token %q is of snapshot %x, which is gone from this server; accepted: that of a snapshot that answers, or did a short while ago; begin with the first page",
				excerpt(r.PageToken), snapshot[:6])
		}
		if served := a.modelVersion(); r.ModelVersion != "" && r.ModelVersion != served {
			a.release()
			return nil, invalidf(reasonPageToken, "page_token", "page_token %q is of model version %q, model_version is %q; %s", excerpt(r.PageToken), served, r.ModelVersion, sameRequest)
		}
		return a, nil
	}
}

// holder returns an arm that has the snapshot of a page: the one that a key falls into, if
// that has it; nil if none has.
func (s *state) holder(snapshot [tokenDigest]byte, key string) *arm {
	if to, err := s.route(wanted{key: key}); err == nil && s.arms[to.own].short == snapshot {
		return &s.arms[to.own]
	}
	for i := range s.arms {
		if s.arms[i].short == snapshot {
			return &s.arms[i]
		}
	}
	return nil
}
