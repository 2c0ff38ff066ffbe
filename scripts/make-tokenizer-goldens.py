#!/usr/bin/env python3
"""Makes tokenizer/testdata/classes.json.gz: tokenizer folders, and the ids and texts of transformers 5.

transformers makes some classes' stages anew, whatever tokenizer.json says: by tokenizer_class, by the
model's type, and by fields of tokenizer_config.json. Each case is a folder that differs in one of these.

    python3 -m venv .venv && .venv/bin/pip install transformers==5.24.0 tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
    .venv/bin/python scripts/make-tokenizer-goldens.py
"""
import base64
import gzip
import io
import json
import pathlib
import tempfile

import sentencepiece
import transformers
from transformers import AutoTokenizer

transformers.logging.set_verbosity_error()
TEXTS = ["ab 11", "<s>ab</s>ab <s> b", " ab", "  ab  ", "", "a\nb é", "[X]ab ab", "e\u0301a 123 45", "<pad>ab<|endoftext|>", "a\tb\r\n"]
SPECIAL = ["<unk>", "<s>", "</s>"]
NAMES = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_characters():
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def template(*framed):
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": t, "type_id": 0}} for t in framed] + [{"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {t: {"id": t, "ids": [SPECIAL.index(t)], "tokens": [t]} for t in framed}}


def added(vocab, *more):
    return [dict(id=vocab[t], content=t, special=t != "[X]", single_word=False, lstrip=False, rstrip=False, normalized=False) for t in SPECIAL + list(more)]


def file(vocab, merges, normalizer, pre, post, decoder, more=(), **model):
    return dict(version="1.0", truncation=None, padding=None, added_tokens=added(vocab, *more), normalizer=normalizer, pre_tokenizer=pre, post_processor=post,
                decoder=decoder, model=dict(type="BPE", dropout=None, unk_token="<unk>", continuing_subword_prefix=None, end_of_word_suffix=None,
                                            fuse_unk=True, byte_fallback=True, vocab=vocab, merges=merges) | model)


def tokenizer_files():
    pieces = SPECIAL + ["a", "b", "▁", "1", "ab", "▁a", "▁ab", "▁▁", "ab▁", "11", "\n", "é"]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    sp = {t: i for i, t in enumerate(pieces + bytes_ + ["[X]", "<pad>"])}
    bare = {t: i for i, t in enumerate(pieces)}
    merges = [["a", "b"], ["▁", "ab"], ["▁", "a"], ["▁", "▁"], ["ab", "▁"], ["1", "1"]]
    strip = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                              {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    prepend = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    metaspace = lambda scheme: {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}
    level = lambda regex: {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}
    text = byte_characters()
    bl = {t: i for i, t in enumerate(SPECIAL + text + ["ab", "Ġa", "Ġab", "11", "ĠĠ", "Ġ1", "[X]", "<pad>", "<|endoftext|>"])}
    blm = [["a", "b"], ["Ġ", "ab"], ["Ġ", "a"], ["1", "1"], ["Ġ", "Ġ"], ["Ġ", "1"]]
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level(True)]}
    split = {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\p{L}+| "}, "behavior": "Isolated", "invert": False}, level(False)]}
    return {
        "prepend": file(sp, merges, prepend, None, template("<s>"), strip, ["[X]", "<pad>"]),
        "never": file(sp, merges, None, metaspace("never"), template("<s>", "</s>"), strip, ["[X]"]),
        "first": file(sp, merges, None, metaspace("first"), template(), strip, ["[X]"]),
        "no bytes": file(bare, merges, prepend, None, template("<s>"), strip, byte_fallback=False),
        "no post-processor": file(sp, merges, prepend, None, None, strip),
        "digits": file(bl, blm, None, digits, template("<s>"), level(True), ["[X]", "<|endoftext|>"], byte_fallback=False, unk_token=None, fuse_unk=False),
        "split": file(bl, blm, None, split, template("<s>"), level(True), ["[X]", "<pad>", "<|endoftext|>"], byte_fallback=False, unk_token=None, fuse_unk=False, ignore_merges=True),
    }


def sentencepiece_model():
    out = io.BytesIO()
    lines = ["ab ab a b 11 1", "abba baab  ab", "a b ab 1 11 111"] * 20
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=275, byte_fallback=True, hard_vocab_limit=False,
                                             normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True, minloglevel=2)
    return out.getvalue()


