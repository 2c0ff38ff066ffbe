package device_test

import (
	"errors"
	"fmt"
	"log"

	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // Graph code reads as formulas.

	"github.com/kvqbook/kvqbook/device"
)

// The pure-Go backend opens anywhere. "" opens a GPU if there is one, else the CPU.
func ExampleOpen() {
	backend, err := device.Open(device.PureGo)
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Finalize()
	sum, err := ExecOnce(backend, func(x *Node) *Node { return ReduceAllSum(Mul(x, x)) }, []float32{1, 2, 3})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sum.Value())

	_, err = device.Open("tpu")
	fmt.Println(errors.Is(err, device.ErrInput), err)
	// Output:
	// 14
	// true device "tpu": wanted "xla:cpu", "xla:cuda", "xla:/path/to/plugin.so" or "go"
}
