// Package reportpage writes what a command has found as a page that stands by itself: one file, for a
// colleague or a run of a pipeline, with plots. [Write] is all that there is; commands call it.
//
// A page has its script, its style and the report in it, and asks nobody for anything: its content
// security policy allows the script and the style by their hashes, and nothing else. The report is
// data in JSON, in an element that no browser runs, and what is in it is shown as text, whatever ids,
// names and errors of others are in it.
//
// Sources are those of the console, server/console/web, of which src/report.tsx is the page. What they
// are built to is in dist, which is committed and embedded; the step console of .ci/run builds it anew
// and compares the bytes.
package reportpage
