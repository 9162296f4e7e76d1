"""An OpenAI-compatible endpoint whose faults are written down beforehand."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: object, finish: str = "stop", **message: object) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


class FaultServer:
    """Plays ``faults`` one per request, in order; then answers ``Answer to <prompt>``.

    Requests with a parameter in ``refuses`` are refused. A fault is a name (429, 500, 401, malformed, html, slow,
    cut-off) or a completion to send.
    """

    def __init__(self, faults: list[str | dict[str, Any]] | None = None, pause: float = 0.0) -> None:
        self.faults = list(faults or [])
        self.pause = pause
        self.times: list[float] = []
        self.prompts: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.refuses: set[str] = set()
        self.most_at_once = 0
        self.answer: Callable[[str], dict[str, Any]] = lambda prompt: completion(f"Answer to {prompt}")
        self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FaultServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> str | dict[str, Any] | None:
        """Write a request down; the fault that it gets."""
        with self._lock:
            self.times.append(time.monotonic())
            self.prompts.append(body["messages"][0]["content"])
            self.bodies.append(body)
            self.headers.append(headers)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            return self.faults.pop(0) if self.faults else None

    def done(self) -> None:
        with self._lock:
            self._now -= 1


class Handler(BaseHTTPRequestHandler):
    owner: FaultServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits for an acknowledgement

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.owner.take(body, {name.lower(): value for name, value in self.headers.items()})
        time.sleep(self.owner.pause)
        try:
            if refused := sorted(self.owner.refuses & set(body)):
                error = {"message": f"{refused[0]} is not supported with this model", "param": refused[0]}
                self.send(400, json.dumps({"error": error}).encode())
            else:
                self.play(fault, body["messages"][0]["content"])
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client gave up waiting
        finally:
            self.owner.done()

    def play(self, fault: str | dict[str, Any] | None, prompt: str) -> None:
        if fault == "slow":
            time.sleep(1.0)
        if fault == "429":
            self.send(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "1"})
        elif fault in ("500", "401", "400", "404"):
            key = self.headers.get("Authorization", "")
            error = {"error": {"message": f"no: {key}", "code": "content_filter" if fault == "400" else None}}
            self.send(int(fault), json.dumps(error).encode())
        elif fault == "malformed":
            self.send(200, b'{"choices": [{"mess')
        elif fault == "html":
            self.send(200, b"<html>Log in</html>", {"Content-Type": "text/html"})
        elif fault == "no choice":
            self.send(200, json.dumps(completion("x") | {"choices": []}).encode())
        elif fault == "cut-off":
            self.send(200, json.dumps(completion("x")).encode(), {"Content-Length": "5000"})
            self.close_connection = True
        else:
            answer = fault if isinstance(fault, dict) else self.owner.answer(prompt)
            self.send(200, json.dumps(answer).encode())

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
