#!/usr/bin/env python3
# Makes llama/modelfile/testdata/blocks.gguf and blocks.f32.gz: a model whose matrices are in the
# element types that llama/modelfile/gguf_blocks.go reads, written by gguf-py, and the elements that
# gguf-py makes of each, in the order of the file. Needs gguf==0.19.0, numpy==2.4.6.
#
#     python3 -m venv .venv && .venv/bin/pip install gguf==0.19.0 numpy==2.4.6
#     .venv/bin/python scripts/make-gguf-goldens.py
import gzip, pathlib

import gguf, numpy
from gguf import GGMLQuantizationType as Type

HIDDEN, INNER, HEADS, VOCAB = 32, 256, 2, 16
RANDOM = numpy.random.default_rng(14)


def blocks(kind, rows, columns):
    """Random blocks: every code and every scale of a group comes, scales of a block are finite."""
    size, length = gguf.GGML_QUANT_SIZES[kind]
    n = rows * columns // size
    data = RANDOM.integers(0, 256, (n, length), dtype=numpy.uint8)
    if kind == Type.MXFP4:
        data[:, 0] = RANDOM.integers(100, 140, n)
        data[:6, 0] = [0, 1, 2, 127, 128, 140]  # the first two are subnormal
    else:
        scales = RANDOM.normal(0, 0.01, n).astype(numpy.float16)
        scales[:4] = [0, 6e-8, -6e-5, 8]
        data[:, :2] = scales.view(numpy.uint8).reshape(n, 2)
    return data.reshape(rows, -1)


def main():
    folder = pathlib.Path(__file__).parent.parent / "llama" / "modelfile" / "testdata"
    w = gguf.GGUFWriter(folder / "blocks.gguf", "llama")
    w.add_vocab_size(VOCAB); w.add_embedding_length(HIDDEN); w.add_feed_forward_length(INNER); w.add_block_count(1)
    w.add_head_count(HEADS); w.add_head_count_kv(HEADS); w.add_context_length(64); w.add_layer_norm_rms_eps(1e-5)
    values = []

    def add(name, kind, rows, columns, rotary=False):
        data = blocks(kind, rows, columns)
        w.add_tensor(name, data, raw_dtype=kind)
        x = gguf.dequantize(data, kind)
        if rotary:  # the reverse of permute in convert_hf_to_gguf.py
            x = x.reshape(HEADS, rows // HEADS // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        assert numpy.isfinite(x).all() and x.dtype == numpy.float32 and x.shape == (rows, columns)
        values.append(numpy.ascontiguousarray(x).tobytes())

    add("token_embd.weight", Type.IQ4_NL, VOCAB, HIDDEN)
    add("blk.0.attn_q.weight", Type.MXFP4, HIDDEN, HIDDEN, rotary=True)
    add("blk.0.attn_k.weight", Type.IQ4_NL, HIDDEN, HIDDEN, rotary=True)
    add("blk.0.attn_v.weight", Type.MXFP4, HIDDEN, HIDDEN)
    add("blk.0.attn_output.weight", Type.IQ4_NL, HIDDEN, HIDDEN)
    add("blk.0.ffn_gate.weight", Type.MXFP4, INNER, HIDDEN)
    add("blk.0.ffn_up.weight", Type.IQ4_NL, INNER, HIDDEN)
    add("blk.0.ffn_down.weight", Type.IQ4_XS, HIDDEN, INNER)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        w.add_tensor(name + ".weight", numpy.ones(HIDDEN, numpy.float32))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
    with gzip.GzipFile(folder / "blocks.f32.gz", "wb", mtime=0) as f:
        f.write(b"".join(values))
    print((folder / "blocks.gguf").stat().st_size, (folder / "blocks.f32.gz").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
