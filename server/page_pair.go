package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/release"
)

// pairToken is where a page of an interleaved answer begins: where each team is. What ranks up to
// there in the list of either team was shown, or passed over for good.
//
//	version    1 byte: 2
//	request    8 bytes: its hash
//	seed       8 bytes: of the coins
//	picks      2 bytes: candidates of all pages before
//	and of each of the two teams
//	snapshot  16 bytes: the first ones of its digest
//	length     1 byte: of the name of its arm
//	arm       1 to 64 bytes: the name
//	position   8 bytes: the xxhash64 of the position of the live log that the first page had
//	score      4 bytes: of the last candidate that it has looked at
//	rank       2 bytes: of that in its own list; 0 if it has looked at none, and the others are empty
//	length     2 bytes: of the id
//	id         0 to 256 bytes: of that
//
// and the checksum, of 8 bytes.
type pairToken struct {
	seed  uint64
	picks int
	teams [2]teamToken
}

// teamToken is where a team is.
type teamToken struct {
	snapshot [tokenDigest]byte
	arm      string
	position uint64
	score    float32
	rank     int
	id       string
}

const (
	teamTail     = 8 + 4 + 2 + 2
	pairHead     = 8 + 8 + 2
	maxPairToken = 1 + pairHead + 2*(tokenDigest+1+release.MaxArmName+teamTail+shard.MaxIDLen) + tokenChecksum
)

// cursor returns where the team's list goes on; nil at its beginning.
func (t *teamToken) cursor() *shard.Cursor {
	if t.rank == 0 {
		return nil
	}
	return &shard.Cursor{Score: t.score, ID: t.id, Rank: t.rank, Most: maxCandidates}
}

// append appends the token of a request after its version.
func (p *pairToken) append(data []byte, request uint64) []byte {
	data = binary.BigEndian.AppendUint64(data, request)
	data = binary.BigEndian.AppendUint64(data, p.seed)
	data = binary.BigEndian.AppendUint16(data, uint16(p.picks))
	for i := range p.teams {
		t := &p.teams[i]
		data = append(data, t.snapshot[:]...)
		data = append(append(data, byte(len(t.arm))), t.arm...)
		data = binary.BigEndian.AppendUint64(data, t.position)
		data = binary.BigEndian.AppendUint32(data, math.Float32bits(t.score))
		data = binary.BigEndian.AppendUint16(data, uint16(t.rank))
		data = binary.BigEndian.AppendUint16(data, uint16(len(t.id)))
		data = append(data, t.id...)
	}
	return data
}

// parsePair reads what append has appended. The error completes a sentence about the token.
func parsePair(data []byte) (*pageToken, error) {
	short := errors.New("is too short for a token of an interleaved answer")
	if len(data) < pairHead {
		return nil, short
	}
	request := binary.BigEndian.Uint64(data)
	p := &pairToken{seed: binary.BigEndian.Uint64(data[8:]), picks: int(binary.BigEndian.Uint16(data[16:]))}
	if p.picks < 1 || p.picks >= maxCandidates {
		return nil, fmt.Errorf("follows %d candidates, no page follows it", p.picks)
	}
	data = data[pairHead:]
	for i := range p.teams {
		if len(data) < tokenDigest+1 {
			return nil, short
		}
		t := &p.teams[i]
		t.snapshot = [tokenDigest]byte(data)
		n := int(data[tokenDigest])
		if data = data[tokenDigest+1:]; len(data) < n+teamTail {
			return nil, short
		}
		t.arm, data = string(data[:n]), data[n:]
		if release.CheckArmName(t.arm) != nil {
			return nil, fmt.Errorf("is of an arm %q", excerpt(t.arm))
		}
		t.position = binary.BigEndian.Uint64(data)
		t.score = math.Float32frombits(binary.BigEndian.Uint32(data[8:]))
		t.rank = int(binary.BigEndian.Uint16(data[12:]))
		n = int(binary.BigEndian.Uint16(data[14:]))
		if data = data[teamTail:]; len(data) < n {
			return nil, short
		}
		t.id, data = string(data[:n]), data[n:]
		if t.rank == 0 && t.id == "" && math.Float32bits(t.score) == 0 {
			continue
		}
		if err := checkCursor(t.score, t.rank, t.id); err != nil {
			return nil, err
		}
	}
	if p.teams[0].arm == p.teams[1].arm {
		return nil, fmt.Errorf("is of arm %s twice", p.teams[0].arm)
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("has %d bytes more than a token of an interleaved answer", len(data))
	}
	return &pageToken{request: request, pair: p}, nil
}
