//go:build !linux || !cgo

package doctor

import "context"

// compiled looks at the folder of what XLA compiled, where there is no XLA to compile.
func (m *Machine) compiled(context.Context) Finding {
	return missing("", "nothing is compiled without XLA")
}
