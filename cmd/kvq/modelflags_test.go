package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kvqbook/kvqbook/internal/testbackend"
	"github.com/kvqbook/kvqbook/internal/testlane"
)

// Two devices generate what one does, and say what each holds.
func TestGenerateOnTwoDevices(t *testing.T) {
	testlane.Slow(t, "compiles for two devices")
	if has := testbackend.XLA(t).NumDevices(); has < 2 {
		t.Skipf("two devices wanted, XLA shows %d", has)
	}
	model := tinyModel(t, nil)
	run := func(devices int) generateJSON {
		return parse[generateJSON](t, mustRun(t, "", "generate", "--model", model, "--backend", "xla:cpu", "--prompt", tinyText(5, 6, 7), "--prompt", tinyText(9),
			"--cache", "full", "--max-new-tokens", "20", "--min-new-tokens", "20", "--devices", fmt.Sprint(devices), "--json"))
	}
	one, two := run(1), run(2)
	for i := range one.Prompts {
		if a, b := one.Prompts[i].OutputIDs, two.Prompts[i].OutputIDs; !slices.Equal(a, b) {
			t.Errorf("prompt %d: %v on one device, %v on two", i, a, b)
		}
	}
	if len(one.Devices) != 1 || len(two.Devices) != 2 || two.Devices[0] == two.Devices[1] {
		t.Errorf("devices %q and %q, want one and two", one.Devices, two.Devices)
	}
	if each := two.Cache.DeviceBytes; len(each) != 2 || each[0] != each[1] || each[0]+each[1] != two.Cache.Bytes || one.Cache.DeviceBytes != nil {
		t.Errorf("caches of %d bytes on each device, %d together; %d of one device", each, two.Cache.Bytes, one.Cache.DeviceBytes)
	}
	if full := one.Cache.Parts.Full; two.Cache.Parts.Full != full {
		t.Errorf("keys and values take %d bytes on one device, %d on two", full, two.Cache.Parts.Full)
	}
}

// What a device holds of two: half of the heads and of the matrices between embeddings and head.
func TestMemoryOfTwoDevices(t *testing.T) {
	model := tinyModel(t, nil)
	run := func(devices string) memoryJSON {
		return parse[memoryJSON](t, mustRun(t, "", "memory", "--model", model, "--cache", "full", "--measure=false", "--devices", devices, "--json"))
	}
	one, two := run("1"), run("2")
	whole := int64(4 * (2*tinyVocab*tinyHidden + (2*tinyLayers+1)*tinyHidden)) // embeddings, head and norms
	if got, want := two.Weights.Bytes, whole+(one.Weights.Bytes-whole)/2; got != want || two.Devices != 2 {
		t.Errorf("weights of %d bytes on each of %d devices, want %d on 2", got, two.Devices, want)
	}
	if two.Cache.Parts.Full*2 != one.Cache.Parts.Full {
		t.Errorf("keys and values of %d bytes on each of two devices, %d on one", two.Cache.Parts.Full, one.Cache.Parts.Full)
	}
}

// A benchmark times one device and two beside each other.
func TestBenchDecodeOnTwoDevices(t *testing.T) {
	testlane.Slow(t, "compiles for two devices")
	if has := testbackend.XLA(t).NumDevices(); has < 2 {
		t.Skipf("two devices wanted, XLA shows %d", has)
	}
	var report struct {
		Rows []struct {
			Devices int
			Bytes   int64
			Scaling any `json:"times_faster_than_first_devices"`
		}
	}
	out := mustRun(t, "", "bench", "decode", "--model", tinyModel(t, nil), "--q-group-size", "8", "--backend", "xla:cpu", "--devices", "1,2",
		"--tokens", "64", "--batches", "1", "--runs", "1", "--steps", "2", "--json")
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	got := report.Rows
	if len(got) != 2 || got[0].Devices != 1 || got[1].Devices != 2 {
		t.Fatalf("rows %+v, want one device and two", got)
	}
	for i, row := range got {
		if row.Bytes != got[0].Bytes || row.Scaling == nil != (i == 0) {
			t.Errorf("row %d: %+v, want the bytes of the first row, %d, and a comparison with it", i, row, got[0].Bytes)
		}
	}
}

func TestMoreDevicesThanThereAre(t *testing.T) {
	if has := testbackend.XLA(t).NumDevices(); has >= 32 {
		t.Skipf("XLA shows %d devices", has)
	}
	status, out, errs := runKVQ(t, "", "bench", "decode", "--random", "llama2-7b", "--backend", "xla:cpu", "--devices", "1,32")
	want := fmt.Sprintf("kvq: --devices 32: xla:cpu has %d; kvq devices lists them\n", testbackend.XLA(t).NumDevices())
	if status != exitBadInput || out != "" || !strings.HasSuffix(errs, want) {
		t.Errorf("status %d, %q on standard output, %q, want %q", status, out, errs, want)
	}
}
