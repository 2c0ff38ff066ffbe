"""What a side of `kvq bench peers` is to the other end of the pipe: lines of JSON, see internal/bench/side.go."""
import json
import os
import sys
import time


def status(field):
    """A line of /proc/self/status in bytes."""
    for line in open("/proc/self/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    return 0


def reset_peak():
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        pass  # then the peak is that of the whole process


def serve(model, versions, device, gpu=False):
    """Answers requests with model.prefill(ids) -> token, model.decode(n) -> tokens, model.forget() -> cache bytes or None. Batch 1."""
    before = 0
    reply(dict(versions=versions, device=device, gpu=gpu))
    for line in sys.stdin:
        request = json.loads(line)
        op, answer = request["op"], {}
        try:
            if op == "prefill":
                if len(request["ids"]) != 1:
                    raise ValueError(f"{len(request['ids'])} prompts, want one")
                model.forget()
                reset_peak()
                before = status("VmRSS")
                start = time.perf_counter()
                token = model.prefill(request["ids"][0])
                answer = dict(seconds=time.perf_counter() - start, tokens=[[token]])
            elif op == "decode":
                start = time.perf_counter()
                tokens = model.decode(request["tokens"])
                answer = dict(seconds=time.perf_counter() - start, tokens=[tokens], made=len(tokens))
            elif op == "end":
                answer = dict(cache_bytes=model.forget() or 0)
            else:
                raise ValueError(f"request {op!r}, want prefill, decode or end")
        except Exception as e:  # the other end decides what to do about it
            answer = dict(error=" ".join(f"{type(e).__name__}: {e}".split()))
        reply(answer | dict(before_bytes=before, peak_bytes=status("VmHWM")))


# Libraries print what they like to standard output; replies keep the pipe for themselves.
pipe = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def reply(answer):
    pipe.write(json.dumps(answer) + "\n")
    pipe.flush()
