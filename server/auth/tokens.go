package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Bounds of a file of tokens. MaxCallers bounds whatever is kept by caller.
const (
	MaxFileBytes = 1 << 20
	MaxTokens    = 4096
	MaxCallers   = 1024
	maxName      = 64
)

// tokenPrefix lets scanners of secrets find tokens where they should not be.
const tokenPrefix = "tandem_"

// maxToken is how many bytes of what a caller sends are hashed.
const maxToken = 256

// hashPrefix says what a hash is of.
const hashPrefix = "sha256:"

// Token is one entry of a file of tokens.
type Token struct {
	// Name is the caller. Several tokens of one caller are valid at once.
	Name     string
	Hash     [sha256.Size]byte
	Scopes   Scopes
	Expires  time.Time // zero for never
	Quota    Quota
	Priority Priority
}

// NewSecret returns a new random token.
func NewSecret() string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
}

// HashOf returns the hash of a token, by which it is known.
func HashOf(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// Tokens are the tokens of a file. They are immutable.
type Tokens struct {
	list   []Token
	byHash map[[sha256.Size]byte]*Token
}

// Len returns how many tokens there are.
func (t *Tokens) Len() int { return len(t.list) }

// List returns a copy of the tokens, in the order of the file.
func (t *Tokens) List() []Token { return slices.Clone(t.list) }

// fileEntry is a token as a file has it.
type fileEntry struct {
	Name     string     `yaml:"name"`
	Hash     string     `yaml:"hash"`
	Scopes   []string   `yaml:"scopes,flow"`
	Expires  string     `yaml:"expires,omitempty"`
	Quota    *fileQuota `yaml:"quota,omitempty,flow"`
	Priority string     `yaml:"priority,omitempty"`
}

type fileQuota struct {
	CPU      *float64 `yaml:"cpu,omitempty"`
	InFlight *float64 `yaml:"in_flight,omitempty"` // YAML would cut what is no integer
}

// fileFields are the names of the fields of an entry, and of those of a quota.
var (
	fileFields  = []string{"name", "hash", "scopes", "expires", "quota", "priority"}
	quotaFields = []string{"cpu", "in_flight"}
)

// ParseTokens reads a file of tokens: a list in YAML. A file without a list, as one that is
// half written, is an error; that there are no tokens is said by []. Errors name the line and the field, and
// no value: it may be a token that was put in the wrong place.
func ParseTokens(data []byte) (*Tokens, error) {
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("the file has more than %d bytes", MaxFileBytes)
	}
	var root yaml.Node
	documents := yaml.NewDecoder(bytes.NewReader(data))
	err := documents.Decode(&root)
	if errors.Is(err, io.EOF) || err == nil && isNull(&root) {
		return nil, fmt.Errorf("the file is empty, want a list of tokens, up to %d, or [] for none", MaxTokens)
	}
	if err == nil {
		err = documents.Decode(new(yaml.Node)) // a second one
	}
	if !errors.Is(err, io.EOF) {
		return nil, errors.New("the file is not one document of YAML") // yaml's own error quotes it
	}
	out := &Tokens{byHash: map[[sha256.Size]byte]*Token{}}
	entries := root.Content[0]
	if entries.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("line %d: the file is no list of tokens", entries.Line)
	}
	if len(entries.Content) > MaxTokens {
		return nil, fmt.Errorf("the file has %d tokens, want up to %d", len(entries.Content), MaxTokens)
	}
	for _, node := range entries.Content {
		t, err := parseEntry(node)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", node.Line, err)
		}
		out.list = append(out.list, t)
	}
	return out, out.index()
}

