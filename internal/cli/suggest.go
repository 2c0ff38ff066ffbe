package cli

import "github.com/spf13/cobra"

// Suggest says which of the names a mistyped word may have meant, as the end of a message:
// "; did you mean generate?", or nothing where no name is near.
func Suggest(word string, names []string) string {
	// cobra measures the distance of words, for names of commands alone.
	list := &cobra.Command{SuggestionsMinimumDistance: 2}
	for _, name := range names {
		list.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	near := list.SuggestionsFor(word)
	if word == "" || len(near) == 0 {
		return ""
	}
	return "; did you mean " + near[0] + "?"
}
