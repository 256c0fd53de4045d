"""A receiver that accepts what the key verifies: signatures.py KEY PORT-FILE."""

import base64
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

key, port_file = sys.argv[1:]


def verify(headers, body):
    if not key.startswith("whpk_"):
        Webhook(key).verify(body, headers)
        return
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key[len("whpk_"):]))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for signature in headers["webhook-signature"].split(" "):
        version, value = signature.split(",")
        if version == "v1a":
            public.verify(base64.b64decode(value), signed)
            return
    raise InvalidSignature


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(204)
        self.end_headers()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            verify({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(204)
        except (WebhookVerificationError, InvalidSignature):
            self.send_response(400)
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
with open(port_file + ".new", "w") as file:
    file.write(str(server.server_port))
os.rename(port_file + ".new", port_file)
server.serve_forever()
