package modelfile

import (
	"compress/gzip"
	"encoding/binary"
	"io"
	"math"
	"os"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/float16"
)

// By hand, from the layouts in ggml-common.h.
func TestUnpackBlocks(t *testing.T) {
	half := func(x float32) []byte { return binary.LittleEndian.AppendUint16(nil, float16.FromFloat32(x).Bits()) }
	ramp := []byte{0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE, 0, 0, 0, 0, 0, 0, 0, 0xF0}

	var nl [32]float32
	unpackIQ4NL(nl[:], append(half(0.5), ramp...))
	// 0x10: code 0 = -127 for element 0, code 1 = -104 for element 16; 0xFE: 14 = 89, 15 = 113.
	for i, want := range map[int]float32{0: -63.5, 16: -52, 7: 44.5, 23: 56.5, 8: -63.5, 15: -63.5, 31: 56.5, 4: 0.5} {
		if nl[i] != want {
			t.Errorf("IQ4_NL: element %d is %g, want %g", i, nl[i], want)
		}
	}

	// Group 0 has the scale 0b10_0101 = 37, 5 without the offset; group 3 has 0b01_1111 = 31, -1.
	xs := append(half(2), 0b01_00_00_10, 0, 0x05, 0xF0, 0, 0)
	xs = append(xs, make([]byte, 128)...)
	copy(xs[8:], ramp)
	copy(xs[8+3*16:], ramp)
	var wide [256]float32
	unpackIQ4XS(wide[:], xs)
	// Elsewhere the scale is 0, -32 without the offset, and the code is 0: 2 · -32 · -127.
	for i, want := range map[int]float32{0: 2 * 5 * -127, 16: 2 * 5 * -104, 31: 2 * 5 * 113, 96: 2 * -1 * -127, 96 + 23: 2 * -1 * 113, 32: 8128, 255: 8128} {
		if wide[i] != want {
			t.Errorf("IQ4_XS: element %d is %g, want %g", i, wide[i], want)
		}
	}

	var mx [32]float32
	for exponent, one := range map[byte]float32{127: 1, 128: 2, 0: 0x1p-127, 1: 0x1p-126, 120: 0x1p-7, 250: 0x1p123} {
		unpackMXFP4(mx[:], append([]byte{exponent}, ramp...))
		// E2M1: 0, 0.5, 1, 1.5, 2, 3, 4, 6, then the same with a sign.
		for i, want := range map[int]float32{0: 0, 16: 0.5, 1: 1, 17: 1.5, 2: 2, 18: 3, 3: 4, 19: 6, 4: 0, 20: -0.5, 23: -6} {
			if got := mx[i]; got != want*one {
				t.Errorf("MXFP4, exponent %d: element %d is %g, want %g", exponent, i, got, want*one)
			}
		}
	}
}

// A model that gguf-py wrote (scripts/make-gguf-goldens.py), bit for bit as gguf-py reads it.
func TestGGUFBlocks(t *testing.T) {
	file, err := os.Open("testdata/blocks.f32.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(unzipped)
	if err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, "testdata/blocks.gguf")
	plain, rounded := mustRead(t, f, As{DType: dtypes.Float32}), mustRead(t, f, As{DType: dtypes.Float32, RoundFloat16: true})
	seen := map[string]bool{}
	for _, name := range []string{"token_embd", "blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v", "blk.0.attn_output", "blk.0.ffn_gate", "blk.0.ffn_up", "blk.0.ffn_down"} {
		seen[f.source.tensors()[name+".weight"].format] = true
		var weight Weight
		for _, w := range f.Config().Weights() {
			if w.GGUF == name+".weight" {
				weight = w
			}
		}
		got, asHalf := plain[weight.HF], rounded[weight.HF]
		if len(got) == 0 || len(want) < 4*len(got) {
			t.Fatalf("%s: %d elements, of the golden %d bytes are left", name, len(got), len(want))
		}
		for i, v := range got {
			golden := math.Float32frombits(binary.LittleEndian.Uint32(want[4*i:]))
			if math.Float32bits(v) != math.Float32bits(golden) && !(v == 0 && golden == 0) {
				t.Fatalf("%s: element %d is %g, want %g", name, i, v, golden)
			}
			if h := float16.FromBits(toFloat16(golden)).Float32(); asHalf[i] != h {
				t.Fatalf("%s: element %d rounded to float16 is %g, want %g", name, i, asHalf[i], h)
			}
		}
		want = want[4*len(got):]
	}
	if len(want) > 0 {
		t.Errorf("%d bytes of the golden are left", len(want))
	}
	for _, format := range []string{"IQ4_NL", "IQ4_XS", "MXFP4"} {
		if !seen[format] {
			t.Errorf("no tensor is %s", format)
		}
	}
}

// Rows that are no whole blocks, and files that end inside a block, are refused.
func TestGGUFBlocksRefused(t *testing.T) {
	whole, err := os.ReadFile("testdata/blocks.gguf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err = Open(writeFile(t, whole[:len(whole)-200], dir, "cut.gguf"))
	wantLine(t, err, "cut.gguf", "cut off")
	list := fakeTensors(t, fakeConfig(), dtypes.Float32, true) // 24 wide
	list[0].Packed = "IQ4_NL"
	_, err = Open(writeFile(t, ggufBytes(t, fakeMetadata(), list), dir, "narrow.gguf"))
	wantLine(t, err, "narrow.gguf", "whole blocks of 32")
	list[0].Packed = "IQ3_S"
	_, err = Open(writeFile(t, ggufBytes(t, fakeMetadata(), list), dir, "other.gguf"))
	wantLine(t, err, "other.gguf", "element type IQ3_S cannot be read", "IQ4_XS")
}
