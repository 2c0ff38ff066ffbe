"""llama.cpp as a side of `kvq bench peers`, on the CPU, with a cache of one of its types."""
import argparse
import ctypes
import os

import side  # first: it takes standard output

import llama_cpp
import numpy as np

TYPES = {"f16": 1, "q8_0": 8, "q4_0": 2}  # of ggml


class Model:
    def __init__(self, args):
        kind = TYPES[args.cache]
        self.llm = llama_cpp.Llama(args.model, n_ctx=args.context, n_batch=512, n_threads=args.threads, n_threads_batch=args.threads, type_k=kind,
                                   type_v=kind, flash_attn=True, verbose=False)
        self.newest = None

    def forget(self):
        self.llm.reset()

    def step(self, ids):
        self.llm.eval(ids)
        logits = llama_cpp.llama_get_logits_ith(self.llm.ctx, -1)
        self.newest = int(np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (self.llm.n_vocab(),)).argmax())
        return self.newest

    def prefill(self, ids):
        return self.step(ids)

    def decode(self, n):
        return [self.step([self.newest]) for _ in range(n)]


p = argparse.ArgumentParser()
p.add_argument("--model", required=True, help="a GGUF file")
p.add_argument("--cache", choices=list(TYPES), required=True)
p.add_argument("--context", type=int, default=8192)
p.add_argument("--threads", type=int, default=os.cpu_count())
args = p.parse_args()
side.serve(Model(args), {"llama-cpp-python": llama_cpp.__version__, "threads": str(args.threads)}, "cpu")
