#!/usr/bin/env python3
"""Makes llama/modelfile/testdata/folders.json.gz: model folders, and what transformers reads from them.

Folders are saved, changed and saved again by both major versions; the newest reads them all, and what
it saw is the golden. Two virtual environments do it:

    V4/bin/pip install torch==2.8.0 transformers==4.57.6; V5/bin/pip install torch==2.8.0 transformers==5.24.0
    V4/bin/python scripts/make-file-goldens.py make /tmp/folders
    V5/bin/python scripts/make-file-goldens.py make /tmp/folders
    V5/bin/python scripts/make-file-goldens.py read /tmp/folders
"""
import base64
import gzip
import json
import os
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

transformers.logging.set_verbosity_error()
MAJOR = transformers.__version__.split(".")[0]
SMALL = dict(vocab_size=24, hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
             max_position_embeddings=64, initializer_range=0.3, bos_token_id=1, eos_token_id=2)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
TEXTS = ["ab", "ba ab", "<s>ab</s>", ""]


def model(seed=0, kind=LlamaConfig, **fields):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(kind(**{**SMALL, **fields}))


def change(folder, file="config.json", drop=(), **fields):
    path = folder / file
    data = json.loads(path.read_text()) if path.exists() else {}
    data.update(fields)
    path.write_text(json.dumps({k: v for k, v in data.items() if k not in drop}))


def tensors(folder, edit):
    path = folder / "model.safetensors"
    data = load_file(path)
    edit(data)
    save_file(data, path, metadata={"format": "pt"})


def tokenizer(folder, name, template, with_bytes=False, **flags):
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5, "▁": 6}
    if with_bytes:
        vocab.update({f"<0x{i:02X}>": 7 + i for i in range(256)})
    framed = {None: None, "bos": ["<s>"], "none": []}[template]
    post = None if framed is None else {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": t, "type_id": 0}} for t in framed] + [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {t: {"id": t, "ids": [vocab[t]], "tokens": [t]} for t in framed}}
    added = [dict(id=i, content=t, special=True, single_word=False, lstrip=False, rstrip=False, normalized=False) for t, i in list(vocab.items())[:3]]
    data = dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None,
                pre_tokenizer=dict(type="Metaspace", replacement="▁", prepend_scheme="first", split=False), post_processor=post,
                decoder=dict(type="Sequence", decoders=[dict(type="Replace", pattern=dict(String="▁"), content=" "), dict(type="ByteFallback"), dict(type="Fuse"),
                                                        dict(type="Strip", content=" ", start=1, stop=0)]),
                model=dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=True,
                           byte_fallback=with_bytes, ignore_merges=False, vocab=vocab, merges=[["a", "b"]]))
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False))
    change(folder, "tokenizer_config.json", tokenizer_class=name, bos_token="<s>", eos_token="</s>", unk_token="<unk>", legacy=False, **flags)


