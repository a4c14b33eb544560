// Command protoc-gen-docs is a plugin of buf that writes what the contract has as one page of
// Markdown, api.md: every service with its procedures, every message with its fields and every
// enum, each with its comment.
package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func main() {
	protogen.Options{}.Run(func(p *protogen.Plugin) error {
		p.SupportedFeatures = 1 // optional fields of proto3
		w := &page{p.NewGeneratedFile("api.md", "")}
		w.P("# What does the API have, field by field?")
		w.P()
		w.P("This page is generated from `api/tandem/v1/*.proto`. A procedure is asked by POST to")
		w.P("`/SERVICE/PROCEDURE`, by Connect, gRPC or gRPC-Web, in JSON or protobuf: in JSON, names are as they")
		w.P("are here, enums are their names, and a field that is zero or empty is left out of an answer.")
		w.P("[What a query can say](queries.md) explains those of `Retrieve`, and [errors](errors.md) what comes")
		w.P("back where something is wrong.")
		files := slices.DeleteFunc(slices.Clone(p.Files), func(f *protogen.File) bool { return !f.Generate })
		slices.SortFunc(files, func(a, b *protogen.File) int { return strings.Compare(order(a), order(b)) })
		w.P()
		w.P("| service | in |")
		w.P("| --- | --- |")
		for _, f := range files {
			for _, s := range f.Services {
				w.P("| [", s.Desc.Name(), "](#", strings.ToLower(string(s.Desc.Name())), ") | `", f.Desc.Path(), "` |")
			}
		}
		for _, f := range files {
			for _, s := range f.Services {
				w.service(s)
			}
			for _, m := range f.Messages {
				w.message(m)
			}
			for _, e := range f.Enums {
				w.enum(e)
			}
		}
		return nil
	})
}

// order has what rankers ask come first.
func order(f *protogen.File) string {
	name := f.Desc.Path()
	if strings.HasSuffix(name, "/retrieval.proto") {
		return " " + name
	}
	return name
}

type page struct{ *protogen.GeneratedFile }

func (w *page) service(s *protogen.Service) {
	w.P()
	w.P("## ", s.Desc.Name())
	w.P()
	w.text(s.Comments)
	for _, m := range s.Methods {
		w.P()
		w.P("### ", s.Desc.Name(), "/", m.Desc.Name())
		w.P()
		stream := ""
		if m.Desc.IsStreamingServer() {
			stream = "a stream of "
		}
		w.P("`/", s.Desc.FullName(), "/", m.Desc.Name(), "`: ", link(m.Input.Desc), ", answered by ", stream, link(m.Output.Desc))
		w.P()
		w.text(m.Comments)
	}
}

func (w *page) message(m *protogen.Message) {
	if m.Desc.IsMapEntry() {
		return
	}
	w.P()
	w.P("### ", name(m.Desc))
	w.P()
	w.text(m.Comments)
	if len(m.Fields) > 0 {
		w.P()
		w.P("| field | type | meaning |")
		w.P("| --- | --- | --- |")
		for _, f := range m.Fields {
			kind := typeOf(f)
			if one := f.Oneof; one != nil && !one.Desc.IsSynthetic() {
				kind += ", one of `" + string(one.Desc.Name()) + "`"
			}
			w.P("| `", f.Desc.JSONName(), "` | ", kind, " | ", cell(f.Comments), " |")
		}
	}
	for _, nested := range m.Messages {
		w.message(nested)
	}
	for _, e := range m.Enums {
		w.enum(e)
	}
}

func (w *page) enum(e *protogen.Enum) {
	w.P()
	w.P("### ", name(e.Desc))
	w.P()
	w.text(e.Comments)
	w.P()
	w.P("| value | meaning |")
	w.P("| --- | --- |")
	for _, v := range e.Values {
		w.P("| `", v.Desc.Name(), "` | ", cell(v.Comments), " |")
	}
}

// text writes a comment as it stands.
func (w *page) text(c protogen.CommentSet) {
	for _, line := range lines(c) {
		w.P(line)
	}
}

// lines returns a comment, without the space before each of its lines.
func lines(c protogen.CommentSet) []string {
	text := strings.Trim(string(c.Leading)+string(c.Trailing), "\n")
	if text == "" {
		return nil
	}
	list := strings.Split(text, "\n")
	for i := range list {
		list[i] = strings.TrimRight(escape(strings.TrimPrefix(list[i], " ")), " ")
	}
	return list
}

var spaces = regexp.MustCompile(`\s+`)

// cell is a comment as a cell of a table.
func cell(c protogen.CommentSet) string {
	text := spaces.ReplaceAllString(strings.Join(lines(c), " "), " ")
	return strings.TrimSpace(strings.ReplaceAll(text, "|", "\\|"))
}

// escape keeps what looks like Markdown or HTML from being any.
func escape(line string) string {
	return strings.NewReplacer("<", "\\<", "*", "\\*").Replace(line)
}

// name is that of a message or an enum within its package.
func name(d protoreflect.Descriptor) string {
	return strings.TrimPrefix(string(d.FullName()), string(d.ParentFile().Package())+".")
}

// link leads to a message or an enum, if it is on the page.
func link(d protoreflect.Descriptor) string {
	if !strings.HasPrefix(string(d.FullName()), "tandem.") {
		return "`" + string(d.FullName()) + "`"
	}
	return fmt.Sprintf("[%s](#%s)", name(d), strings.ReplaceAll(strings.ToLower(name(d)), ".", ""))
}

// typeOf is what a field holds.
func typeOf(f *protogen.Field) string {
	if f.Desc.IsMap() {
		return "map of " + single(f.Message.Fields[0]) + " to " + single(f.Message.Fields[1])
	}
	kind := single(f)
	switch {
	case f.Desc.IsList():
		return "list of " + kind
	case f.Desc.HasOptionalKeyword():
		return kind + ", optional"
	}
	return kind
}

func single(f *protogen.Field) string {
	switch {
	case f.Message != nil:
		return link(f.Message.Desc)
	case f.Enum != nil:
		return link(f.Enum.Desc)
	}
	return f.Desc.Kind().String()
}
