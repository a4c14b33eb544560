package eligibility

import (
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// clause is one of the conditions that a filter joins by &&, outermost.
type clause struct {
	text string
	root *node
}

// clauses returns the clauses of a translated filter in the order of its text.
func (t *translation) clauses(root ast.Expr, n *node) []clause {
	ops := t.chain(root, nil)
	kids := []*node{n}
	if len(ops) > 0 {
		kids = n.kids // one for each operand, in the same order
	}
	text := []rune(t.filter.text) // offsets count characters
	all := make([]clause, 0, len(kids))
	from := 0
	for i, kid := range kids {
		to := len(text)
		if i < len(ops) {
			to = ops[i]
		}
		all = append(all, clause{operandText(text[from:to]), kid})
		from = to + len("&&")
	}
	return all
}

// chain appends where in the text each && of a chain is, in order.
func (t *translation) chain(e ast.Expr, to []int) []int {
	if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != operators.LogicalAnd {
		return to
	}
	args := e.AsCall().Args()
	to = t.chain(args[0], to)
	at, _ := t.info.GetOffsetRange(e.ID())
	return t.chain(args[1], append(to, int(at.Start)))
}

// operandText returns an operand of an operator out of the text around it: without
// comments, space, and parentheses that enclose more than it. The text as a whole
// is known to be valid.
func operandText(around []rune) string {
	var text []rune
	var open []int // where in text a parenthesis is not closed
	end := -1      // where the first one closes that text does not open
	for len(around) > 0 {
		n := 1
		switch c := around[0]; {
		case c == '/' && len(around) > 1 && around[1] == '/':
			for n < len(around) && around[n] != '\n' {
				n++
			}
			around = around[n:]
			continue
		case c == '"' || c == '\'':
			raw := len(text) > 0 && strings.ContainsRune("rR", text[len(text)-1])
			n = literalLen(around, raw)
		case c == '(':
			open = append(open, len(text))
		case c == ')' && len(open) > 0:
			open = open[:len(open)-1]
		case c == ')' && end < 0:
			end = len(text)
		}
		text = append(text, around[:n]...)
		around = around[n:]
	}
	from := 0
	if len(open) > 0 {
		from = open[len(open)-1] + 1
	}
	if end < 0 {
		end = len(text)
	}
	return strings.TrimSpace(string(text[from:end]))
}

// literalLen returns the length of the string literal that text begins with; a raw
// one has no escapes.
func literalLen(text []rune, raw bool) int {
	quote := string(text[0])
	if triple := strings.Repeat(quote, 3); len(text) >= 6 && string(text[:3]) == triple {
		quote = triple
	}
	size := len(quote) // a quote is one byte
	for i := size; i+size <= len(text); i++ {
		switch {
		case text[i] == '\\' && !raw:
			i++
		case string(text[i:i+size]) == quote:
			return i + size
		}
	}
	return len(text)
}
