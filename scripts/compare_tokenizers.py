"""Makes the golden values of package tokenizer with Hugging Face's tokenizers, sentencepiece and Jinja2.

Called by scripts/compare-tokenizers. Writes, into --out:
  llama2-tokenizer.json.gz, llama2-tokenizer.model.gz   Llama-2's tokenizer in both formats, made from the vocabulary and
                                                        merges that llama-tokenizer-js (npm, MIT) carries
  cases.json.gz                                         texts, and what each tokenizer makes of them
"""
import argparse, base64, gzip, json, pathlib, random, re, struct, sys, tarfile, unicodedata

import gguf
import jinja2, jinja2.ext, jinja2.sandbox
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as spm
from tokenizers import Tokenizer


# ---- Vocabularies.

def smollm2(path):
    """tokenizer.json of SmolLM2, from its GGUF file: BPE, digits one by one, GPT-2's pattern on bytes."""
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i, t) for i, (t, k) in enumerate(zip(tokens, kinds)) if k == 3],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)},
                  "merges": fields["tokenizer.ggml.merges"].contents()},
    }


def added(id, content, **flags):
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True} | flags


def llama2(tarball):
    """tokenizer.json and tokenizer.model of Llama-2, and the package's own test cases."""
    source = tarfile.open(tarball).extractfile("package/llama-tokenizer.js").read().decode()
    constant = lambda name: base64.b64decode(re.search(rf'const {name} = "([^"]*)"', source)[1])
    pieces = constant("llama_vocab_base64").decode().split("\n")
    binary = constant("llama_merges_binary")
    merges = [(pieces[a], pieces[b]) for a, b in struct.iter_unpack("<HH", binary)]
    assert len(pieces) == 32000 and pieces[:3] == ["<unk>", "<s>", "</s>"] and pieces[13] == "<0x0A>"

    # Scores are the order of the pieces, but all runs of blanks come last: the only scores that give the merges.
    blanks = lambda piece: len(piece) > 1 and set(piece) == {"▁"}
    score = lambda i: 0.0 if i < 259 else -1e9 if blanks(pieces[i]) else -float(i - 259)
    model = spm.ModelProto()
    for i, piece in enumerate(pieces):
        kind = 2 if i == 0 else 3 if i < 3 else 6 if i < 259 else 1
        model.pieces.add(piece=piece, score=score(i), type=kind)
    t, n = model.trainer_spec, model.normalizer_spec
    t.model_type, t.vocab_size, t.byte_fallback, t.unk_id, t.bos_id, t.eos_id, t.pad_id = 2, len(pieces), True, 0, 1, 2, -1
    n.name, n.add_dummy_prefix, n.remove_extra_whitespaces = "identity", True, False

    # The merges follow from pieces and scores, as transformers' SentencePieceExtractor makes them: that both agree says
    # that the model above is the one the merges were made from.
    ids = {p: i for i, p in enumerate(pieces)}
    pairs = [(-score(id), ids[p[:i]], ids[p[i:]]) for id, p in enumerate(pieces) if id >= 259
             for i in range(1, len(p)) if p[:i] in ids and p[i:] in ids]
    derived = [(pieces[a], pieces[b]) for _, a, b in sorted(pairs)]
    assert derived == merges, "merges and pieces of llama-tokenizer-js disagree"

    file = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i, pieces[i]) for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True,
                  "vocab": ids, "merges": [f"{a} {b}" for a, b in merges]},
    }
    return file, model, own_cases(source)


def own_cases(source):
    """testCase("text", [ids]) of the package, in JavaScript's notation."""
    cases = []
    for quote, text, numbers in re.findall(r'^\s*testCase\((["\'])(.*?)\1,\s*\[([\d,\s]*)\]\)', source, re.M | re.S):
        text = text.replace("\\'", "'")
        text = json.loads('"' + text.replace("\t", "\\t").replace('\\"', '"').replace('"', '\\"') + '"')
        cases.append({"text": text, "ids": [int(x) for x in numbers.split(",")]})
    assert len(cases) == 12, len(cases)
    return cases


# ---- Tokenizers to compare: a vocabulary, and what is changed about its tokenizer.json.

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
VARIANTS = {
    "smollm2": ("smollm2", {}),
    "gpt2": ("smollm2", {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}),
    # Llama-3's pipeline on SmolLM2's vocabulary.
    "llama3": ("smollm2", {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}, BYTES]},
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            {"type": "TemplateProcessing",
             "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}}]},
        "model": {"ignore_merges": True}}),
    # Qwen2's and Qwen3's pipeline on SmolLM2's vocabulary, as transformers' Qwen2Converter has it.
    "qwen2": ("smollm2", {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")}, "behavior": "Isolated", "invert": False}, BYTES]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}}),
    "added": ("smollm2", {"normalizer": {"type": "NFC"}, "added_tokens": [
        added(1, "<|im_start|>", rstrip=True), added(2, "<|im_end|>", lstrip=True),
        added(49152, "donx", special=False, single_word=True), added(49153, "Café", special=False, normalized=True),
        added(49154, "<|im_start|><|im_end|>", special=False)]}),
    "llama2": ("llama2", {}),
    # As Mistral's and newer files have it: the blank only at the beginning of the text.
    "mistral": ("llama2", {"normalizer": None, "pre_tokenizer": {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}}),
    "metaspace": ("llama2", {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}}),
}


