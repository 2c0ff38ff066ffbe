// Package compiled keeps what XLA compiled, so that a graph is compiled once on a machine rather
// than once in every process. JAX does the same with its persistent compilation cache
// (https://docs.jax.dev/en/latest/persistent_compilation_cache.html).
//
// go-xla v0.4.13 has no call for it. So it gets a copy of the plugin's table of functions in which
// PJRT_Client_Compile is a function of this package. It asks for a graph's memory figures whenever
// one is compiled or loaded; those of a graph that is kept are kept with it.
package compiled

// #include <stdlib.h>
// #include "table.h"
import "C"

import (
	"errors"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/kvqbook/kvqbook/internal/hostmemory"
)

// worth is how long XLA has to take for what it compiled to be kept: most graphs are compiled
// faster than a file is read.
var worth = 50 * time.Millisecond

// large is from how many bytes on a graph leaves much memory behind, which XLA took to load or
// compile it.
const large = 1 << 20

// keeper is set once, before the table is in use.
var keeper struct {
	taken  atomic.Bool
	files  folders
	of     identity
	option *Option // nil for none
	slims  bool    // XLA on a CPU takes graphs that were slimmed
}

// counts are the numbers of graphs that were loaded and kept.
var counts struct{ loaded, kept atomic.Int64 }

// Table returns a plugin's table of functions (PJRT_Api) with some of them exchanged: compiling
// first looks in the folder dir, and keeps there what took long. path is the plugin's file; gpu
// says that it compiles for NVIDIA's GPUs. option, if not nil, is set for the programs that it is
// for.
//
// One plugin of a process can have such a table. It is an error to ask for a second one, or for a
// plugin whose table is too old.
//
// A folder that somebody else could have written is refused with [ErrUntrusted]. A later failure to
// read or write it is not seen: the graph is compiled then, as without it.
func Table(api unsafe.Pointer, path, dir string, gpu bool, option *Option) (unsafe.Pointer, error) {
	of, err := identify(path, gpu)
	if err != nil {
		return nil, err
	}
	files, err := open(dir, path)
	if err != nil {
		return nil, err
	}
	if !keeper.taken.CompareAndSwap(false, true) {
		return nil, errors.New("another plugin's graphs are kept already")
	}
	keeper.files, keeper.of, keeper.option = files, of, option
	table := C.kvq_table(api)
	if table == nil {
		return nil, errors.New("the plugin's PJRT cannot write down what it compiled")
	}
	keeper.slims = C.kvq_minor(api) == slims
	waitsIn.Store(&files)
	return table, nil
}

// kvqCompile takes the place of PJRT_Client_Compile. It returns PJRT's error, nil for none.
//
//export kvqCompile
func kvqCompile(args *C.kvq_compile_args) unsafe.Pointer {
	p := args.program
	if o := keeper.option; o != nil && o.For(bytesAt(p.code, p.code_size)) {
		before, size := args.options, args.options_size
		with := o.in(bytesAt(before, size))
		args.options, args.options_size = (*C.char)(C.CBytes(with)), C.size_t(len(with))
		defer func() {
			C.free(unsafe.Pointer(args.options))
			args.options, args.options_size = before, size
		}()
	}
	name := keeper.of.name(bytesAt(p.format, p.format_size), bytesAt(p.code, p.code_size), bytesAt(args.options, args.options_size))
	content, kept := keeper.files.lookup(name)
	if kept && load(args, content) {
		counts.loaded.Add(1)
		if len(content) >= large {
			hostmemory.GiveBack()
		}
		return nil
	}
	start := time.Now()
	failure := C.kvq_compile(args)
	if failure != nil || time.Since(start) < worth {
		return failure
	}
	var written C.kvq_serialize_args
	if C.kvq_serialize(args.executable, &written) == 0 {
		return nil
	}
	defer C.kvq_serialized_free(&written)
	f, ok := ask(args.executable)
	if !ok {
		return nil
	}
	known.Store(args.executable, f) // go-xla asks for them too
	whole := bytesAt(written.bytes, written.size)
	// Where it was kept already, XLA did not take that back: it may be because it was slimmed.
	if keeper.slims && !kept && C.kvq_on_cpu(args.client) != 0 {
		whole, _ = slim(whole)
	}
	if keeper.files.keep.write(name, withFigures(f, whole)) == nil {
		counts.kept.Add(1)
	}
	if len(whole) >= large {
		hostmemory.GiveBack()
	}
	return nil
}

// load sets the executable to what was kept, unless XLA rejects it.
func load(args *C.kvq_compile_args, content []byte) bool {
	f, written, ok := figuresOf(content)
	if !ok {
		return false
	}
	loaded := C.kvq_deserialize(args.client, unsafe.Pointer(&written[0]), C.size_t(len(written)))
	if loaded == nil {
		return false
	}
	known.Store(loaded, f)
	args.executable = loaded
	return true
}

// bytesAt returns C's memory itself, not a copy.
func bytesAt(at *C.char, size C.size_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(at)), int(size))
}
