package cli

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/kvqbook/kvqbook/internal/usererr"
	"github.com/kvqbook/kvqbook/kvq"
)

// --code-… and --range-… together name a quantizer, over what a preset says.
func TestQuantizerFlags(t *testing.T) {
	for _, c := range []struct {
		args       string
		key, value kvq.Quantizer
		refused    string
	}{
		{args: ""},
		{args: "--cache-backend blocks --code-key symmetric --range-value least-squares", key: kvq.Symmetric, value: kvq.LeastSquares},
		{args: "--cache-backend blocks --code-key int8 --code-value float8", key: kvq.Int8, value: kvq.Float8},
		{args: "--cache-backend blocks --code-key affine --range-key minmax"},
		{args: "--preset quality", key: kvq.Unbiased, value: kvq.Unbiased},
		{args: "--preset quality --code-key affine --range-value minmax", key: kvq.Unbiased},
		{args: "--preset quality --range-key minmax --code-key int8", key: kvq.Int8, value: kvq.Unbiased},
		{args: "--preset quality --code-key symmetric", refused: `"unbiased" needs affine codes, got "symmetric"`},
		{args: "--code-key unbiased", refused: `--code-key "unbiased", want affine, symmetric, float8 or int8`},
		{args: "--range-value symmetric", refused: `--range-value "symmetric", want minmax, least-squares, unbiased or hqq`},
	} {
		var f CacheFlags
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.Register(fs)
		if err := fs.Parse(strings.Fields(c.args)); err != nil {
			t.Fatal(err)
		}
		got, err := f.Parse(fs)
		switch {
		case c.refused != "":
			if !usererr.Is(err) || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s: error %v, want %q", c.args, err, c.refused)
			}
		case err != nil || got.QuantizerKey != c.key || got.QuantizerValue != c.value:
			t.Errorf("%s: %q and %q (error %v), want %q and %q", c.args, got.QuantizerKey, got.QuantizerValue, err, c.key, c.value)
		}
	}
}
