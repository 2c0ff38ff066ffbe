package cli

import (
	"slices"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/usererr"
)

// NamedFiles refuses flags for a file that were given without a name, as a script does whose
// variable is not set: a cache would not be saved, and nobody told.
func NamedFiles(fs *pflag.FlagSet) (err error) {
	fs.Visit(func(f *pflag.Flag) {
		if name, _ := pflag.UnquoteUsage(f); name != "file" && name != "path" {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		if slices.Contains(values, "") && err == nil {
			err = usererr.New("--%s \"\", want the name of a file", f.Name)
		}
	})
	return err
}
