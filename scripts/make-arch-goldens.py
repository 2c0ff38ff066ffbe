#!/usr/bin/env python3
"""Makes llama/testdata/arch/*.json: tiny random models of the shapes that package llama covers, run by transformers.

    pip install torch==2.7.1 transformers==4.57.6 numpy==2.4.6
    python scripts/make-arch-goldens.py llama/testdata/arch [NAME...]

Each file holds a config.json as transformers writes it, a left-padded batch of two prompts, the 12 tokens that greedy
generation adds (float32, eager attention, CPU), and the logits of the first and of the last of them. The weights are in
no file: both sides compute them from the seed (see weight). The seed is the first whose greedy choices are all clear, so
that rounding, and 8-bit codes in the cache, cannot turn one: the best logit leads by at least LEAD.

"without" says by how much the first logits move when one setting is taken away: what shows that a golden tests it.
"""
import json, pathlib, sys

import numpy as np
import torch
import transformers
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM,
                          Qwen3Config, Qwen3ForCausalLM)

NEW_TOKENS, LEAD = 12, 0.15

BASE = dict(vocab_size=256, num_hidden_layers=2, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_theta=500000.0, rms_norm_eps=1e-5)


def llama3_scaling(factor, original):
    return dict(rope_type="llama3", factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=original)


# The class of the model for that of its configuration: one line an architecture.
CLASSES = {LlamaConfig: LlamaForCausalLM, MistralConfig: MistralForCausalLM, Qwen2Config: Qwen2ForCausalLM, Qwen3Config: Qwen3ForCausalLM}

QWEN = dict(rope_theta=1000000.0, rms_norm_eps=1e-6)

# name: class of the configuration, its fields, length of the prompt, settings to take away (or tensors, by a part
# of their names, to fill with a number).
MODELS = {
    # Every key/value head has one query head, and there are 5 of them: 40 is no power of two either. The epsilon is large enough to show.
    "llama-2-13b": (LlamaConfig, dict(hidden_size=80, intermediate_size=216, num_attention_heads=5, num_key_value_heads=5, rms_norm_eps=0.02), 20,
                    {"rms_norm_eps": 1e-5}),
    "llama-2-70b": (LlamaConfig, dict(hidden_size=256, intermediate_size=448, num_attention_heads=16, num_key_value_heads=2), 20, {}),
    "tinyllama-1.1b": (LlamaConfig, dict(hidden_size=512, intermediate_size=1408, num_attention_heads=8, num_key_value_heads=1), 20, {}),
    "llama-3-8b": (LlamaConfig, dict(hidden_size=64, intermediate_size=224, num_attention_heads=4, num_key_value_heads=1, **LLAMA3,
                                     vocab_size=128256, bos_token_id=128000, eos_token_id=[128001, 128009]), 20,
                   {"rope_theta": 10000.0}),
    # Wave lengths 6.3 (kept), 14.3 (blended) and 32.4 up (stretched); the prompt is longer than the first training's context.
    "llama-3.1-8b": (LlamaConfig, dict(hidden_size=128, intermediate_size=448, num_attention_heads=4, num_key_value_heads=1, **LLAMA3,
                                       rope_scaling=llama3_scaling(8.0, 32)), 40, {"rope_scaling": None}),
    # The published scaling as it is, which GGUF files carry as rope_freqs.weight.
    "llama-3.2-1b": (LlamaConfig, dict(hidden_size=128, intermediate_size=512, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
                                       **LLAMA3, tie_word_embeddings=True, max_position_embeddings=131072, rope_scaling=llama3_scaling(32.0, 8192)), 40,
                     {"rope_scaling": None}),
    "llama-linear": (LlamaConfig, dict(hidden_size=64, intermediate_size=172, num_attention_heads=4, num_key_value_heads=4,
                                       rope_scaling=dict(rope_type="linear", factor=4.0)), 20, {"rope_scaling": None}),
    # The window ends inside the prompt, and moves on while tokens are generated.
    "mistral-7b-v0.1": (MistralConfig, dict(hidden_size=64, intermediate_size=224, num_attention_heads=4, num_key_value_heads=1,
                                            sliding_window=8), 20, {"sliding_window": None}),
    # Heads narrower than hidden_size / heads, no window.
    "mistral-nemo-12b": (MistralConfig, dict(hidden_size=80, intermediate_size=224, num_attention_heads=4, num_key_value_heads=1, head_dim=16,
                                             rope_theta=1000000.0, sliding_window=None), 20, {"rope_theta": 10000.0}),
    # Biases on queries, keys and values; 7 query heads for a key/value head; the output head is the embedding.
    "qwen2.5-0.5b": (Qwen2Config, dict(hidden_size=224, intermediate_size=320, num_attention_heads=14, num_key_value_heads=2, **QWEN,
                                       tie_word_embeddings=True), 20, {"q_proj.bias": 0.0, "k_proj.bias": 0.0, "v_proj.bias": 0.0}),
    "qwen2.5-7b": (Qwen2Config, dict(hidden_size=64, intermediate_size=224, num_attention_heads=4, num_key_value_heads=2, **QWEN), 20,
                   {".bias": 0.0}),
    # A window in all layers: none is below max_window_layers. It ends inside the prompt.
    "qwen2-window": (Qwen2Config, dict(hidden_size=64, intermediate_size=224, num_attention_heads=4, num_key_value_heads=1, **QWEN,
                                       use_sliding_window=True, sliding_window=8, max_window_layers=0), 20, {"use_sliding_window": False}),
    # Norms over each head of queries and keys, no biases; heads wider than hidden_size / heads.
    "qwen3-0.6b": (Qwen3Config, dict(hidden_size=128, intermediate_size=512, num_attention_heads=8, num_key_value_heads=2, head_dim=32, **QWEN,
                                     tie_word_embeddings=True), 20, {"q_norm": 1.0, "k_norm": 1.0}),
    "qwen3-8b": (Qwen3Config, dict(hidden_size=128, intermediate_size=384, num_attention_heads=8, num_key_value_heads=2, head_dim=16, **QWEN), 20,
                 {"_norm.weight": 1.0}),
}


