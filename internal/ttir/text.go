package ttir

import (
	"fmt"
	"math"
	"strings"
)

// Text is the kernel as a module in MLIR's text form.
func (k *Kernel) Text() string {
	w := &writer{names: map[int]string{}}
	w.line("module {")
	var parameters []string
	for _, p := range k.body.parameters {
		parameters = append(parameters, fmt.Sprintf("%s: %s {tt.divisibility = 16 : i32}", w.name(p), p.Type()))
	}
	w.line("tt.func public @%s(%s) {", k.Name, strings.Join(parameters, ", "))
	w.block(k.body)
	w.line("tt.return")
	w.line("}")
	w.line("}")
	return w.String()
}

type writer struct {
	strings.Builder
	names map[int]string // of a loop's results, which MLIR names together
}

func (w *writer) name(v Value) string {
	if name, ok := w.names[v.id]; ok {
		return name
	}
	return fmt.Sprintf("%%%d", v.id)
}

func (w *writer) line(format string, args ...any) {
	fmt.Fprintf(w, format, args...)
	w.WriteByte('\n')
}

func (w *writer) block(b *block) {
	for _, o := range b.ops {
		w.op(o)
	}
}

// list is names or types, with commas.
func list(values []Value, of func(Value) string) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = of(v)
	}
	return strings.Join(all, ", ")
}

func (w *writer) op(o *op) {
	names := list(o.operands, w.name)
	var out Value
	if o.name == "tt.split" {
		w.line("%s = %s %s : %s -> %s", list(o.results, w.name), o.name, names, o.operands[0].Type(), o.results[0].Type())
		return
	}
	if len(o.results) > 0 && o.body == nil {
		out = o.results[0]
		fmt.Fprintf(w, "%s = ", w.name(out))
	}
	switch o.name {
	case "tt.get_program_id":
		w.line("tt.get_program_id %s : i32", []string{"x", "y", "z"}[o.ints[0]])
	case "arith.constant":
		if out.Elem == F32 {
			w.line("arith.constant 0x%08X : f32", math.Float32bits(o.float))
		} else {
			w.line("arith.constant %d : i32", int32(o.ints[0]))
		}
	case "tt.make_range":
		w.line("tt.make_range {end = %d : i32, start = 0 : i32} : %s", o.ints[0], out.Type())
	case "tt.expand_dims":
		w.line("%s %s {axis = %d : i32} : %s -> %s", o.name, names, o.ints[0], o.operands[0].Type(), out.Type())
	case "tt.trans":
		w.line("%s %s {order = array<i32: %s>} : %s -> %s", o.name, names, ints(o.ints), o.operands[0].Type(), out.Type())
	case "tt.splat", "tt.broadcast", "tt.reshape", "tt.bitcast":
		w.line("%s %s : %s -> %s", o.name, names, o.operands[0].Type(), out.Type())
	case "arith.sitofp", "arith.extf", "arith.extui", "arith.trunci", "arith.truncf":
		w.line("%s %s : %s to %s", o.name, names, o.operands[0].Type(), out.Type())
	case "tt.addptr":
		w.line("%s %s : %s", o.name, names, list(o.operands, Value.Type))
	case "arith.cmpi":
		w.line("%s %s, %s : %s", o.name, predicates[o.ints[0]], names, o.operands[0].Type())
	case "arith.cmpf":
		w.line("%s olt, %s : %s", o.name, names, o.operands[0].Type())
	case "arith.select":
		if out.Shape == nil {
			w.line("%s %s : %s", o.name, names, out.Type())
			return
		}
		w.line("%s %s : %s, %s", o.name, names, o.operands[0].Type(), out.Type())
	case "tt.reduce":
		e := out.Elem
		w.line(`"tt.reduce"(%s) <{axis = %d : i32}> ({`, names, o.ints[0])
		w.line("^bb0(%%a: %s, %%b: %s):", e, e)
		w.line("%%c = arith.%s %%a, %%b : %s", o.combine, e)
		w.line("tt.reduce.return %%c : %s", e)
		w.line("}) : (%s) -> %s", o.operands[0].Type(), out.Type())
	case "scf.for":
		w.loop(o)
	default: // of one type
		w.line("%s %s : %s", o.name, names, o.operands[0].Type())
	}
}

func (w *writer) loop(o *op) {
	name := fmt.Sprintf("%%r%d", o.body.parameters[0].id) // results are %rN#0, %rN#1, …
	carried := make([]string, len(o.results))
	for i, p := range o.body.parameters[1:] {
		carried[i] = fmt.Sprintf("%s = %s", w.name(p), w.name(o.operands[3+i]))
	}
	fmt.Fprintf(w, "%s:%d = ", name, len(o.results))
	w.line("scf.for %s = %s to %s step %s iter_args(%s) -> (%s) : i32 {", w.name(o.body.parameters[0]), w.name(o.operands[0]), w.name(o.operands[1]), w.name(o.operands[2]),
		strings.Join(carried, ", "), list(o.results, Value.Type))
	w.block(o.body)
	w.line("scf.yield %s : %s", list(o.body.results, w.name), list(o.results, Value.Type))
	if stages := o.ints[0]; stages > 1 {
		w.line("} {tt.num_stages = %d : i32}", stages)
	} else {
		w.line("}")
	}
	for i, r := range o.results {
		w.names[r.id] = fmt.Sprintf("%s#%d", name, i)
	}
}

func ints(list []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ", "), "[]")
}