def make(root):
    def folder(name):
        path = root / f"v{MAJOR} {name}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    f = folder("whole"); model().save_pretrained(f)
    f = folder("sharded"); model().save_pretrained(f, max_shard_size="1KB")
    f = folder("whole over shards"); model().save_pretrained(f, max_shard_size="1KB"); model(1).save_pretrained(f)
    f = folder("shards over whole"); model().save_pretrained(f); model(1).save_pretrained(f, max_shard_size="1KB")
    f = folder("old index beside whole"); model().save_pretrained(f, max_shard_size="1KB")
    keep = (f / "model.safetensors.index.json").read_text()
    shutil.rmtree(f); f.mkdir(); model(1).save_pretrained(f); (f / "model.safetensors.index.json").write_text(keep)
    f = folder("whole copied beside shards"); other = folder("scratch"); model(1).save_pretrained(other); model().save_pretrained(f, max_shard_size="1KB")
    shutil.copy(other / "model.safetensors", f); shutil.rmtree(other)
    f = folder("part of the shards"); model().save_pretrained(f, max_shard_size="1KB"); os.remove(sorted(f.glob("*.safetensors"))[1])
    for name, dtype in dict(bfloat16=torch.bfloat16, float16=torch.float16).items():
        f = folder(name); model().to(dtype).save_pretrained(f)
        f = folder(f"{name} that its config calls float32"); model().to(dtype).save_pretrained(f); change(f, drop=["dtype"], torch_dtype="float32")
    f = folder("tied"); model(tie_word_embeddings=True).save_pretrained(f)
    f = folder("saved, loaded, scaled, saved"); model().save_pretrained(f); m = AutoModelForCausalLM.from_pretrained(f)
    with torch.no_grad():
        m.lm_head.weight.mul_(2)
    m.save_pretrained(f)
    f = folder("linear"); model(rope_scaling=dict(rope_type="linear", factor=4.0), rope_theta=2e4).save_pretrained(f)
    f = folder("llama3"); model(rope_scaling=dict(LLAMA3), rope_theta=5e5).save_pretrained(f)
    f = folder("linear added by hand"); model().save_pretrained(f); change(f, rope_scaling=dict(rope_type="linear", factor=4.0))
    f = folder("llama3 added by hand"); model().save_pretrained(f); change(f, rope_scaling=dict(LLAMA3), rope_theta=5e5)
    f = folder("theta changed at the top"); model().save_pretrained(f); change(f, rope_theta=7e4)
    f = folder("theta changed inside"); model().save_pretrained(f); change(f, rope_parameters=dict(rope_type="default", rope_theta=7e4))
    f = folder("scaling emptied"); model(rope_scaling=dict(rope_type="linear", factor=4.0)).save_pretrained(f); change(f, rope_scaling={})
    f = folder("old name of the type"); model().save_pretrained(f); change(f, rope_scaling=dict(type="linear", factor=2.0))
    f = folder("factor without a type"); model().save_pretrained(f); change(f, drop=["rope_parameters", "rope_theta"], rope_scaling=dict(factor=2.0), rope_theta=2e4)
    f = folder("scaling that is false"); model().save_pretrained(f); change(f, rope_scaling=False)
    f = folder("fields that are null"); model(num_key_value_heads=2).save_pretrained(f); change(f, num_key_value_heads=None, head_dim=None)
    f = folder("swish"); model().save_pretrained(f); change(f, hidden_act="swish")
    f = folder("tied, with another head"); model().save_pretrained(f); change(f, tie_word_embeddings=True)
    f = folder("tied, with the same head"); model(tie_word_embeddings=True).save_pretrained(f); tensors(f, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    f = folder("tied, with the head alone"); model(tie_word_embeddings=True).save_pretrained(f)
    tensors(f, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    f = folder("untied, without a head"); model(tie_word_embeddings=True).save_pretrained(f); change(f, tie_word_embeddings=False)
    f = folder("base model, tied"); model(tie_word_embeddings=True).model.save_pretrained(f)
    f = folder("base model, untied"); model().model.save_pretrained(f)
    f = folder("an empty tensor"); model().save_pretrained(f); tensors(f, lambda t: t.update({"extra.weight": torch.zeros(0, 4)}))
    f = folder("no end in the generation config"); model().save_pretrained(f); change(f, "generation_config.json", eos_token_id=[])
    for kind in (MistralConfig, Qwen2Config, Qwen3Config):
        f = folder(kind.model_type); model(kind=kind, rope_theta=3e4).save_pretrained(f)
    f = folder("ends by the generation config"); model().save_pretrained(f); change(f, "generation_config.json", eos_token_id=[2, 7], pad_token_id=5)
    f = folder("no generation config"); model().save_pretrained(f); os.remove(f / "generation_config.json")
    for name in ("LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast"):
        for template in (None, "bos", "none"):
            f = folder(f"{name} {template}"); model().save_pretrained(f); tokenizer(f, name, template)
    f = folder("flags against the template"); model().save_pretrained(f); tokenizer(f, "LlamaTokenizer", "bos", add_bos_token=False, add_eos_token=True)
    f = folder("tokenizer without bos, saved"); model(vocab_size=263).save_pretrained(f); tokenizer(f, "LlamaTokenizer", "bos", with_bytes=True)
    t = AutoTokenizer.from_pretrained(f, add_bos_token=False); t.chat_template = "{{ messages[0].content }}"; t.save_pretrained(f)
    f = folder("tokenizer with both, saved"); model().save_pretrained(f); tokenizer(f, "PreTrainedTokenizerFast", "bos")
    AutoTokenizer.from_pretrained(f, add_eos_token=True).save_pretrained(f)


def numbers(x):
    return [float(v) for v in x]


def read(folder):
    out = {}
    try:
        m, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except Exception as e:
        return {"refused": type(e).__name__}
    if info["missing_keys"]:  # transformers makes their values up
        return {"refused": f"missing {sorted(info['missing_keys'])}"}
    out["frequencies"] = numbers(m.model.rotary_emb.inv_freq)
    out["weights"] = {k: float(v.double().sum()) for k, v in m.state_dict().items() if not (k == "lm_head.weight" and v.data_ptr() == m.model.embed_tokens.weight.data_ptr())}
    ends = m.generation_config.eos_token_id
    out["eos"] = ends if isinstance(ends, list) else [ends]
    if (folder / "tokenizer.json").exists():
        t = AutoTokenizer.from_pretrained(folder)
        out["ids"] = [t(text).input_ids for text in TEXTS]
        out["chat_template"] = t.chat_template or ""
    return out


def main():
    root = pathlib.Path(sys.argv[2])
    if sys.argv[1] == "make":
        return make(root)
    cases = []
    for folder in sorted(root.iterdir()):
        files = {p.name: base64.b64encode(p.read_bytes()).decode() for p in sorted(folder.iterdir())}
        cases.append(dict(name=folder.name, files=files, want=read(folder)))
        print(folder.name, {k: v for k, v in cases[-1]["want"].items() if k != "weights"})
    path = pathlib.Path(__file__).parent.parent / "llama" / "modelfile" / "testdata" / "folders.json.gz"
    path.parent.mkdir(exist_ok=True)
    with gzip.GzipFile(path, "wb", mtime=0) as f:
        f.write(json.dumps(dict(transformers=transformers.__version__, texts=TEXTS, cases=cases)).encode())
    print(len(cases), "folders,", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
