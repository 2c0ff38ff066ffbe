"""Participants whose cells do what cells should not, while the others work."""

import asyncio
import re
import time

from exercises import runner

ENDLESS = """%%
for range 64 {
	go func() {
		for {
		}
	}()
}
fmt.Println("begun")
select {}"""

# Every page is written to, so that it is memory and not only a promise of it.
GREEDY = """%%
var all [][]byte
for {
	b := make([]byte, 64<<20)
	for i := range b {
		b[i] = 1
	}
	all = append(all, b)
	fmt.Println(64*len(all), "MiB")
}"""

AFTER = """%%
fmt.Println("the kernel", "answers")"""


async def answers(user, socket):
    """Whether the kernel runs a next cell."""
    if "the kernel answers" not in runner.text_of(await user.execute(socket, AFTER)):
        user.failed.append("the kernel does not answer after its cell has ended")


async def endless(user, others):
    """A cell on all processors, until the others have finished; then it is interrupted."""
    begin = time.monotonic()
    async with user.kernel() as (kernel, socket):

        async def stop():
            await others.wait()
            await user.interrupt(kernel)

        stopping = asyncio.create_task(stop())
        text = runner.text_of(await user.execute(socket, ENDLESS))
        took = time.monotonic() - begin
        if "begun" not in text or not others.is_set():
            user.failed.append(f"the endless cell ended after {took:.0f} s: {text[-300:]}")
        await stopping
        await answers(user, socket)
    print(f"an endless cell: ran {took:.0f} s beside the others, until it was interrupted", flush=True)


async def greedy(user):
    """A cell that takes memory until it is stopped."""
    begin = time.monotonic()
    async with user.kernel() as (_, socket):
        text = runner.text_of(await user.execute(socket, GREEDY))
        took = time.monotonic() - begin
        most = max(map(int, re.findall(r"^(\d+) MiB$", text, re.M)), default=0)
        why = next((line for line in text.splitlines() if "out of memory" in line or "signal: killed" in line), "")
        if not why or not most:
            user.failed.append(f"the greedy cell was not stopped by a limit: {text[-300:]}")
        await answers(user, socket)
    print(f"a greedy cell: stopped after {took:.0f} s with {most} MiB: {why}", flush=True)
