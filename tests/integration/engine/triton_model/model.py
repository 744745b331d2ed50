"""A decoupled model for Triton's Python backend that takes what its vLLM backend takes, and generates made-up words.

Token ids are bytes; the next one follows from the ids before it, with a temperature also from the seed. So an answer is
always the same, and goes on exactly where its first tokens are given back as `input_ids`. One thread gives a token to
each of up to PLACES requests, then rests for STEP_SECONDS: the others wait. Where the configuration has
`output_ids` and `prompt_ids`, the model tells them.
"""

import json
import threading
import time
import zlib

import numpy as np
import triton_python_backend_utils as pb_utils

PLACES = 8
STEP_SECONDS = 0.015
CONTEXT = 8192
END_ID = 10
LETTERS = b"abcdefghijklmnopqrstuvwxyz     .,"


def next_id(ids, seed):
    """Depends on the last three ids and on how many there are; `seed` None = greedy."""
    mixed = zlib.crc32(repr((ids[-3:], len(ids), seed)).encode())
    return END_ID if mixed % 97 == 0 else LETTERS[mixed // 97 % len(LETTERS)]


class Generation:
    def __init__(self, request):
        self.sender = request.get_response_sender()
        self.flags = {name: bool(self._one(request, name)) for name in ("stream", "exclude_input_in_output")}
        returned = ("finish_reason", "num_input_tokens", "num_output_tokens")
        self.returned = [name for name in returned if self._one(request, f"return_{name}")]
        self.returned += [name for name in ("output_ids", "prompt_ids") if name in request.requested_output_names()]
        text = self._one(request, "text_input")
        given = pb_utils.get_input_tensor_by_name(request, "input_ids")
        self.prompt = list(text) if text is not None else given.as_numpy().tolist()
        fields = json.loads(self._one(request, "sampling_parameters") or "{}")
        self.limit = fields.get("max_tokens", 16)
        if any(id not in range(512) for id in self.prompt):
            raise ValueError(f"Token id {max(self.prompt)} is out of vocabulary")
        if len(self.prompt) + 1 > CONTEXT:
            raise ValueError(f"The prompt is longer than the maximum model length of {CONTEXT}")
        self.stops = fields.get("stop", [])
        self.ignore_eos = fields.get("ignore_eos", False)
        self.seed = fields.get("seed", time.monotonic_ns()) if fields.get("temperature", 1.0) else None
        self.made = []
        self.told = 0

    @staticmethod
    def _one(request, name):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return None if tensor is None else tensor.as_numpy()[0]

    def step(self):
        """Make one token; whether the answer is complete."""
        self.made.append(next_id(self.prompt + self.made, self.seed))
        reason = None
        stopped = any(stop in bytes(self.made).decode() for stop in self.stops)
        if stopped or (self.made[-1] == END_ID and not self.ignore_eos):
            reason = "stop"
        elif len(self.made) >= self.limit:
            reason = "length"
        if self.flags["stream"] or reason:
            self.tell(reason)
        return reason is not None

    def tell(self, reason):
        new, self.told = self.made[self.told :], len(self.made)
        text = bytes(id for id in new if id != END_ID)
        if not self.flags["stream"] and not self.flags["exclude_input_in_output"]:
            text = bytes(self.prompt) + text
        values = {
            "finish_reason": np.array([str(reason).encode()], dtype=np.object_),
            "num_input_tokens": np.array([len(self.prompt)], dtype=np.uint32),
            "num_output_tokens": np.array([len(new)], dtype=np.uint32),
            "output_ids": np.array(new, dtype=np.int32),
            "prompt_ids": np.array(self.prompt, dtype=np.int32),
        }
        tensors = [pb_utils.Tensor("text_output", np.array([text], dtype=np.object_))]
        tensors += [pb_utils.Tensor(name, values[name]) for name in self.returned]
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if reason else 0
        self.sender.send(pb_utils.InferenceResponse(tensors), flags=final)


class TritonPythonModel:
    def initialize(self, args):
        family = pb_utils.MetricFamily(
            name="tiny_requests", description="Requests in the model", kind=pb_utils.MetricFamily.GAUGE
        )
        self.metric = family.Metric(labels={"model": args["model_name"]})
        self.family = family
        self.generations = []
        self.news = threading.Condition()
        self.over = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def execute(self, requests):
        for request in requests:
            try:
                made = Generation(request)
            except Exception as error:
                refused = pb_utils.InferenceResponse(error=pb_utils.TritonError(f"Error generating stream: {error}"))
                request.get_response_sender().send(refused, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                continue
            with self.news:
                self.generations.append(made)
                self.news.notify()

    def run(self):
        while True:
            with self.news:
                self.news.wait_for(lambda: self.generations or self.over)
                if self.over:
                    return
                running = self.generations[:PLACES]
            ended = [each for each in running if self.step(each)]
            with self.news:
                self.generations = [each for each in self.generations if each not in ended]
                self.metric.set(len(self.generations))
            time.sleep(STEP_SECONDS)

    @staticmethod
    def step(generation):
        if generation.sender.is_cancelled():
            cancelled = pb_utils.TritonError("Request was cancelled", pb_utils.TritonError.CANCELLED)
            refused = pb_utils.InferenceResponse(error=cancelled)
            generation.sender.send(refused, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return True
        return generation.step()

    def finalize(self):
        with self.news:
            self.over = True
            self.news.notify()
        self.thread.join()
