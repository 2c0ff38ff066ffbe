package private

import "reflect"

// Modules whose fields are used.
const (
	GoMLX   = "github.com/gomlx/gomlx"
	GoXLA   = "github.com/gomlx/go-xla"
	Compute = "github.com/gomlx/compute"
)

// Field is one field that is not part of a package's interface: not exported, or of a struct in an
// internal package.
type Field struct {
	Module string
	Owner  string // the struct, by package and name
	Name   string
	Type   string // the field's type as reflect writes it, or its kind where any such type will do
	Leads  string // the struct behind it whose fields follow in the table, or ""
	For    string // what it is used for
}

// The fields that are used, each after the one that leads to its owner.
var (
	GraphBuilder = add(GoMLX, "graph.Graph", "builder", "compute.Builder", "",
		"the program under construction")
	GraphScalars = add(GoMLX, "graph.Graph", "scalars", "map", "",
		"closures with constants of their own")
	GraphTensors = add(GoMLX, "graph.Graph", "tensorConstants", "map", "",
		"closures with constants of their own")
	FunctionBackend = add(GoMLX, "graph.Function", "backendFunc", "compute.Function", "",
		"loops in loops, caches written in place")
	NodeOutputs = add(GoMLX, "graph.Node", "outputOps", "[]compute.Value", "",
		"kernels, and calls that stay calls")

	BuilderMain = add(GoXLA, "xla.Builder", "mainFn", "*xla.Function", "xla.Function",
		"loops in loops")
	BuilderReductions = add(GoXLA, "xla.Builder", "cacheReductions", "map", "",
		"reductions in several functions of a graph")
	BuilderArgMinMax = add(GoXLA, "xla.Builder", "cacheArgMinMax", "map", "",
		"reductions in several functions of a graph")
	BuilderSelections = add(GoXLA, "xla.Builder", "cacheSelections", "map", "",
		"reductions in several functions of a graph")
	FunctionProgram = add(GoXLA, "xla.Function", "fn", "*stablehlo.Function", "",
		"caches written in place, and calls that stay calls")
	NodeValue = add(GoXLA, "xla.Node", "value", "*stablehlo.Value", "",
		"kernels, and calls that stay calls")

	BackendClient = add(GoXLA, "xla.Backend", "client", "*pjrt.Client", "pjrt.Client",
		"what a GPU is, and its memory")
	ClientPlugin = add(GoXLA, "pjrt.Client", "plugin", "*pjrt.Plugin", "pjrt.Plugin",
		"what a GPU is, and its memory")
	ClientHandle = add(GoXLA, "pjrt.Client", "client", "*pjrt.clientC", "pjrt.clientC",
		"what a GPU is")
	ClientDevices = add(GoXLA, "pjrt.Client", "addressableDevices", "[]*pjrt.Device", "pjrt.Device",
		"what a GPU is, and its memory")
	PluginAPI = add(GoXLA, "pjrt.Plugin", "api", "ptr", "",
		"what a GPU is, and its memory")
	HandleC = add(GoXLA, "pjrt.clientC", "c", "ptr", "",
		"what a GPU is")
	DeviceHandle = add(GoXLA, "pjrt.Device", "cDevice", "ptr", "",
		"what a GPU is, and its memory")

	GoBuilderMain = add(Compute, "gobackend.Builder", "MainFn", "*gobackend.Function", "",
		"loops in loops on the pure-Go backend")
	GoBuilderFunctions = add(Compute, "gobackend.Builder", "Functions", "[]*gobackend.Function", "",
		"closures that the pure-Go backend does not break")
	GoExecution = add(Compute, "gobackend.Backend", "OpsExecutionType", "gobackend.OpsExecutionType", "",
		"whether loops end on the pure-Go backend")

	ExecutableLoaded = add(GoXLA, "xla.Executable", "exec", "*pjrt.LoadedExecutable",
		"pjrt.LoadedExecutable", "what a compiled graph needs of memory")
	LoadedStats = add(GoXLA, "pjrt.LoadedExecutable", "OnDeviceMemoryUsageStats", "struct",
		"pjrt.ExecutableMemoryUsageStats", "what a compiled graph needs of memory")
	StatsInputs = add(GoXLA, "pjrt.ExecutableMemoryUsageStats", "Inputs", "int64", "",
		"what a compiled graph needs of memory")
	StatsOutputs = add(GoXLA, "pjrt.ExecutableMemoryUsageStats", "Outputs", "int64", "",
		"what a compiled graph needs of memory")
	StatsAliases = add(GoXLA, "pjrt.ExecutableMemoryUsageStats", "Aliases", "int64", "",
		"what a compiled graph needs of memory")
	StatsTemporary = add(GoXLA, "pjrt.ExecutableMemoryUsageStats", "Temporary", "int64", "",
		"what a compiled graph needs of memory")
	StatsCode = add(GoXLA, "pjrt.ExecutableMemoryUsageStats", "GeneratedCode", "int64", "",
		"what a compiled graph needs of memory")
)

// fields is the table, in its order.
var fields []*Field

func add(module, owner, name, kind, leads, use string) *Field {
	f := &Field{module, owner, name, kind, leads, use}
	fields = append(fields, f)
	return f
}

// Fields lists them all.
func Fields() []*Field { return append([]*Field{}, fields...) }

// String is the field's full name.
func (f *Field) String() string { return f.Owner + "." + f.Name }

// fits reports whether a type is the field's.
func (f *Field) fits(t reflect.Type) bool {
	return t.String() == f.Type || t.Kind().String() == f.Type
}