def cases(files):
    flags = [{}, {"legacy": True}, {"legacy": False}, {"legacy": None}, {"add_prefix_space": False}, {"add_prefix_space": True, "legacy": True},
             {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False}]
    sp = [f for f in files if f not in ("digits", "split")]
    for name in files:
        for kind in ("llama", "mistral", "qwen2", "qwen3", None):
            for cls in ("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer", "Qwen2TokenizerFast",
                        "PreTrainedTokenizerFast", "TokenizersBackend", None):
                few = flags if cls == "LlamaTokenizer" and kind in ("llama", "mistral") and name in ("prepend", "never", "no post-processor") else \
                    [{}, {"legacy": True}] if cls and "Llama" in cls else [{}]
                for extra in few:
                    if name in ("never", "no bytes", "no post-processor") and kind in ("qwen2", "qwen3") or (name in sp and cls and cls[0] in "GQ"):
                        continue
                    yield name, kind, cls, extra, {}, NAMES
    for kind in ("llama", "mistral", None):
        for cls in ("LlamaTokenizer", "LlamaTokenizerFast", "TokenizersBackend", None):
            for extra in flags:
                yield "tokenizer.model", kind, cls, extra, {}, NAMES
    added = {"<pad>": 275, "[X]": 276}
    special = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}, "pad_token": "<pad>",
               "additional_special_tokens": ["<|endoftext|>"]}
    for kind, cls in (("llama", "LlamaTokenizer"), ("llama", None), ("mistral", "LlamaTokenizer"), ("qwen3", "PreTrainedTokenizerFast")):
        for name in ("tokenizer.model", "prepend", "first", "split"):
            for more in ({"added_tokens.json": added}, {"special_tokens_map.json": special}, {"added_tokens.json": added, "special_tokens_map.json": special}):
                if name == "prepend" and cls != "LlamaTokenizer" or (name, kind) == ("prepend", "mistral"):
                    more = {n: v for n, v in more.items() if n != "added_tokens.json"}  # decoded with the blank that Prepend gives them: not here
                yield name, kind, cls, {}, more, NAMES
                yield name, kind, cls, {}, more, {}
                yield name, kind, cls, {"added_tokens_decoder": {"275": {"content": "[X]", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False}}}, more, {}
    for name in ("prepend", "digits"):
        for field in (dict(truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}),
                      dict(padding={"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"})):
            yield name, "llama", None, {}, {"tokenizer.json": field}, NAMES


def main():
    files, model = tokenizer_files(), sentencepiece_model()
    done = []
    for name, kind, cls, extra, more, names in cases(files):
        folder = {} if kind is None else {"config.json": dict(model_type=kind, vocab_size=300, hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)}
        folder["tokenizer_config.json"] = extra | names | ({"tokenizer_class": cls} if cls else {})
        with tempfile.TemporaryDirectory() as d:
            d = pathlib.Path(d)
            folder.update({n: v for n, v in more.items() if n != "tokenizer.json"})
            if "tokenizer.json" in more:
                folder["tokenizer.json"] = files[name] | more["tokenizer.json"]
            for n, v in folder.items():
                (d / n).write_text(json.dumps(v))
            if name == "tokenizer.model":
                (d / name).write_bytes(model)
            elif "tokenizer.json" not in folder:
                (d / "tokenizer.json").write_text(json.dumps(files[name]))
            try:
                t = AutoTokenizer.from_pretrained(d)
                ids = [t(x).input_ids for x in TEXTS]
                want = dict(cls=type(t).__name__, ids=ids, texts=[t.decode(i, skip_special_tokens=False, clean_up_tokenization_spaces=False) for i in ids], size=len(t))
            except Exception as e:
                want = dict(refused=f"{type(e).__name__}: {str(e)[:100]}")
        done.append(dict(file=name, kind=kind, cls=cls, extra=extra, folder=folder, want=want))
    out = dict(transformers=transformers.__version__, texts=TEXTS, files=files, model=base64.b64encode(model).decode(), cases=done)
    path = pathlib.Path(__file__).parent.parent / "tokenizer" / "testdata" / "classes.json.gz"
    with gzip.GzipFile(path, "wb", mtime=0) as f:
        f.write(json.dumps(out).encode())
    print(len(done), "folders,", path.stat().st_size, "bytes;", sum("refused" in c["want"] for c in done), "refused")


if __name__ == "__main__":
    main()
