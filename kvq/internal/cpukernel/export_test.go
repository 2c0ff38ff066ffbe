package cpukernel

// Target is the function's name in programs.
const Target = target
