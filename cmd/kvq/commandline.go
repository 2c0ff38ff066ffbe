package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/cli"
)

// unknownCommand is how cobra says that an argument is no command.
var unknownCommand = regexp.MustCompile(`^unknown command "(.*)" for "(.*)"$`)

// parseError says a command line that makes no sense in the words of who typed it.
func parseError(root *cobra.Command, err error) string {
	message := oneLine(err)
	m := unknownCommand.FindStringSubmatch(message)
	if m == nil {
		return message
	}
	word, path := m[1], m[2]
	c, _, err := root.Find(strings.Fields(path)[1:])
	if err != nil {
		return message
	}
	if list := names(c); len(list) > 0 {
		return fmt.Sprintf("unknown command %q for %s, want one of: %s%s", word, path, strings.Join(list, ", "), cli.Suggest(word, list))
	}
	return fmt.Sprintf("%s takes no argument, got %q (%s --help lists the flags)", path, word, path)
}

// flagError says a flag that does not parse in the words of who typed it.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var value *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		var list []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				list = append(list, f.Name)
			}
		})
		suggestion := cli.Suggest(unknown.GetSpecifiedName(), list)
		suggestion = strings.Replace(suggestion, "did you mean ", "did you mean --", 1)
		return fmt.Errorf("%w%s (%s --help lists the flags)", err, suggestion, c.CommandPath())
	case errors.As(err, &value):
		want, known := map[string]string{
			"int": "a whole number", "int64": "a whole number", "float64": "a number", "bool": "true or false, after an =",
			"duration": "a time such as 90s or 5m", "intSlice": "whole numbers with commas between them",
		}[value.GetFlag().Value.Type()]
		if known {
			return fmt.Errorf("--%s %s: want %s", value.GetFlag().Name, value.GetValue(), want)
		}
	}
	return fmt.Errorf("%w (%s --help lists the flags)", err, c.CommandPath())
}

// names are the commands below c.
func names(c *cobra.Command) []string {
	var list []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			list = append(list, sub.Name())
		}
	}
	return list
}
