"""A chat endpoint on the loopback, started by the tests: it answers by a function, and counts what it is asked."""

import json
import socket
import struct
import threading
import time
from base64 import b64decode
from collections import Counter
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import torch
from PIL import Image

MODEL = "mini"


def image_of(body):
    """The bytes of the PNG that a request holds."""
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    head, _, encoded = url.partition(",")
    assert head == "data:image/png;base64"
    return b64decode(encoded)


def prompt_of(body):
    return body["messages"][0]["content"][1]["text"]


def completion(text, model=MODEL, finish="stop", refusal=None, usage=(100, 10)):
    message = {"role": "assistant", "content": text} | ({"refusal": refusal} if refusal else {})
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": model, "system_fingerprint": "fp-1",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        server = self.server.owner
        with server.lock:
            server.asked[key] += 1
            server.times.append(time.monotonic())
            server.keys.add(self.headers.get("Authorization"))
            server.under_way += 1
            server.most_at_once = max(server.most_at_once, server.under_way)
            visit = server.asked[key]
        try:
            self.respond(server.answer(body, visit))
        finally:
            with server.lock:
                server.under_way -= 1

    def respond(self, answer):
        if callable(answer):
            answer(self)
        elif isinstance(answer, tuple):
            status, headers, payload = answer
            self.send(status, headers, payload)
        else:
            self.send(200, {}, answer if isinstance(answer, dict) else completion(answer))

    def send(self, status, headers, payload):
        content = payload.encode() if isinstance(payload, str) else json.dumps(payload).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)


class Server:
    """What the endpoint was asked.

    Attributes:
        answer: (body, how often this very body was asked) -> a text, a completion, (status, headers, payload) or a
            function of the handler.
        asked: requests by digest of their body.
    """

    def __init__(self, answer):
        self.answer, self.asked, self.times, self.keys = answer, Counter(), [], set()
        self.under_way = self.most_at_once = 0
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.http.daemon_threads = True
        self.http.owner = self

    @property
    def vlm(self):
        return f"openai:http://127.0.0.1:{self.http.server_address[1]}/v1#{MODEL}"

    @property
    def total(self):
        return sum(self.asked.values())


@contextmanager
def serving(answer):
    """Within it, an endpoint answers."""
    server = Server(answer)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def reset(handler):
    """Break the connection off without a word."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def cut_short(handler):
    """Half of a response, and the end of the connection."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.wfile.write(json.dumps(completion("red")).encode()[:60])
    handler.close_connection = True


def drip(handler):
    """A response that comes byte by byte, for longer than one waits, and is a good one in the end."""
    content = b" " * 100 + json.dumps(completion("late")).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    try:
        for byte in content[:100]:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.06)
        handler.wfile.write(content[100:])
    except OSError:
        handler.close_connection = True


def sleep(seconds):
    """Say nothing for a while."""

    def wait(handler):
        time.sleep(seconds)
        handler.close_connection = True

    return wait


def llava(victim):
    """Answers as a local victim gives them; one request at a time."""
    lock = threading.Lock()

    def answer(body, visit):
        pixels = np.asarray(Image.open(BytesIO(image_of(body))).convert("RGB"))
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        with lock:
            (said,) = victim.generate(image, [prompt_of(body)], max_new_tokens=body["max_tokens"])
        return said.text

    return answer