def merged(base, patch):
    """JSON merge patch, but null stays: it means that a stage is absent."""
    return {k: merged(v, patch[k]) if isinstance(v, dict) and isinstance(patch.get(k), dict) and k == "model"
            else patch.get(k, v) for k, v in base.items()}


# ---- Texts.

PHRASES = """
Hello, how are you?|I am going to subscribe to this channel because|It's 2024; they're 12,345.67 % sure — aren't we?
Съешь ещё этих мягких французских булок, да выпей же чаю.|Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.|نص حكيم له سر قاطع وذو شأن عظيم
דג סקרן שט בים מאוכזב ולפתע מצא חברה|ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण|เป็นมนุษย์สุดประเสริฐเลิศคุณค่า
我能吞下玻璃而不伤身体。|いろはにほへと ちりぬるを|다람쥐 헌 쳇바퀴에 타고파|Đừng bỏ cuộc, tiếng Việt có dấu!|Příliš žluťoučký kůň úpěl ďábelské ódy
Ֆուտբոլ գնդակ|საქართველო მშვენიერია|ሰላም ለዓለም|யாமறிந்த மொழிகளிலே|ಕನ್ನಡ ನುಡಿ|မြန်မာဘာသာ|ភាសាខ្មែរ|བོད་སྐད|ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ|𐍆𐌹𐍃𐌺𐍃 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚
🦙🦙 llama 👩‍👩‍👧‍👦 👍🏽 🇫🇷🇩🇪 ❤️‍🔥 🏴󠁧󠁢󠁳󠁣󠁴󠁿 1️⃣|٠١٢٣٤٥٦٧٨٩ ०१२३ ⅫⅣ ½¾ ²³ ①② ㊿ ༣ 𝟗|1 22 333 4444 55555 1234567890 3.14e-10 0xFF 1_000
def f(x):\\n\\treturn {'a': [1, 2], "b": x**2}  # ok?|<div class="x">&amp;</div>|https://example.com/a%20b?q=1&r=%C3%A9#top|SELECT * FROM t WHERE a<>'b';--
I'll I'LL we've WE'VE don't DON'T it's IT'S he'd HE'D 'tis rock'n'roll ''quotes''|donx donx't adonx donx_x donx. donxy|Café Cafe\u0301 CAFÉ
<s>[INST] <<SYS>>\\nBe kind.\\n<</SYS>>\\n\\nHi [/INST] Hello </s>|<s> </s> <unk> <0x41> <0x0A>|<|im_start|>user\\nHi<|im_end|>\\n  <|im_start|>  x  <|im_end|>  y|<|endoftext|> <|im_start|><|im_end|>
▁under ▁▁ score▁|\u00a0nbsp\u2003em\u3000ideographic\u2028line\u2029par\u0085nel\u200bzw\ufeffbom\u1680ogham|\\r\\n\\r\\nwin\\r\\n mac\\r old|\x00\x01\x1b[31mred\x7f\x80\x9f|e\u0301 n\u0303 a\u0308\u0323 \u1112\u1161\u11ab|ﬁ ﬂ ǆ ſ ß ẞ İ ı
""".strip()


