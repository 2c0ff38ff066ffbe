package llama

import "github.com/kvqbook/kvqbook/internal/usererr"

// ErrInput is what errors.Is finds in every error that bad input (a damaged file, a prompt that is
// too long, an absurd setting) caused, as opposed to a failure of the program or the machine. It is
// one value in all packages of this module.
var ErrInput = usererr.ErrInput
