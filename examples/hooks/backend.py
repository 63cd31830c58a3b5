"""A backend for hooks of Ringcast, with nothing but the Python standard library.

    ringcast-hook-secret holds the secret that ringcast.toml names as secret_file
    python3 backend.py 9000 ringcast-hook-secret

It knows users by the cookie of a web session, lets them into their own rooms, adds the author to what they write, and
answers one procedure.
"""

import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SESSIONS = {"c0ffee": "ann", "7ea": "bea"}
ROOMS = {"ann": {"room.blue", "room.red"}, "bea": {"room.red"}}


def decide(question):
    action, client = question["action"], question["client"]
    user = (client["claims"] or {}).get("sub")
    if action == "connect":
        user = SESSIONS.get(client["cookies"].get("session"))
        if user is None:
            return {"error": {"name": "NoSession", "message": "log in first"}, "code": 4501}
        return {"allow": True, "claims": {"sub": user}, "subscribe": [f"user.{user}"]}
    if action in ("subscribe", "publish") and question["channel"] not in ROOMS.get(user, ()):
        return {"error": {"name": "NotInRoom", "message": f"{user} is not in {question['channel']}"}}
    if action == "publish":
        return {"allow": True, "data": {"text": question["data"], "from": user}}
    if action == "invoke" and question["procedure"] == "rooms":
        return {"answer": sorted(ROOMS.get(user, ()))}
    return {"allow": True}


def is_signed(secret, header, body):
    """Whether the header Ringcast-Signature proves that a request was made with the secret, within five minutes."""
    parts = [part.split("=", 1) for part in header.split(",") if "=" in part]
    times = [value for name, value in parts if name == "t"]
    if len(times) != 1 or not times[0].isdigit() or abs(time.time() - int(times[0])) > 300:
        return False
    wanted = hmac.new(secret, times[0].encode() + b"." + body, hashlib.sha256).hexdigest()
    return any(hmac.compare_digest(wanted, value) for name, value in parts if name == "v1")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open between questions
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if is_signed(self.server.secret, self.headers.get("Ringcast-Signature", ""), body):
            asked = json.loads(body)
            # Several publications, if the hook has a batch_max.
            answer = [decide(question) for question in asked] if isinstance(asked, list) else decide(asked)
            status, answer = 200, json.dumps(answer).encode()
        else:
            status, answer = 403, b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    with open(sys.argv[2], "rb") as file:
        server.secret = file.read().split()[0]
    print(f"listening on {server.server_port}", flush=True)
    server.serve_forever()
