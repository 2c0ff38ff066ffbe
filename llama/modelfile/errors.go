package modelfile

import "github.com/kvqbook/kvqbook/internal/usererr"

// ErrInput is what errors.Is finds in every error that bad input caused: a damaged file, an absurd
// setting.
var ErrInput = usererr.ErrInput
