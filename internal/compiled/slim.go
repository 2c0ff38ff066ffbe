package compiled

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// What XLA writes down is its machine code and the whole graph that it was made from. Most of the
// graph lies inside of loop fusions. Their loops are machine code, and nobody looks into them any
// more: but reading them takes most of the time, and of the memory, of loading a graph. So they are
// emptied before a graph is kept. A fusion keeps its parameters and its result, and in between
// stands one call of a function that nobody has ([leftOut]). If XLA ever wanted to know what was
// there, it would stop with an error that names it.
//
// Other fusions stay. XLA's CPU compiler hands some to a library of kernels (YNNPACK), which builds
// them anew from the graph.

// slims is the minor version of PJRT (0.x) whose XLA was tried with emptied fusions, on a CPU.
// Graphs of other versions and for GPUs are kept as they are.
const slims = 115

// leftOut is the name of the function in an emptied fusion.
const leftOut = "left_out_since_it_is_machine_code"

// Fields of XLA's messages, by number: ExecutableAndOptionsProto, CompilationResultProto and
// HloModuleProtoWithConfig begin with the next of them; then xla/service/hlo.proto.
const (
	moduleComputations = 3 // of HloModuleProto

	computationInstructions = 2 // of HloComputationProto
	computationID           = 5
	computationRoot         = 6

	instructionName   = 1 // of HloInstructionProto
	instructionOpcode = 2
	instructionShape  = 3
	instructionKind   = 11 // of a fusion
	instructionTarget = 28 // of a custom call
	instructionID     = 35
	instructionInputs = 36
	instructionCalls  = 38
)

// message is a message of protocol buffers, field by field.
type message []field

type field struct {
	number protowire.Number
	raw    []byte // with its number
	bytes  []byte // of a text, a message or packed numbers
	value  uint64 // of a number
}

// parse takes a message apart, false where it is none. Nothing is copied.
func parse(data []byte) (m message, ok bool) {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, false
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			return nil, false
		}
		f := field{number: number, raw: data[:n+size]}
		switch kind {
		case protowire.BytesType:
			f.bytes, _ = protowire.ConsumeBytes(data[n:])
		case protowire.VarintType:
			f.value, _ = protowire.ConsumeVarint(data[n:])
		}
		m, data = append(m, f), data[n+size:]
	}
	return m, true
}

// first is the first field of a number; none has no bytes and the value 0.
func (m message) first(number protowire.Number) (f field) {
	if i := slices.IndexFunc(m, func(f field) bool { return f.number == number }); i >= 0 {
		f = m[i]
	}
	return f
}

// numbers are all values of a repeated field, packed or not.
func (m message) numbers(number protowire.Number) (list []uint64) {
	for _, f := range m {
		if f.number != number {
			continue
		}
		if f.bytes == nil {
			list = append(list, f.value)
		}
		for rest := f.bytes; len(rest) > 0; {
			v, n := protowire.ConsumeVarint(rest)
			if n < 0 {
				break
			}
			list, rest = append(list, v), rest[n:]
		}
	}
	return list
}

// slim returns what XLA wrote with its loop fusions emptied, and how many they are. What it does
// not understand it returns as it is.
func slim(written []byte) (slimmed []byte, emptied int) {
	const depth = 3 // messages around the module
	slimmed, ok := within(written, depth, func(module []byte) ([]byte, bool) {
		out, n, ok := emptyLoops(module)
		emptied = n
		return out, ok
	})
	if !ok || emptied == 0 {
		return written, 0
	}
	return slimmed, emptied
}

// within changes the message so deep in field 1 of field 1 …
func within(data []byte, depth int, change func([]byte) ([]byte, bool)) ([]byte, bool) {
	if depth == 0 {
		return change(data)
	}
	m, ok := parse(data)
	if !ok || len(m) == 0 || m[0].number != 1 || m[0].bytes == nil {
		return nil, false
	}
	inner, ok := within(m[0].bytes, depth-1, change)
	if !ok {
		return nil, false
	}
	out := make([]byte, 0, len(inner)+len(data)-len(m[0].bytes)+8)
	out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), inner)
	return append(out, data[len(m[0].raw):]...), true
}

// emptyLoops empties the loop fusions of a module.
func emptyLoops(module []byte) (out []byte, emptied int, ok bool) {
	m, ok := parse(module)
	if !ok {
		return nil, 0, false
	}
	computations := make([]computation, len(m))
	calledBy := map[uint64]bool{} // by numbers of computations: by loop fusions alone
	for i, f := range m {
		if f.number != moduleComputations {
			continue
		}
		c, ok := newComputation(f.bytes)
		if !ok {
			return nil, 0, false
		}
		computations[i] = c
		for _, in := range c.instructions {
			loop := string(in.first(instructionOpcode).bytes) == "fusion" && string(in.first(instructionKind).bytes) == "kLoop"
			for _, called := range in.numbers(instructionCalls) {
				before, seen := calledBy[called]
				calledBy[called] = loop && (before || !seen)
			}
		}
	}
	out = make([]byte, 0, len(module))
	for i, f := range m {
		c := computations[i]
		if f.number == moduleComputations && calledBy[c.fields.first(computationID).value] {
			if body, ok := c.emptied(); ok {
				out = protowire.AppendBytes(protowire.AppendTag(out, moduleComputations, protowire.BytesType), body)
				emptied++
				continue
			}
		}
		out = append(out, f.raw...)
	}
	return out, emptied, true
}

// computation is a function of a module.
type computation struct {
	fields       message
	instructions []message // in their order among the fields
}

func newComputation(data []byte) (c computation, ok bool) {
	if c.fields, ok = parse(data); !ok {
		return c, false
	}
	for _, f := range c.fields {
		if f.number != computationInstructions {
			continue
		}
		in, ok := parse(f.bytes)
		if !ok {
			return c, false
		}
		c.instructions = append(c.instructions, in)
	}
	return c, true
}

// emptied is the computation with its parameters, its root, and nothing in between; false where its
// root is a parameter or is missing.
func (c computation) emptied() (out []byte, ok bool) {
	root := c.fields.first(computationRoot).value
	var inputs []byte
	var result message
	for _, in := range c.instructions {
		switch parameter := string(in.first(instructionOpcode).bytes) == "parameter"; {
		case in.first(instructionID).value == root && parameter:
			return nil, false
		case in.first(instructionID).value == root:
			result = in
		case parameter:
			inputs = protowire.AppendVarint(inputs, in.first(instructionID).value)
		}
	}
	if result == nil || result.first(instructionShape).bytes == nil {
		return nil, false
	}
	call := slices.Concat(result.first(instructionName).raw, text(instructionOpcode, "custom-call"), result.first(instructionShape).raw,
		text(instructionTarget, leftOut), result.first(instructionID).raw)
	if inputs != nil {
		call = append(call, text(instructionInputs, string(inputs))...)
	}
	next := 0
	for _, f := range c.fields {
		if f.number != computationInstructions {
			out = append(out, f.raw...)
			continue
		}
		in := c.instructions[next]
		next++
		switch {
		case in.first(instructionID).value == root:
			out = append(out, text(computationInstructions, string(call))...)
		case string(in.first(instructionOpcode).bytes) == "parameter":
			out = append(out, f.raw...)
		}
	}
	return out, true
}

// text is a field of bytes.
func text(number protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), s)
}
