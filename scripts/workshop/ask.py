"""Has N clients ask one kvq serve at once: ask.py [--clients N] [--tokens T] [KVQ SERVE OPTION...]

Each asks for a greedy continuation of a prompt of its own; where several caches are served (--preset full,lowest), one
client asks for the first, the next for the second, and so on. First a server answers one client after the other; a fresh one
then answers all at once. The texts have to be the same, but where the two best tokens' log probabilities lie within 1e-4:
other rows may change the last bits of a sum. It prints the times to the first token. Exit status 1 if a text is wrong or
a request failed.
"""

import argparse
import atexit
import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

PORT = 18810
NEAR = 1e-4  # of log probabilities
# No two begin with the same token: a row that holds a beginning already would read the rest only.
PROMPTS = """Once upon a time there was
The capital of France
A kitchen needs
Water boils when
My favourite season
In the year 1969
Every good story
Sailors often say
Light travels faster
Birds fly south because
How to bake bread:
Music begins where
To learn a language
Mountains are formed
Books open
Yesterday the weather
Nobody knows why
Computers count in
We went to the market
Children like""".splitlines()


def serve(folder, options):
    token = folder / "token"
    command = [os.environ["KVQ_ROOT"] + "/bin/kvq", "serve", "--listen", f"127.0.0.1:{PORT}", "--token-file", str(token), *options]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    atexit.register(server.kill)  # does nothing where it has ended
    end = time.monotonic() + 600  # several caches are compiled before it answers
    while time.monotonic() < end and server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {token.read_text().strip()}"})
            response = connection.getresponse()
            if response.status == 200:
                return server, token.read_text().strip(), [m["id"] for m in json.load(response)["data"]]
        except OSError:
            pass
        time.sleep(0.2)
    server.kill()
    raise RuntimeError("kvq serve did not answer: " + (folder / "log").read_text()[-2000:])


def ask(token, model, prompt, tokens):
    """Tokens, the gap of the two best log probabilities at each, and the seconds to the first and the last."""
    begin, first = time.monotonic(), None
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=300)
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 2, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read()[:300]!r}")
    text, pieces, gaps = "", [], []
    for line in response:
        line = line.decode().strip()
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(str(event["error"]))
        for choice in event["choices"]:
            text += choice["text"]
            logs = choice.get("logprobs") or {}
            pieces += logs.get("tokens") or []
            for best in logs.get("top_logprobs") or []:
                two = sorted(best.values(), reverse=True)
                gaps.append(two[0] - two[1] if len(two) > 1 else float("inf"))
            if pieces and first is None:
                first = time.monotonic() - begin
    if len(pieces) == 0 or len(pieces) != len(gaps):
        raise RuntimeError(f"{len(pieces)} tokens and {len(gaps)} log probabilities came")
    return text, pieces, gaps, first, time.monotonic() - begin


def verdict(alone, together):
    """None for the same tokens, or those that part where two are nearly as likely; else what is wrong."""
    a, b = alone[1], together[1]
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            gap = min(alone[2][i], together[2][i])
            return None if gap <= NEAR else f"token {i} is {y!r}, alone {x!r}, and the two best are {gap:.2g} apart"
    return None if len(a) == len(b) else f"{len(b)} tokens, alone {len(a)}"


def figures(label, answers):
    first, last = [a[3] for a in answers], [a[4] for a in answers]
    print(f"{label}: first token after {statistics.median(first):.2f} s (median), {max(first):.2f} s (worst); "
          f"whole text after {statistics.median(last):.2f} s, {max(last):.2f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split(": ", 1)[1].split("\n")[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=24)
    args, options = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the server, as Ctrl-C does
    if not 1 <= args.clients <= len(PROMPTS):
        parser.error(f"wanted 1 to {len(PROMPTS)} clients, came {args.clients}")
    prompts = PROMPTS[: args.clients]
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        answers = {}
        for name in ("alone", "together"):
            server, token, models = serve(pathlib.Path(folder), options)
            try:
                for model in models:
                    ask(token, model, "Zebras", 2)  # compiles what a fresh server compiles at its first request of this kind
                many = 1 if name == "alone" else len(prompts)
                with concurrent.futures.ThreadPoolExecutor(many) as pool:
                    begin = time.monotonic()
                    waits = [pool.submit(ask, token, models[i % len(models)], prompt, args.tokens) for i, prompt in enumerate(prompts)]
                    answers[name] = []
                    for prompt, wait in zip(prompts, waits):
                        try:
                            answers[name].append(wait.result())
                        except Exception as error:
                            failures.append(f"{name}, {prompt!r}: {error}")
                    seconds = time.monotonic() - begin
                figures(f"{len(prompts)} clients {'one after the other' if many == 1 else 'at once'}, {seconds:.1f} s in all", answers[name])
            finally:
                server.send_signal(signal.SIGTERM)
                try:
                    server.wait(15)
                except subprocess.TimeoutExpired:
                    server.kill()
    print(f"caches: {', '.join(models)}")
    if not failures:
        parted = 0
        for prompt, alone, together in zip(prompts, answers["alone"], answers["together"]):
            wrong = verdict(alone, together)
            if wrong:
                failures.append(f"{prompt!r}: {wrong}")
            parted += alone[1] != together[1]
        print(f"texts: {len(prompts) - parted} the same, {parted} part where two tokens are nearly as likely" if not failures else "texts differ")
    print(f"failures: {len(failures) or 'none'}")
    for failure in failures:
        print(" ", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
