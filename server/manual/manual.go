// Package manual shows the pages of package docs to browsers, and to programs that read: HTML, the
// Markdown of each page, and llms.txt. It is served beside the console, under the same content
// security policy: no script, and nothing from elsewhere.
package manual

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"strings"
	"sync"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"github.com/tandem-ann/tandem/docs"
	"github.com/tandem-ann/tandem/server/console"
)

// Path is where the pages are.
const Path = console.DocsPath

//go:embed style.css
var style []byte

//go:embed page.html
var frame string

// New returns the handler of all that is under [Path]: the index, NAME for a page, NAME.md for its
// text, llms.txt, and what pages show. It says nothing of who may ask.
func New() http.Handler {
	m := &manual{pages: sync.OnceValues(render)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path+"{$}", func(w http.ResponseWriter, r *http.Request) { m.page(w, docs.Index) })
	mux.HandleFunc("GET "+Path+"{name}", func(w http.ResponseWriter, r *http.Request) { m.file(w, r.PathValue("name")) })
	return console.Secured(mux)
}

type manual struct {
	pages func() (map[string][]byte, error) // in HTML, by their names
}

// file answers with what has a name.
func (m *manual) file(w http.ResponseWriter, name string) {
	base, isText := strings.CutSuffix(name, ".md")
	image, err := docs.Image(name)
	switch p := docs.Get(base); {
	case name == "style.css":
		write(w, "text/css; charset=utf-8", style)
	case name == "llms.txt":
		write(w, "text/plain; charset=utf-8", []byte(docs.LLMs(Path)))
	case isText && p != nil:
		write(w, "text/markdown; charset=utf-8", []byte(p.Text))
	case err == nil:
		write(w, "image/svg+xml", image)
	default:
		m.page(w, name)
	}
}

// page answers with a page in HTML.
func (m *manual) page(w http.ResponseWriter, name string) {
	pages, err := m.pages()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	page, ok := pages[name]
	if !ok {
		http.Error(w, "there is no such page; "+Path+" lists them", http.StatusNotFound)
		return
	}
	write(w, "text/html; charset=utf-8", page)
}

func write(w http.ResponseWriter, kind string, data []byte) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(data) // a browser that went away is nobody's error
}

// render returns all pages in HTML.
func render() (map[string][]byte, error) {
	t, err := template.New("page").Parse(frame)
	if err != nil {
		return nil, err
	}
	md := goldmark.New(goldmark.WithExtensions(extension.Table, extension.Linkify),
		goldmark.WithParserOptions(parser.WithASTTransformers(util.Prioritized(links{}, 100))))
	out := map[string][]byte{}
	for _, p := range docs.Pages() {
		var body, page bytes.Buffer
		if err := md.Convert([]byte(p.Text), &body, parser.WithContext(parser.NewContext(parser.WithIDs(&anchors{})))); err != nil {
			return nil, err
		}
		// The pages are our own, and goldmark leaves out what they have of HTML.
		err := t.Execute(&page, map[string]any{"Page": p, "Pages": docs.Pages(), "Body": template.HTML(body.String()), "Path": Path})
		if err != nil {
			return nil, err
		}
		out[p.Name] = page.Bytes()
	}
	return out, nil
}

// links has headings be what links name, and links lead to pages rather than to their files. What is
// not in the binary is no link: its text stays.
type links struct{}

// Transform implements [parser.ASTTransformer].
func (links) Transform(doc *ast.Document, reader text.Reader, pc parser.Context) {
	var dead []*ast.Link
	_ = ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			heading := n.Lines().Value(reader.Source())
			n.SetAttributeString("id", pc.IDs().Generate(heading, ast.KindHeading))
		case *ast.Link:
			file, fragment, _ := strings.Cut(string(n.Destination), "#")
			switch name, isPage := strings.CutSuffix(file, ".md"); {
			case file == "", strings.Contains(file, "://"):
			case isPage && docs.Get(name) != nil:
				if n.Destination = []byte(name); fragment != "" {
					n.Destination = []byte(name + "#" + fragment)
				}
			default:
				dead = append(dead, n)
			}
		}
		return ast.WalkContinue, nil
	})
	for _, n := range dead {
		parent := n.Parent()
		for c := n.FirstChild(); c != nil; c = n.FirstChild() {
			parent.InsertBefore(parent, n, c)
		}
		parent.RemoveChild(parent, n)
	}
}

// anchors names headings as package docs does.
type anchors struct{ used map[string]int }

// Generate implements [parser.IDs].
func (a *anchors) Generate(value []byte, _ ast.NodeKind) []byte {
	if a.used == nil {
		a.used = map[string]int{}
	}
	return []byte(docs.Unique(a.used, docs.Anchor(strings.TrimSpace(string(value)))))
}

// Put implements [parser.IDs].
func (a *anchors) Put([]byte) {}