def texts(count, seed):
    rng = random.Random(seed)
    phrases = [p.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t") for line in PHRASES.split("\n") for p in line.split("|")]
    out = ["", " ", "  ", "\n", "\n\n", " \n", "\t", "a", " a", "a ", "▁", "▁▁a", " " * 33, "\n" * 17, "a" * 100, "ab " * 50, "=" * 70] + phrases
    # Characters that are assigned in this Python's Unicode, without private ones and surrogates.
    assigned = [c for c in range(0x20, 0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Co", "Cs")]
    blanks = [" ", "  ", "   ", "\t", "\n", "\n\n", " \n ", "\r\n", "\u00a0", "\u3000", "\u2009", "\x0b", "\x0c", "\x85", " " * 7, " " * 40]
    while len(out) < count:
        parts = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.random()
            phrase = rng.choice(phrases)
            if kind < 0.35:
                start = rng.randrange(len(phrase) + 1)
                parts.append(phrase[start:start + rng.randint(1, 30)])
            elif kind < 0.55:
                parts.append(rng.choice(blanks))
            elif kind < 0.65:
                parts.append("".join(chr(rng.choice(assigned)) for _ in range(rng.randint(1, 8))))
            elif kind < 0.72:
                parts.append("".join(chr(rng.randrange(0x250)) for _ in range(rng.randint(1, 12))))
            elif kind < 0.80:
                parts.append(str(rng.randrange(10 ** rng.randint(1, 12))))
            elif kind < 0.86:
                parts.append(rng.choice(["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<0xE4>", "[INST]"]))
            else:
                parts.append(rng.choice(phrase.split() or ["x"]) + rng.choice(["", ".", ",", "!", "'s", "'LL", "…", ")", "_", "-"]))
        out.append("".join(parts))
    return out[:count]


def id_lists(count, size, seed):
    """Random ids: mostly no text that anyone would write, with broken characters."""
    rng = random.Random(seed)
    return [[rng.randrange(min(size, 400)) if rng.random() < 0.5 else rng.randrange(size) for _ in range(rng.randint(0, 12))] for _ in range(count)]


# ---- Chat templates, rendered as transformers does (utils/chat_template_utils.py).

def render(template, messages, add_generation_prompt, **special):
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    env.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: "26 Jul 2024"
    try:
        return env.from_string(template).render(messages=messages, tools=None, documents=None,
                                                add_generation_prompt=add_generation_prompt, **special)
    except jinja2.exceptions.TemplateError as e:
        return {"error": str(e)}


def chat_cases(folder):
    conversations = [
        [{"role": "user", "content": "Hi"}],
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "  Who are you? "}],
        [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": " 4 "}, {"role": "user", "content": "Sure?\nReally {{ sure }}?"}],
        [{"role": "system", "content": "S"}, {"role": "user", "content": "你好 🦙"}, {"role": "assistant", "content": "<b>'\"&"}],
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "assistant", "content": "first"}],
    ]
    out = []
    for path in sorted(folder.glob("*.jinja")):
        for messages in conversations:
            for prompt in (False, True):
                out.append({"template": path.name, "messages": messages, "add_generation_prompt": prompt,
                            "result": render(path.read_text(), messages, prompt, bos_token="<s>", eos_token="</s>")})
    return out


def main():
    args = argparse.ArgumentParser()
    for name in ("model", "llama", "out"):
        args.add_argument("--" + name, required=True)
    args.add_argument("--texts", type=int, required=True)
    args = args.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    def save(name, data):
        # No time stamp in the header: the same input gives the same file.
        (out / name).write_bytes(gzip.compress(data, 9, mtime=0))

    compact = lambda x: json.dumps(x, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    llama_file, llama_model, own = llama2(args.llama)
    files = {"smollm2": smollm2(args.model), "llama2": llama_file}
    save("llama2-tokenizer.json.gz", compact(llama_file))
    save("llama2-tokenizer.model.gz", llama_model.SerializeToString())

    small = Tokenizer.from_str(json.dumps(llama_file))
    for case in own:
        assert small.encode(case["text"]).ids == case["ids"], case

    all_texts = texts(args.texts, seed=1)
    results = {"origin": "scripts/compare_tokenizers.py with tokenizers 0.22.2, sentencepiece 0.2.1 and jinja2 3.1.6",
               "texts": all_texts, "llama_tokenizer_js": own, "tokenizers": {}}
    for name, (base, patch) in VARIANTS.items():
        t = Tokenizer.from_str(json.dumps(merged(files[base], patch)))
        encoded = [t.encode(x).ids for x in all_texts]
        bare = [t.encode(x, add_special_tokens=False).ids for x in all_texts[:50]]
        random_ids = id_lists(max(50, args.texts // 10), t.get_vocab_size(), seed=2)
        results["tokenizers"][name] = {
            "base": base, "patch": patch, "ids": encoded, "bare_ids": bare,
            "decoded": [t.decode(i, skip_special_tokens=False) for i in encoded],
            "skipped": [t.decode(i, skip_special_tokens=True) for i in encoded],
            "random_ids": random_ids, "random_decoded": [t.decode(i, skip_special_tokens=False) for i in random_ids]}
    # Where a text comes back unchanged, only that is noted.
    for r in results["tokenizers"].values():
        for key in ("decoded", "skipped"):
            r[key] = {str(i): d for i, (x, d) in enumerate(zip(all_texts, r[key])) if x != d}

    processor = sentencepiece.SentencePieceProcessor(model_proto=llama_model.SerializeToString())
    results["sentencepiece"] = [processor.encode(x) for x in all_texts]
    results["chat"] = chat_cases(pathlib.Path(__file__).parent.parent / "tokenizer" / "testdata" / "chat")
    save("cases.json.gz", compact(results))
    print(f"{out}: {len(all_texts)} texts, {len(VARIANTS)} tokenizers and sentencepiece, {len(results['chat'])} chats")


if __name__ == "__main__":
    sys.exit(main())
