// Package texts holds the texts of this folder that the command line uses.
package texts

import _ "embed"

// Story is a short story written for this project, about 500 tokens long.
//
//go:embed story.txt
var Story string
