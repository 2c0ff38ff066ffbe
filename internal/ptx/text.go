package ptx

import (
	"fmt"
	"strings"
)

// Text is the kernel as PTX.
func (k *Kernel) Text() string {
	var w strings.Builder
	w.WriteString(".version 7.0\n.target sm_80\n.address_size 64\n")
	parameters := make([]string, len(k.parameters))
	for i := range parameters {
		parameters[i] = fmt.Sprintf(".param .u64 p%d", i)
	}
	fmt.Fprintf(&w, ".visible .entry %s(%s)\n.maxntid %d, 1, 1\n", k.Name, strings.Join(parameters, ", "), Lanes)
	if k.Registers > 0 {
		fmt.Fprintf(&w, ".maxnreg %d\n", k.Registers)
	}
	w.WriteString("{\n")
	for _, c := range []struct {
		class class
		kind  string
	}{{word, "b32"}, {address, "b64"}, {predicate, "pred"}} {
		fmt.Fprintf(&w, ".reg .%s %%%c<%d>;\n", c.kind, c.class, max(1, k.count[c.class]))
	}
	w.WriteString(".reg .b16 %low, %high;\n")
	if k.shared > 0 {
		fmt.Fprintf(&w, ".shared .align 128 .b8 memory[%d];\n", k.shared)
	}
	for i, p := range k.parameters {
		fmt.Fprintf(&w, "ld.param.u64 %s, [p%d];\ncvta.to.global.u64 %s, %s;\n", p.text(), i, p.text(), p.text())
	}
	for _, i := range k.instructions {
		w.WriteString(i.text())
		w.WriteByte('\n')
	}
	w.WriteString("ret;\n}\n")
	return w.String()
}

func (v Value) text() string {
	if v.class == constant {
		return fmt.Sprintf("0x%08x", v.bits)
	}
	return fmt.Sprintf("%%%c%d", v.class, v.id)
}

// texts are values with commas.
func texts(list []Value) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.text()
	}
	return strings.Join(out, ", ")
}

// vector is values in braces, if they are several.
func vector(list []Value) string {
	if len(list) == 1 {
		return list[0].text()
	}
	return "{" + texts(list) + "}"
}

func (i instruction) text() string {
	guard := ""
	if i.guard != nil {
		guard = "@" + i.guard.text() + " "
	}
	place := func(base Value) string { return fmt.Sprintf("[%s+%d]", base.text(), i.offset) }
	name, special, _ := strings.Cut(i.op, " ")
	switch {
	case i.op == "label":
		return i.label + ":"
	case name == "bra.uni":
		return fmt.Sprintf("%s%s %s;", guard, name, i.label)
	case special != "":
		return fmt.Sprintf("%s %s, %s;", name, i.to[0].text(), special)
	case name == "half.low", name == "half.high":
		return fmt.Sprintf("mov.b32 {%%low, %%high}, %s;\ncvt.f32.f16 %s, %%%s;", i.from[0].text(), i.to[0].text(), name[5:])
	case name == "cp.async":
		return fmt.Sprintf("%scp.async.cg.shared.global %s, [%s+%d], 16;", guard, place(i.from[0]), i.from[1].text(), i.second)
	case name == "bar.warp.sync":
		return name + " 0xffffffff;"
	case name == "cp.async.commit_group":
		return name + ";"
	case name == "cp.async.wait_group":
		return fmt.Sprintf("%s %d;", name, i.from[0].bits)
	case strings.HasPrefix(name, "ld."):
		return fmt.Sprintf("%s %s, %s;", name, vector(i.to), place(i.from[0]))
	case strings.HasPrefix(name, "st."):
		return fmt.Sprintf("%s%s %s, %s;", guard, name, place(i.from[0]), vector(i.from[1:]))
	case strings.HasPrefix(name, "mma."):
		return fmt.Sprintf("%s %s, %s, %s, %s;", name, vector(i.to), vector(i.from[:4]), vector(i.from[4:6]), vector(i.from[6:]))
	case strings.HasPrefix(name, "shfl."):
		return fmt.Sprintf("%s %s, %s, 0x1f, 0xffffffff;", name, i.to[0].text(), texts(i.from))
	case strings.HasPrefix(name, "redux."):
		return fmt.Sprintf("%s %s, %s, 0xffffffff;", name, i.to[0].text(), i.from[0].text())
	case strings.HasPrefix(name, "vote."):
		return fmt.Sprintf("%s %s, %s, 0xffffffff;", name, i.to[0].text(), i.from[0].text())
	}
	list := texts(i.from)
	if strings.HasSuffix(name, ".f32") {
		list = strings.ReplaceAll(list, "0x", "0f") // constants of float32
	}
	return fmt.Sprintf("%s %s, %s;", name, i.to[0].text(), list)
}
