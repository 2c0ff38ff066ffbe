package compiled

import "google.golang.org/protobuf/encoding/protowire"

// Option sets one of XLA's flags for one program alone, where the variable XLA_FLAGS sets it for
// all of a process.
type Option struct {
	Name, Value string
	// For reports whether a program, as XLA gets it, is to have it.
	For func(program []byte) bool
}

// overrides is the field env_option_overrides of CompileOptionsProto, a map of names to values
// (xla/pjrt/proto/compile_options.proto; jax's compiler_options become the same).
const overrides = 7

// in returns the compile options with the option set: a message in protocol buffers grows at its
// end. XLA refuses a name or a value that it does not know.
func (o Option) in(options []byte) []byte {
	text := func(message []byte, number protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(message, number, protowire.BytesType), s)
	}
	entry := text(nil, 1, o.Name)
	entry = text(entry, 2, string(text(nil, 1, o.Value))) // the value is a message with a text in field 1
	return text(append([]byte(nil), options...), overrides, string(entry))
}
