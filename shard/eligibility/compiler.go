package eligibility

import (
	"container/list"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/parser"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// The limits of a filter, and of the compiler's cache.
const (
	MaxLength = 16 << 10 // bytes of text
	MaxDepth  = 64       // expressions within one another
	MaxNodes  = 10_000   // expressions in all

	// A compiled filter takes up to 200 times the bytes of its text.
	cacheSize = 1024      // filters
	cacheText = 256 << 10 // bytes of text
)

// Compiler compiles the filters over one schema and remembers by their text the last ones
// that were compiled more than once: filters that come once take no memory, nor the place of
// others. It is safe for any number of goroutines.
type Compiler struct {
	schema attribute.Schema
	parser *parser.Parser
	env    *checker.Env
	merges sync.Pool // of *merger

	mu     sync.Mutex
	cached map[string]*list.Element // of *remembered, by text
	recent list.List                // the last used first
	text   int                      // bytes of the texts
	trims  int
	once   onceSeen
}

// remembered is a filter that the compiler remembers.
type remembered struct {
	*Filter
	used int // how many trims there had been when it was used last
}

// onceSeen has hashes of the texts that came last, and are not remembered. In each set they
// are in the order in which they came.
type onceSeen struct {
	seed maphash.Seed
	sets [1024][4]uint32
}

// again reports whether a text came before, or notes it.
func (o *onceSeen) again(text string) bool {
	hash := maphash.String(o.seed, text)
	set, mark := &o.sets[hash%uint64(len(o.sets))], uint32(hash>>32)
	if slices.Contains(set[:], mark) {
		return true
	}
	copy(set[1:], set[:])
	set[0] = mark
	return false
}

// NewCompiler returns a compiler of filters over a tower's attributes.
func NewCompiler(schema attribute.Schema) (*Compiler, error) {
	p, err := parser.NewParser(
		parser.EnablePrattParser(true),
		parser.Macros(parser.ExistsMacro, hasMacro),
		parser.MaxRecursionDepth(MaxDepth),
		parser.MaxExpressionNodeCount(MaxNodes),
		parser.ExpressionSizeCodePointLimit(MaxLength),
		parser.ErrorReportingLimit(1),
		parser.EnableIdentEscapeSyntax(false),
	)
	if err != nil {
		return nil, fmt.Errorf("filter compiler: %w", err)
	}
	env, err := newEnv(schema)
	if err != nil {
		return nil, fmt.Errorf("filter compiler: %w", err)
	}
	c := &Compiler{schema: schema, parser: p, env: env, cached: map[string]*list.Element{}}
	c.once.seed = maphash.MakeSeed()
	c.merges.New = func() any { return new(merger) }
	return c, nil
}

// hasMacro replaces CEL's, which takes a field and no attribute.
var hasMacro = parser.NewGlobalMacro("has", 1, func(h parser.ExprHelper, _ ast.Expr, args []ast.Expr) (ast.Expr, *common.Error) {
	return h.NewCall(fnHas, args...), nil
})

// Compile returns the filter of a text. The error is an [*Error].
func (c *Compiler) Compile(text string) (*Filter, error) {
	if f := c.lookup(text); f != nil {
		return f, nil
	}
	f, err := c.compile(text)
	if err != nil {
		return nil, err
	}
	c.remember(f)
	return f, nil
}

func (c *Compiler) lookup(text string) *Filter {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.cached[text]
	if !ok {
		return nil
	}
	c.recent.MoveToFront(e)
	r := e.Value.(*remembered)
	r.used = c.trims
	return r.Filter
}

func (c *Compiler) remember(f *Filter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.cached[f.text]; ok || !c.once.again(f.text) {
		return
	}
	c.cached[f.text] = c.recent.PushFront(&remembered{f, c.trims})
	c.text += len(f.text)
	for c.recent.Len() > cacheSize || c.text > cacheText {
		c.forget(c.recent.Back())
	}
}

// forget forgets a filter. The lock is held.
func (c *Compiler) forget(e *list.Element) {
	r := c.recent.Remove(e).(*remembered)
	delete(c.cached, r.text)
	c.text -= len(r.text)
}

// Trim forgets the filters that nobody has compiled since it was called last.
func (c *Compiler) Trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.recent.Back(); e != nil && e.Value.(*remembered).used < c.trims; e = c.recent.Back() {
		c.forget(e)
	}
	c.trims++
	if len(c.cached) == 0 {
		c.cached = map[string]*list.Element{} // a map does not shrink
	}
}

func (c *Compiler) compile(text string) (*Filter, error) {
	switch {
	case len(text) > MaxLength:
		return nil, &Error{1, 1, fmt.Sprintf("%d bytes of text, at most %d are accepted", len(text), MaxLength)}
	case !utf8.ValidString(text):
		return nil, &Error{1, 1, "not valid UTF-8"}
	case strings.TrimSpace(text) == "":
		return nil, &Error{1, 1, "empty: want a condition; leave the filter out to accept every app"}
	}
	source := common.NewTextSource(text)
	parsed, errs := c.parser.Parse(source)
	if all := errs.GetErrors(); len(all) > 0 {
		return nil, parseError(text, all[0])
	}
	t := &translation{schema: c.schema, info: parsed.SourceInfo(), filter: &Filter{text: strings.Clone(text), compiler: c}}
	if err := t.vet(parsed.Expr(), 0); err != nil {
		return nil, err
	}
	checked, errs := checker.Check(parsed, source, c.env)
	if all := errs.GetErrors(); len(all) > 0 {
		return nil, t.typeError(checked, all[0])
	}
	root := checked.Expr()
	if k := checked.GetType(root.ID()).Kind(); k != types.BoolKind && k != types.DynKind {
		return nil, t.errorf(root, "the filter is %s, want a condition", t.describe(checked, root))
	}
	n, err := t.condition(root)
	if err != nil {
		return nil, err
	}
	t.filter.clauses = t.clauses(root, n)
	return t.filter.finish(n)
}

// ourError returns an error of cel-go as ours.
func ourError(e *common.Error) *Error {
	line, column := e.Location.Line(), e.Location.Column()+1
	if line < 1 || column < 1 { // it is about the whole text
		line, column = 1, 1
	}
	return &Error{line, column, strings.TrimPrefix(e.Message, "Syntax error: ")}
}

// parseError returns the parser's error as ours, with what stands at its place.
func parseError(text string, parsed *common.Error) *Error {
	e := ourError(parsed)
	if strings.Contains(e.Message, "recursion limit") {
		e.Message = fmt.Sprintf("nested too deep: at most %d levels are accepted", MaxDepth)
		return e
	}
	rest := []rune(strings.Split(text, "\n")[e.Line-1])
	rest = rest[min(e.Column-1, len(rest)):]
	switch rest = rest[:min(len(rest), 20)]; {
	case len(rest) == 0 && strings.HasPrefix(e.Message, "expected"):
		e.Message += " where the text ends"
	case len(rest) == 0:
		e.Message = "the text ends where more is expected"
	case strings.HasPrefix(e.Message, "unexpected"):
		e.Message = fmt.Sprintf("unexpected %q", string(rest))
	default:
		e.Message += fmt.Sprintf(" at %q", string(rest))
	}
	e.Message += `: a filter is conditions like price < 5 or "ios" in platforms, with &&, || and !`
	return e
}

// errorf returns an error at the place of an expression.
func (t *translation) errorf(e ast.Expr, format string, args ...any) *Error {
	at := t.info.GetStartLocation(e.ID())
	return &Error{max(at.Line(), 1), max(at.Column()+1, 1), fmt.Sprintf(format, args...)}
}