def weight(seed, name, shape):
    """Uniform numbers in [-s, s) from splitmix64, exact in float32: s by the kind of tensor; norms around 1."""
    start = np.uint64(0xcbf29ce484222325)  # FNV-1a
    with np.errstate(over="ignore"):
        for byte in f"{seed}:{name}".encode():
            start = (start ^ np.uint64(byte)) * np.uint64(0x100000001b3)
        z = start + (np.arange(np.prod(shape), dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9e3779b97f4a7c15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
        z ^= z >> np.uint64(31)
    unit = (z >> np.uint64(48)).astype(np.float64) / 32768 - 1
    if "norm" in name:
        values = 1 + unit / 4
    elif "embed_tokens" in name or "lm_head" in name:
        values = unit
    elif "q_proj" in name or "k_proj" in name:
        values = unit * 0.25
    else:
        values = unit * 0.1875
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def build(config_class, fields, seed, fill={}):
    config = config_class(**{**BASE, **fields})
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = CLASSES[config_class](config)
    model = model.to_empty(device="cpu")
    model.tie_weights()  # to_empty made two of the one tensor
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == config.tie_word_embeddings
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weight(seed, name, tuple(p.shape)))
            for part, value in fill.items():
                if part in name:
                    p.fill_(value)
    # The frequencies are a buffer, not a weight: make them again.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval().float()


def prompts(config, length):
    numbers = weight(0, "prompt", (2, length)).double()  # in [-0.1875, 0.1875)
    ids = 3 + ((numbers / 0.1875 + 1) / 2 * (config.vocab_size - 3)).long()
    ids = ids.clamp(max=config.vocab_size - 1)
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    for row, first in enumerate((0, 5)):
        ids[row, first] = config.bos_token_id
    ids[1, :5] = config.eos_token_id if isinstance(config.eos_token_id, int) else config.eos_token_id[0]
    return ids, mask


def generate(model, ids, mask):
    with torch.inference_mode():
        out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS,
                             pad_token_id=int(ids[1, 0]), return_dict_in_generate=True, output_logits=True)
    return out.sequences[:, ids.shape[1]:], torch.stack(out.logits, 1)


def lead(model, logits):
    """How far the best of the tokens that may be picked is ahead of the second: no end of sequence, see min_new_tokens."""
    allowed = logits.clone()
    allowed[..., torch.tensor(np.atleast_1d(model.config.eos_token_id))] = -torch.inf
    top = allowed.topk(2).values
    return float((top[..., 0] - top[..., 1]).min())


def first_logits(model, ids, mask):
    position = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False).logits[:, -1]


def rope_freqs(config):
    """The divisors that llama.cpp's convert_hf_to_gguf.py writes (LlamaModel.generate_extra_tensors)."""
    s = config.rope_scaling
    low, high = s["original_max_position_embeddings"] / s["low_freq_factor"], s["original_max_position_embeddings"] / s["high_freq_factor"]
    out = []
    for freq in 1.0 / (config.rope_theta ** (torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim)):
        wavelen = 2 * np.pi / freq
        if wavelen < high:
            out.append(1.0)
        elif wavelen > low:
            out.append(s["factor"])
        else:
            smooth = (s["original_max_position_embeddings"] / wavelen - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
            out.append(float(1 / ((1 - smooth) / s["factor"] + smooth)))
    return out


def make(name):
    config_class, fields, length, without = MODELS[name]
    for seed in range(1, 2000):
        model = build(config_class, fields, seed)
        ids, mask = prompts(model.config, length)
        first = first_logits(model, ids, mask)
        if lead(model, first) < LEAD:
            continue
        tokens, logits = generate(model, ids, mask)
        if lead(model, logits) >= LEAD and min(len(set(row)) for row in tokens.tolist()) >= 5:
            break
    else:
        sys.exit(f"{name}: no seed with clear choices")
    assert (first - logits[:, 0]).abs().max() < 1e-4
    # Of a large vocabulary, every so many logits and the chosen ones.
    vocab = model.config.vocab_size
    kept = sorted(set(range(0, vocab, max(1, vocab // 256))) | set(tokens.flatten().tolist()) | {vocab - 1})
    moved = {}
    for key, value in without.items():
        tensors = "." in key or "_norm" in key and not key.startswith("rms")
        other = build(config_class, fields if tensors else {**fields, key: value}, seed, {key: value} if tensors else {})
        moved[key] = round(float((first_logits(other, ids, mask) - first).abs().max()), 4)
    golden = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "config": json.loads(model.config.to_json_string()), "seed": seed,
        "input_ids": ids.tolist(), "attention_mask": mask.tolist(), "tokens": tokens.tolist(), "kept": kept,
        "first_logits": rounded(logits[:, 0, kept]), "last_logits": rounded(logits[:, -1, kept]), "without": moved,
    }
    if "low_freq_factor" in (getattr(model.config, "rope_scaling", None) or {}):
        golden["rope_freqs"] = rope_freqs(model.config)
    print(f"{name}: seed {seed}, lead {lead(model, logits):.3f}, without {moved}, tokens {tokens.tolist()}", flush=True)
    return golden


def rounded(logits):
    return [[float(f"{x:.7g}") for x in row] for row in logits.tolist()]


def main():
    out = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    for name in sys.argv[2:] or MODELS:
        lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in make(name).items()]
        (out / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
