#!/usr/bin/env python3
"""What groups and rotation cost in heads that are no power of two, by KL divergence from full precision.

usage: KVQ_MODEL=…/SmolLM2-135M-Instruct.Q4_1.gguf python scripts/simulate-head-dims.py docs/texts/story.txt …

Needs   torch==2.7.1 transformers==4.57.6 gguf accelerate (Python 3.11 or newer)

No model with such heads is small enough, so the small model's keys and values are coded as if they had them. A text
goes through transformers' Llama in one pass, in which a token sees the newest 64 exactly, and what is older (for
presets, but for 4 sinks) decoded. Scales and zero points stay in float32.

- Rotation: the presets with Hadamard blocks of 64 (the model's heads), 16, 8 (D = 40, 72, 120), 4 (D = 20, 100), and none.
- Groups: the tutorial's, 4 bits, over the 192 channels of a token's heads cut into heads of D: in groups that divide D, as
  this library has them, and in groups of 32 that go on into the next token, as transformers has them.
"""
import math
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

WINDOW, SINKS = 64, 4
TOKENS = SINKS + 4 * 64  # of a text; those from SCORED on are scored
SCORED = 100
CUTS = {2: (4, 0.115), 3: (4, 0.1), 4: (3, 0.07)}  # of quantizer unbiased
PRESETS = {"smallest": (3, 64, 3, 64), "lowest": (2, 32, 2, 64), "balanced": (5, 64, 4, 64)}  # bits and group: keys, values
HEADS = [(80, 20, 20), (40, 20, 20), (100, 20, 25), (112, 28, 28), (48, 24, 24), (72, 24, 24), (20, 20, 20)]  # D, groups


def min_max(x, bits):
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp_min(1e-12)
    return ((x - low) / step).round().clamp(0, 2**bits - 1) * step + low


def unbiased(x, bits, keys):
    """kvq/internal/numbers/unbiased.go, groups along the last axis."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    n, cut = CUTS.get(bits, (1, 0))
    half = (2**bits - 1) / 2
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred * centred).sum(-1, keepdim=True)
    best = out = None
    for a in range(n):
        for b in range(n):
            left, right = low + (high - low) * a * cut, high - (high - low) * b * cut
            middle, fine = (left + right) / 2, ((right - left) / (2 * half)).clamp_min(1e-12)
            steps = ((x - middle) / fine + half).round().clamp(0, 2 * half) - half
            decoded = steps * fine
            along = (centred * (decoded - decoded.mean(-1, keepdim=True))).sum(-1, keepdim=True)
            gain = torch.where(along > 0, spread / along.clamp_min(1e-30), torch.ones_like(along))
            y = decoded * gain + middle
            cost = ((y - x).abs() ** (3 if keys else 2)).sum(-1, keepdim=True)
            if best is None:
                best, out = cost, y
                continue
            better = cost < best
            best, out = torch.where(better, cost, best), torch.where(better, y, out)
    return out


def hadamard(n):
    h = torch.ones(1, 1)
    while h.shape[0] < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    return h / math.sqrt(n)


def rotate(x, block):
    return (x.reshape(*x.shape[:-1], -1, block) @ hadamard(block)).reshape(x.shape)


def preset(bits_key, group_key, bits_value, group_value, block):
    """Keys [B, K, T, D] per channel, values per token, both rotated in blocks."""

    def keys(x):
        y = rotate(x, block)
        b, k, t, d = y.shape
        n = (t - SINKS) // group_key
        old = y[:, :, SINKS : SINKS + n * group_key].reshape(b, k, n, group_key, d).transpose(-1, -2)
        y[:, :, SINKS : SINKS + n * group_key] = unbiased(old, bits_key, True).transpose(-1, -2).reshape(b, k, -1, d)
        return rotate(y, block)

    def values(x):
        y = rotate(x, block)
        old = y[:, :, SINKS:]
        y[:, :, SINKS:] = unbiased(old.reshape(*old.shape[:-1], -1, group_value), bits_value, False).reshape(old.shape)
        return rotate(y, block)

    return lambda k, v: (keys(k), values(v))


def grouped(dim, group_key, group_value, across):
    """Min-max in 4 bits over heads of dim channels; across: groups run on into the next token."""

    def code(x, group):
        b, k, t, d = x.shape
        flat = x.transpose(1, 2).reshape(b, t, k * d).clone()
        for first in range(0, k * d - dim + 1, dim):
            head = flat[..., first : first + dim]
            if across:
                all_tokens = head.reshape(-1)
                whole = all_tokens.numel() // group * group
                coded = min_max(all_tokens[:whole].reshape(-1, group), 4).reshape(-1)
                flat[..., first : first + dim] = torch.cat([coded, all_tokens[whole:]]).reshape(head.shape)
            else:
                flat[..., first : first + dim] = min_max(head.reshape(b, t, -1, group), 4).reshape(head.shape)
        return flat.reshape(b, t, k, d).transpose(1, 2)

    return lambda k, v: (code(k, group_key), code(v, group_value))


cache = None  # what codes keys and values; None: full precision


def attention(module, q, k, v, mask, scaling=None, **unused):
    repeat = q.shape[1] // k.shape[1]
    wide = lambda x: x.repeat_interleave(repeat, 1)
    i = torch.arange(q.shape[2])
    seen, old = i[None, :] <= i[:, None], i[None, :] <= i[:, None] - WINDOW
    scores = (q @ wide(k).transpose(-1, -2)) * scaling
    coded = cache(k, v) if cache else (k, v)
    scores = torch.where(old, (q @ wide(coded[0]).transpose(-1, -2)) * scaling, scores)
    weights = scores.masked_fill(~seen, -1e30).softmax(-1)
    out = (weights * ~old) @ wide(v) + (weights * old) @ wide(coded[1])
    return out.transpose(1, 2).contiguous(), None


@torch.no_grad()
def main():
    global cache
    folder, file = os.path.split(os.environ["KVQ_MODEL"])
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    ALL_ATTENTION_FUNCTIONS.register("simulated", attention)
    model.config._attn_implementation = "simulated"
    texts = [tokenizer(open(name).read(), return_tensors="pt").input_ids[:, :TOKENS] for name in sys.argv[1:]]
    predict = lambda ids: model(ids).logits[0, SCORED:].log_softmax(-1)
    full = [predict(ids) for ids in texts]

    def kl(with_cache):
        global cache
        cache = with_cache
        each = [(f.exp() * (f - predict(ids))).sum(-1).mean().item() for ids, f in zip(texts, full)]
        cache = None
        return sum(each) / len(each)

    for name, setting in PRESETS.items():
        for block in [64, 16, 8, 4, 1]:
            print(f"{name}: rotated in blocks of {block}: KL {kl(preset(*setting, block)):.5f}", flush=True)
    for dim, key, value in HEADS:
        ours, theirs = kl(grouped(dim, key, value, False)), kl(grouped(dim, 32, 32, True))
        print(f"4 bits, D = {dim}: groups of {key} and {value}: KL {ours:.5f}; of 32 across tokens: {theirs:.5f}", flush=True)


if __name__ == "__main__":
    main()
