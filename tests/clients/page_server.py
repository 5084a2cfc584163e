"""A server whose answers a test scripts, with the page's files and their headers from a real one."""

import contextlib
import http.client
import http.server
import json
import threading


def event(delta: dict, **more) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def whole(*deltas: dict, finish: str = "stop", tokens: int = 8) -> list[str]:
    """The events of an answer that ends well."""
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    return [*map(event, deltas), event({}, finish_reason=finish),
            f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n", "data: [DONE]\n\n"]


class Scripted(contextlib.AbstractContextManager):
    """`script` maps the last message of a chat to events (an iterable of texts), or to (status,
    headers, message) of an error. `asked` has all requests' bodies, `left` counts clients that went
    away. `status` is what /admin/status answers; None: it asks for a key; `experts` what
    /admin/experts answers, by its group."""

    def __init__(self, real: str, script: dict):
        self.experts = {}
        self.script, self.asked, self.keys, self.left, self.status = script, [], [], 0, None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def tell(self, status, what, **headers):
                self.answer(status, json.dumps(what).encode(), Content_Type="application/json",
                            **headers)

            def refuse(self, status, message, **headers):
                self.tell(status, {"error": {"message": message, "type": "", "code": None}},
                          **headers)

            def do_GET(self):
                if self.path == "/health/ready":
                    self.tell(200, {"status": "ready"})
                elif self.path == "/v1/models":
                    self.tell(200, {"data": [{"id": "scripted"}]})
                elif self.path == "/admin/status" and outer.status:
                    self.tell(200, outer.status)
                elif self.path == "/admin/status":
                    self.refuse(401, "no API key")
                elif (group := self.path.removeprefix("/admin/experts/")) in outer.experts:
                    self.tell(200, outer.experts[group])
                else:
                    self.pass_on()

            def pass_on(self):
                with contextlib.closing(http.client.HTTPConnection(real, timeout=60)) as there:
                    there.request("GET", self.path, headers={"Accept": self.headers["Accept"]})
                    got = there.getresponse()
                    body = got.read()
                    names = ("Content-Type", "Content-Security-Policy", "X-Content-Type-Options")
                    kept = {n.replace("-", "_"): got.headers[n] for n in names if n in got.headers}
                    self.answer(got.status, body, **kept)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                outer.keys.append(self.headers["Authorization"])
                what = outer.script[body["messages"][-1]["content"]]
                what = what() if callable(what) else what
                if isinstance(what, tuple):
                    status, headers, message = what
                    self.refuse(status, message, **headers)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("x-witan-seed", "18446744073709551615")
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    for words in what:
                        self.wfile.write(words.encode())
                        self.wfile.flush()
                except OSError:
                    outer.left += 1
                self.close_connection = True

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a browser that goes away in the middle

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
