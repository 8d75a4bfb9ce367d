"""Receive the outcomes of jobs by HTTP: OMNIFLEET_CALLBACK_SECRET=… python callback_receiver.py 8000"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from omnifleet import SignatureInvalid, verify_callback

SECRET = os.environ["OMNIFLEET_CALLBACK_SECRET"]  # the workers' own; 16 characters at least
seen: set[str] = set()  # a real receiver keeps these in its database


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            outcome = verify_callback(body, self.headers, SECRET)
        except SignatureInvalid:
            self.send_error(401)
            return
        self.send_response(204)  # anything but 2xx is posted again
        self.end_headers()
        if outcome.delivery_id not in seen:  # the same outcome may come more than once
            seen.add(outcome.delivery_id)
            print(outcome.job_id, outcome.exception or outcome.result, flush=True)


if __name__ == "__main__":
    with ThreadingHTTPServer(("", int(sys.argv[1])), Receiver) as server:
        server.serve_forever()
