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
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FaultServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or every answer waits for an acknowledgement

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                with server._lock:
                    server.times.append(time.monotonic())
                    server.prompts.append(prompt)
                    server.bodies.append(body)
                    server.headers.append({name.lower(): value for name, value in self.headers.items()})
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                    fault = server.faults.pop(0) if server.faults else None
                time.sleep(server.pause)
                try:
                    refused = sorted(server.refuses & set(body))
                    if refused:
                        error = {"message": f"{refused[0]} is not supported with this model", "param": refused[0]}
                        self.send(400, json.dumps({"error": error}).encode())
                    else:
                        self.play(fault, prompt)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up waiting
                finally:
                    with server._lock:
                        server._now -= 1

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
                    answer = fault if isinstance(fault, dict) else server.answer(prompt)
                    self.send(200, json.dumps(answer).encode())

            def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                sent = {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
                for name, value in sent.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        return Handler
