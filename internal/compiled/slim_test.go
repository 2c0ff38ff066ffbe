package compiled

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// module is a module in the messages that XLA puts around one, with something behind it in each.
func wrapped(module []byte) []byte {
	for range 3 {
		module = append(text(1, string(module)), text(2, "more")...)
	}
	return module
}

func number(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func instruction(name, opcode string, id uint64, more ...[]byte) []byte {
	return text(computationInstructions, string(slices.Concat(text(instructionName, name), text(instructionOpcode, opcode),
		text(instructionShape, "shape of "+name), slices.Concat(more...), number(instructionID, id))))
}

func function(id, root uint64, instructions ...[]byte) []byte {
	return text(moduleComputations, string(slices.Concat(text(1, "f"), slices.Concat(instructions...), text(4, "program shape"),
		number(computationID, id), number(computationRoot, root))))
}

// body is a function of two parameters with two instructions after them.
func body(id uint64) []byte {
	return function(id, 13, instruction("a", "parameter", 10), instruction("b", "add", 11, text(instructionInputs, "\x0a\x0c")),
		instruction("c", "parameter", 12), instruction("d", "multiply", 13, text(instructionInputs, "\x0b\x0c")))
}

// calling is a function with one instruction that calls others.
func calling(id uint64, opcode, kind string, called ...uint64) []byte {
	var calls []byte
	for _, c := range called {
		calls = protowire.AppendVarint(calls, c)
	}
	return function(id, 20, instruction("call", opcode, 20, text(instructionKind, kind), text(instructionCalls, string(calls))))
}

// What loop fusions alone call is emptied: parameters and the root's name, shape and number stay.
func TestSlimByHand(t *testing.T) {
	name := text(1, "the module")
	before := wrapped(slices.Concat(name, body(1), body(2), body(3), body(4),
		function(5, 30, instruction("p", "parameter", 30)), body(6),
		calling(7, "fusion", "kLoop", 1), calling(8, "fusion", "kCustom", 2), calling(9, "while", "", 3),
		calling(10, "fusion", "kLoop", 4), calling(11, "call", "", 4), calling(12, "fusion", "kLoop", 5)))
	empty := function(1, 13, instruction("a", "parameter", 10), instruction("c", "parameter", 12),
		text(computationInstructions, string(slices.Concat(text(instructionName, "d"), text(instructionOpcode, "custom-call"),
			text(instructionShape, "shape of d"), text(instructionTarget, leftOut), number(instructionID, 13), text(instructionInputs, "\x0a\x0c")))))
	want := wrapped(slices.Concat(name, empty, body(2), body(3), body(4),
		function(5, 30, instruction("p", "parameter", 30)), body(6),
		calling(7, "fusion", "kLoop", 1), calling(8, "fusion", "kCustom", 2), calling(9, "while", "", 3),
		calling(10, "fusion", "kLoop", 4), calling(11, "call", "", 4), calling(12, "fusion", "kLoop", 5)))
	got, emptied := slim(before)
	if emptied != 1 || !bytes.Equal(got, want) {
		t.Errorf("%d emptied:\n%q\nwant 1:\n%q", emptied, got, want)
	}
	if again, _ := slim(got); !bytes.Equal(again, got) {
		t.Errorf("slimmed twice:\n%q\nwant\n%q", again, got)
	}
}

// What is not understood stays as it is.
func TestSlimLeavesOthers(t *testing.T) {
	whole := wrapped(slices.Concat(body(1), calling(2, "fusion", "kLoop", 1)))
	for what, data := range map[string][]byte{
		"nothing":           nil,
		"text":              []byte("whole, but nothing that XLA wrote"),
		"cut off":           whole[:len(whole)-10],
		"no fusion":         wrapped(slices.Concat(body(1), calling(2, "call", "", 1))),
		"a message less":    whole[4:],
		"no root":           wrapped(slices.Concat(function(1, 99, instruction("a", "parameter", 10)), calling(2, "fusion", "kLoop", 1))),
		"another fusion":    wrapped(slices.Concat(body(1), calling(2, "fusion", "kLoop", 1), calling(3, "fusion", "kOutput", 1))),
		"another fusion, 2": wrapped(slices.Concat(body(1), calling(2, "fusion", "kOutput", 1), calling(3, "fusion", "kLoop", 1))),
	} {
		if got, emptied := slim(data); emptied != 0 || !bytes.Equal(got, data) {
			t.Errorf("%s: %d emptied: %q, want %q", what, emptied, got, data)
		}
	}
}

func FuzzSlim(f *testing.F) {
	f.Add(wrapped(slices.Concat(body(1), calling(2, "fusion", "kLoop", 1))))
	f.Add(wrapped(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		got, emptied := slim(data)
		if !bytes.Equal(before, data) {
			t.Fatal("it changed its input")
		}
		if emptied == 0 && !bytes.Equal(got, data) {
			t.Fatal("nothing was emptied, and all the same something changed")
		}
		if _, ok := parse(got); emptied > 0 && !ok {
			t.Fatal("what came out is no message")
		}
	})
}
