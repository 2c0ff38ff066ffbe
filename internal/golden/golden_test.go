package golden

import (
	"slices"
	"testing"
)

func TestReadersAgree(t *testing.T) {
	dir := Dir(t)
	npz := Npz(t, dir, "quant", "normal_2x3x64x32.npz")
	npy := Npy(t, dir, "quant", "normal_2x3x64x32.x.npy")
	if want := []int{2, 3, 64, 32}; !slices.Equal(npy.Shape, want) || !slices.Equal(npz["x"].Shape, want) {
		t.Fatalf("shapes %v and %v, wanted %v", npy.Shape, npz["x"].Shape, want)
	}
	if !slices.Equal(npy.Floats, npz["x"].Floats) {
		t.Error("x differs between .npy and .npz")
	}
	if codes := npz["quanto_f32_b4_axis0_g32.codes"]; slices.Max(codes.Bytes(t)) != 15 || len(codes.Ints) != 2*3*64*32 {
		t.Errorf("codes: %d of them, largest %d; wanted %d and 15", len(codes.Ints), slices.Max(codes.Ints), 2*3*64*32)
	}
}

func TestSafetensors(t *testing.T) {
	all := Safetensors(t, Dir(t), "trace", "traces.safetensors")
	a, ok := all["quanto_b4_ax0_g32_r4.0.k_in"]
	if !ok || !slices.Equal(a.Shape, []int{2, 2, 5, 32}) || len(a.Floats) != 2*2*5*32 {
		t.Errorf("first keys of the first trace: found %v, shape %v with %d elements, wanted [2 2 5 32]", ok, a.Shape, len(a.Floats))
	}
}

func TestSafetensorsRefusesDamage(t *testing.T) {
	for name, data := range map[string]string{
		"cut off":      "\x05\x00",
		"no header":    "\xff\x00\x00\x00\x00\x00\x00\x00{}",
		"not JSON":     "\x02\x00\x00\x00\x00\x00\x00\x00[]",
		"data missing": "\x36\x00\x00\x00\x00\x00\x00\x00" + `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}` + "\x00",
	} {
		if _, err := parseSafetensors([]byte(data)); err == nil {
			t.Errorf("%s: read without an error", name)
		}
	}
}