// isNull reports whether a document, or a value in one, has nothing.
func isNull(n *yaml.Node) bool {
	if n.Kind == yaml.DocumentNode {
		return len(n.Content) == 0 || isNull(n.Content[0])
	}
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// index finds the tokens by their hashes, and what is wrong with them together.
func (t *Tokens) index() error {
	callers := map[string]*Token{}
	for i := range t.list {
		token := &t.list[i]
		if t.byHash[token.Hash] != nil {
			return fmt.Errorf("caller %q: its hash is there twice", token.Name)
		}
		t.byHash[token.Hash] = token
		first := callers[token.Name]
		if first == nil {
			callers[token.Name] = token
			continue
		}
		if first.Quota != token.Quota {
			return fmt.Errorf("caller %q: its tokens have different quotas, and a quota is of the caller", token.Name)
		}
	}
	if len(callers) > MaxCallers {
		return fmt.Errorf("the file has %d callers, want up to %d", len(callers), MaxCallers)
	}
	return nil
}

// parseEntry reads one token.
func parseEntry(node *yaml.Node) (Token, error) {
	if err := checkFields(node, "", fileFields); err != nil {
		return Token{}, err
	}
	for i := 0; i < len(node.Content); i += 2 {
		if node.Content[i].Value == "quota" {
			if err := checkQuota(node.Content[i+1]); err != nil {
				return Token{}, err
			}
		}
	}
	var e fileEntry
	if err := node.Decode(&e); err != nil {
		return Token{}, errors.New("a field is of another kind: name, hash, expires and priority are texts, scopes is a list, quota has the numbers cpu and in_flight")
	}
	return e.token()
}

// checkQuota returns an error unless a node is a map of bounds.
func checkQuota(node *yaml.Node) error {
	if err := checkFields(node, "quota.", quotaFields); err != nil {
		return err
	}
	for i := 0; i < len(node.Content); i += 2 {
		if isNull(node.Content[i+1]) {
			return fmt.Errorf("quota.%s has no value; leave it out for no bound", node.Content[i].Value)
		}
	}
	return nil
}

// checkFields returns an error unless a node is a map that has fields of these names only,
// each once.
func checkFields(node *yaml.Node, prefix string, names []string) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("want the fields %s%s", prefix, strings.Join(names, ", "+prefix))
	}
	seen := map[string]bool{}
	for i := 0; i < len(node.Content); i += 2 {
		name := node.Content[i].Value
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is a field that is none of %s%s", prefix, strings.Join(names, ", "+prefix))
		}
		if seen[name] {
			return fmt.Errorf("%s%s is there twice", prefix, name)
		}
		seen[name] = true
	}
	return nil
}

// token checks an entry.
func (e *fileEntry) token() (Token, error) {
	t := Token{Name: e.Name}
	if err := CheckName(e.Name); err != nil {
		return t, err
	}
	digits, ok := strings.CutPrefix(e.Hash, hashPrefix)
	hash, err := hex.DecodeString(digits)
	if !ok || err != nil || len(hash) != len(t.Hash) {
		return t, fmt.Errorf("hash is not %s and %d hexadecimal digits", hashPrefix, 2*len(t.Hash))
	}
	copy(t.Hash[:], hash)
	for _, name := range e.Scopes {
		scope, err := ParseScope(name)
		if err != nil {
			return t, fmt.Errorf("scopes: %w", err)
		}
		t.Scopes |= scope
	}
	if t.Scopes == 0 {
		return t, fmt.Errorf("scopes is empty, want some of %s", Any)
	}
	if e.Expires != "" {
		if t.Expires, err = time.Parse(time.RFC3339, e.Expires); err != nil {
			return t, errors.New("expires is no time such as 2027-01-31T00:00:00Z")
		}
	}
	if e.Priority != "" {
		if t.Priority, err = ParsePriority(e.Priority); err != nil {
			return t, fmt.Errorf("priority: %w", err)
		}
	}
	if e.Quota != nil {
		t.Quota, err = e.Quota.quota()
	}
	return t, err
}

// quota returns the quota that a file has, whose bounds are above 0 where they are given.
func (q *fileQuota) quota() (Quota, error) {
	if q.InFlight == nil {
		return NewQuota(q.CPU, nil)
	}
	n := *q.InFlight
	switch {
	case n != math.Trunc(n):
		return Quota{}, errors.New("quota.in_flight is no whole number")
	case n < 1 || n > maxInFlight: // it may not even fit
		return Quota{}, fmt.Errorf("quota.in_flight is %v, want 1 to %d", n, maxInFlight)
	}
	return NewQuota(q.CPU, new(int(n)))
}

// CheckName returns an error unless a text may name a caller.
func CheckName(name string) error {
	printable := utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' })
	if name == "" || len(name) > maxName || !printable || strings.HasPrefix(name, tokenPrefix) {
		return fmt.Errorf("name is not 1 to %d visible characters that are no token", maxName)
	}
	return nil
}

// append returns the entry of a token as a file has it.
func (t *Token) entry() ([]byte, error) {
	e := fileEntry{Name: t.Name, Hash: hashPrefix + hex.EncodeToString(t.Hash[:]), Scopes: t.Scopes.names()}
	if !t.Expires.IsZero() {
		e.Expires = t.Expires.UTC().Format(time.RFC3339)
	}
	if t.Quota != (Quota{}) {
		e.Quota = &fileQuota{}
		if t.Quota.CPU != 0 {
			e.Quota.CPU = &t.Quota.CPU
		}
		if t.Quota.InFlight != 0 {
			e.Quota.InFlight = new(float64(t.Quota.InFlight))
		}
	}
	if t.Priority != LivePriority {
		e.Priority = t.Priority.String()
	}
	return yaml.Marshal([]fileEntry{e})
}
