"""transformers as a side of `kvq bench peers`, with its full-precision cache or with its quantized one."""
import argparse
import os

import side  # first: it takes standard output

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
import importlib.metadata

import torch
from transformers import AutoModelForCausalLM, DynamicCache, QuantizedCache


class Model:
    def __init__(self, args):
        self.args = args
        where = dict(gguf_file=os.path.basename(args.model)) if args.model.endswith(".gguf") else {}
        folder = os.path.dirname(os.path.abspath(args.model)) if where else args.model
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype), **where).to(args.device).eval()
        self.cache = self.newest = None

    def forget(self):
        size = sum(t.nbytes for layer in getattr(self.cache, "layers", []) for t in tensors(layer))
        self.cache = self.newest = None
        return size

    def step(self, ids):
        out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.newest = out.logits[:, -1:].argmax(-1)

    @torch.inference_mode()
    def prefill(self, ids):
        config = self.model.config
        if self.args.cache == "full":
            self.cache = DynamicCache(config=config)
        else:  # the tutorial's settings; axis 0 is per token
            self.cache = QuantizedCache("quanto", config, nbits=4, q_group_size=32, residual_length=64, axis_key=0, axis_value=0)
        self.step(torch.tensor([ids], device=self.args.device))
        return int(self.newest)

    @torch.inference_mode()
    def decode(self, n):
        tokens = []
        for _ in range(n):
            self.step(self.newest)
            tokens.append(self.newest)  # as in generate(), nothing is read before the end on a GPU
        return torch.cat(tokens, -1)[0].tolist()


def tensors(layer):
    """The tensors that a layer of a cache holds, inside of quanto's as well."""
    for value in vars(layer).values():
        parts = [getattr(value, name, None) for name in ("_data", "_scale", "_shift")]
        if isinstance(parts[0], torch.Tensor):
            yield from (getattr(p, "_data", p) for p in parts if isinstance(p, torch.Tensor))
        elif isinstance(value, torch.Tensor):
            yield value


p = argparse.ArgumentParser()
p.add_argument("--model", required=True, help="a GGUF file or a folder in Hugging Face's layout")
p.add_argument("--cache", choices=["full", "quantized"], required=True)
p.add_argument("--device", default="cpu")
p.add_argument("--dtype", default="float32")
p.add_argument("--threads", type=int, default=os.cpu_count())
args = p.parse_args()
torch.set_num_threads(args.threads)
model = Model(args)
versions = {"torch": torch.__version__, "transformers": importlib.metadata.version("transformers"), "dtype": args.dtype}
if args.cache == "quantized":
    versions["optimum-quanto"] = importlib.metadata.version("optimum-quanto")
side.serve(model, versions, args.device, args.device.startswith("cuda"))
