// Package console is the web page of a server, on the listener for those who operate it: what
// serves and how well, what a query finds and why, which snapshots and releases there are.
//
// [New] returns its handler. The page calls the same procedures as every other client, of the
// same origin under /console/api/, and the server's own handler answers them: who asks is known
// there, with the scopes, quotas and refusals that hold everywhere. Here is only what a browser
// needs beside that: files, sessions, and what keeps other pages out.
//
// # Sessions
//
// Where callers need a token, a person signs in with one. The server keeps its hash with a random
// id, and the browser has the id in a cookie that no script reads and no other site sends. A
// session ends after an hour without a request, after twelve hours in any case, at sign-out, and
// as soon as its token no longer counts, which is looked at for each request. Sessions are in
// memory, and end with the process. A session has a second id, in a cookie for [DocsPath], with which
// [Console.Readable] lets a browser read the documentation and nothing else.
//
// # Other pages
//
// The Host of each request must be this machine, an IP address, or a name that the server was
// told: the page of another name that leads here cannot read anything. What another site sends is
// refused by [net/http.CrossOriginProtection]. The content security policy allows files of this
// origin only, no script or style within a page, and no frame around it; and with trusted types
// no text becomes markup. Names and attributes of apps are data wherever they are shown.
//
// # The page
//
// Its sources are in web, and what they are built to is in dist, which is committed and embedded:
// building Tandem takes no Node, and showing the page no network. The step console of .ci/run
// builds it anew and compares the bytes.
//
// It is written in TypeScript with Preact, which is React's model in 5 KB: state of forms, tables
// and a dozen views is what such a library is for, and a larger one would be most of the bundle.
// Vite builds it. connect-es calls the procedures with types from the contract, in protobuf, so
// that a field that is renamed there is a build that fails here. uPlot draws lines over time, of
// thousands of points without a pause. What gates and reports have measured is some dozens of points,
// which plot.tsx writes as SVG: that prints, is read aloud, and needs no script library in a report.
// There is no other dependency: styles are a file of custom properties, and the rest is the platform's.
//
// What is seen first is in index.html, and waits for the style alone: the page's script, which is on its way
// meanwhile, is run once that is drawn. Of long tables only what somebody scrolls to is drawn.
//
// Files are served with gzip, compressed when they are first asked for: bytes that depend on the
// version of a compressor would make dist differ from machine to machine. Names of scripts and
// styles have their hash, so browsers keep them; index.html is asked for anew.
package console
