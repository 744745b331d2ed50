"""A child process that speaks vLLM's HTTP API for the shim's side, without a model: deterministic letters, one token a
byte, continuous batching in steps, priorities, aborts of requests whose client has gone.

`--step-interval` and `--max-num-seqs` pace it; `--startup` seconds pass before it listens; `--prefill` steps go by
before a first token; the first request that is sampled, and the first with log probabilities, take `--compile` seconds.
`--die-with FILE` prints the file and exits with `--exit-code`, at once or at the prompt `--die-at`; with `--linger` it
answers 500 instead. With `--enable-sleep-mode` and VLLM_SERVER_DEV_MODE it can be put to sleep, in which it generates
nothing; with `--insomnia` it refuses. SIGUSR1 makes its generation loop hang while the server lives, SIGUSR2 lets it go
on. GET /seen tells the bodies it got.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

END_TOKEN = 1
FIRST_BYTE = 3
LETTERS = b"etaoin shrdlu "
VOCABULARY = 512
CONTEXT = 8192


@dataclass(eq=False)
class Sequence:
    ids: list[int]
    prompt: int
    limit: int
    priority: int
    body: dict[str, Any]
    prefill: int
    text: str = ""
    news: asyncio.Queue[tuple[str, int, str | None]] = field(default_factory=asyncio.Queue)

    def step(self) -> bool:
        """Generate one token; whether it was the last."""
        if self.prefill > 0:
            self.prefill -= 1
            return False
        token = self.choose()
        self.ids.append(token)
        text = chr(token - FIRST_BYTE) if token >= FIRST_BYTE else ""
        self.text += text
        stopped = any(self.text.endswith(stop) for stop in self.body.get("stop") or [])
        ended = stopped or (token == END_TOKEN and not self.body.get("ignore_eos"))
        reason = "stop" if ended else "length" if len(self.ids) - self.prompt >= self.limit else None
        self.news.put_nowait((text, token, reason))
        return reason is not None

    def choose(self) -> int:
        seed = 0
        if self.body.get("temperature", 1) > 0:
            seed = int(self.body.get("seed") or time.monotonic_ns())
        drawn = (sum(self.ids) * 31 + len(self.ids) * 7 + seed * (len(self.ids) + 1)) % 1009
        return END_TOKEN if seed and drawn < 5 else FIRST_BYTE + LETTERS[drawn % len(LETTERS)]


class Engine:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.steps = 0
        self.hanging = False
        self.asleep = False
        self.compiled = set[str]()
        self.seen: list[dict[str, Any]] = []
        self.told = ""
        """The gauges as the loop last said them; in vLLM loop and server are two processes."""
        self.loop_task: asyncio.Task[None] | None = None

    async def loop(self) -> None:
        while True:
            await asyncio.sleep(self.options.step_interval)
            if self.hanging or self.asleep:
                continue
            self.told = self.gauges()
            if not (self.running or self.waiting):
                continue
            self.waiting.sort(key=lambda each: each.priority)
            while self.waiting and len(self.running) < self.options.max_num_seqs:
                self.running.append(self.waiting.pop(0))
            self.steps += 1
            self.running = [each for each in self.running if not each.step()]

    def abort(self, sequence: Sequence) -> None:
        for queue in (self.waiting, self.running):
            if sequence in queue:
                queue.remove(sequence)

    def refusal(self, body: dict[str, Any], ids: list[int]) -> str | None:
        if body["model"] != self.options.served_model_name:
            return "The model does not exist."
        if body.get("priority") and self.options.scheduling_policy != "priority":
            return "Got priority but Priority scheduling is not enabled."
        if any(token >= VOCABULARY for token in ids):
            return "Token id 512 is out of vocabulary"
        if len(ids) + (body.get("max_tokens") or 1) > CONTEXT:
            return f"This model's maximum context length is {CONTEXT} tokens. However, you requested more."
        return None

    async def answer(self, request: web.Request, chat: bool) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        if chat:
            prompt = "".join(f"<{each['role']}>{each['content']}" for each in body["messages"]) + "<assistant>"
        else:
            prompt = body["prompt"]
        if self.options.die_at is not None and self.options.die_at == prompt:
            die(self.options)
            return web.json_response({"error": {"message": "EngineCore encountered an issue."}}, status=500)
        ids = [FIRST_BYTE + byte for byte in prompt.encode()] if isinstance(prompt, str) else list(prompt)
        if (message := self.refusal(body, ids)) is not None:
            error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
            return web.json_response({"error": error}, status=400)
        limit = body.get("max_tokens") or CONTEXT - len(ids)
        sequence = Sequence(ids, len(ids), limit, body.get("priority", 0), body, self.options.prefill)
        prompt_ids = list(ids)
        self.compile(body)
        self.waiting.append(sequence)
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        try:
            await self.stream(response, sequence, prompt_ids, chat)
        finally:
            self.abort(sequence)
        return response

    def compile(self, body: dict[str, Any]) -> None:
        """As vLLM does: stop everything for a while at the first request of a kind."""
        kinds = {
            name for name, asked in (("sample", body.get("temperature")), ("logprobs", "logprobs" in body)) if asked
        }
        if kinds - self.compiled:
            time.sleep(self.options.compile)
        self.compiled |= kinds

    async def stream(self, response: web.StreamResponse, sequence: Sequence, prompt_ids: list[int], chat: bool) -> None:
        told = {"prompt_token_ids": prompt_ids} if sequence.body.get("return_token_ids") else {}
        reason, first = None, True
        while reason is None:
            text, token, reason = await sequence.news.get()
            choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "token_ids": [token]}
            choice["logprobs"] = logprobs(sequence.body, text, chat)
            if chat:
                if first:
                    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                    await send(response, {"object": "chat.completion.chunk", "choices": [role], **told})
                await send(
                    response, {"object": "chat.completion.chunk", "choices": [{**choice, "delta": {"content": text}}]}
                )
            else:
                extra = told if first else {}
                await send(response, {"object": "text_completion", "choices": [{**choice, "text": text, **extra}]})
            first = False
        await response.write(b"data: [DONE]\n\n")

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request, chat=True)

    async def sleep(self, request: web.Request) -> web.Response:
        if self.options.insomnia:
            return web.json_response({"error": {"message": "Sleep mode is not enabled."}}, status=500)
        assert request.query["level"] == "1"
        self.asleep = True
        return web.json_response({"status": "sleeping", "level": 1})

    async def wake(self, _: web.Request) -> web.Response:
        self.asleep = False
        return web.json_response({"status": "awake", "tags": None})

    def gauges(self) -> str:
        name = f'engine="0",model_name="{self.options.served_model_name}"'
        lines = [
            f"vllm:num_requests_running{{{name}}} {float(len(self.running))}",
            f"vllm:num_requests_waiting{{{name}}} {float(len(self.waiting))}",
            f"vllm:kv_cache_usage_perc{{{name}}} {0.001 * self.steps % 1 if self.running else 0.0}",
        ]
        return "\n".join(lines) + "\n"

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self.told)

    async def models(self, _: web.Request) -> web.Response:
        model = {"id": self.options.served_model_name, "object": "model", "max_model_len": CONTEXT}
        return web.json_response({"object": "list", "data": [model]})

    async def tell_seen(self, _: web.Request) -> web.Response:
        return web.json_response(self.seen)

    async def begin(self, _: web.Application) -> None:
        self.loop_task = asyncio.create_task(self.loop())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, setattr, self, "hanging", True)
        loop.add_signal_handler(signal.SIGUSR2, setattr, self, "hanging", False)


async def send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


async def health(_: web.Request) -> web.Response:
    return web.Response()


def logprobs(body: dict[str, Any], token: str, chat: bool) -> dict[str, Any] | None:
    """As vLLM tells them: in completions one more than was asked for, the chosen token among them."""
    count = body.get("top_logprobs" if chat else "logprobs")
    if count is None:
        return None
    told = {token: -0.5, **{letter: -1.0 - number for number, letter in enumerate("xyz"[:count])}}
    if not chat:
        return {"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": [told], "text_offset": [0]}
    top = [{"token": each, "logprob": value, "bytes": list(each.encode())} for each, value in told.items()]
    return {"content": [{**top[0], "top_logprobs": top[:count]}]}


def die(options: argparse.Namespace) -> None:
    sys.stderr.write(Path(options.die_with).read_text())
    sys.stderr.flush()
    if not options.linger:
        os._exit(options.exit_code)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--enable-sleep-mode", action="store_true")
    parser.add_argument("--max-logprobs", type=int, default=20)
    parser.add_argument("--insomnia", action="store_true")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--scheduling-policy", default="fcfs")
    parser.add_argument("--disable-uvicorn-access-log", action="store_true")
    parser.add_argument("--step-interval", type=float, default=0.001)
    parser.add_argument("--max-num-seqs", type=int, default=64)
    parser.add_argument("--startup", type=float, default=0.0)
    parser.add_argument("--prefill", type=int, default=0)
    parser.add_argument("--compile", type=float, default=0.0)
    parser.add_argument("--die-with")
    parser.add_argument("--die-at")
    parser.add_argument("--linger", action="store_true")
    parser.add_argument("--exit-code", type=int, default=1)
    options = parser.parse_args()
    print("stand-in: starting", flush=True)
    if options.die_with and options.die_at is None:
        die(options)
    time.sleep(options.startup)
    engine = Engine(options)
    app = web.Application(client_max_size=1 << 24)
    app.on_startup.append(engine.begin)
    app.add_routes(
        [
            web.post("/v1/completions", engine.completions),
            web.post("/v1/chat/completions", engine.chat),
            web.get("/v1/models", engine.models),
            web.get("/metrics", engine.metrics),
            web.get("/seen", engine.tell_seen),
            web.get("/health", health),
        ]
    )
    if options.enable_sleep_mode and os.environ.get("VLLM_SERVER_DEV_MODE") == "1":
        app.add_routes([web.post("/sleep", engine.sleep), web.post("/wake_up", engine.wake)])
    web.run_app(app, host=options.host, port=options.port, print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
