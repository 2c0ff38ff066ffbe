package device

import "github.com/kvqbook/kvqbook/internal/usererr"

// ErrInput is what errors.Is finds in every error that bad input (an unknown name, a plugin that is
// missing or damaged) caused, as opposed to a failure of the program or the machine. It is one
// value in all packages of this module.
var ErrInput = usererr.ErrInput
