package main

import (
	"bytes"
	"strings"

	pretty "github.com/jedib0t/go-pretty/v6/text"
)

// proseWidth is that of all documents of the repository, in columns.
const proseWidth = 100

// wrapProse breaks the lines of a Markdown document that are too wide, but for tables, headings and
// pictures, which have to be one line. What follows in an item of a list is indented.
func wrapProse(document []byte) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(string(document)) {
		line = strings.TrimSuffix(line, "\n")
		if pretty.StringWidth(line) > proseWidth && !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "!") {
			indent := ""
			if strings.HasPrefix(line, "- ") {
				indent = "  "
			}
			var wrapped []string
			for part := range strings.Lines(pretty.WrapSoft(line, proseWidth-len(indent))) {
				wrapped = append(wrapped, strings.TrimRight(part, " \n"))
			}
			line = strings.Join(wrapped, "\n"+indent)
		}
		out.WriteString(line + "\n")
	}
	return out.Bytes()
}
