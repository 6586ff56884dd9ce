"""What the relay sends, held against the receivers' own libraries.

Standard Webhooks verifies two signed requests, TheHive's and Opsgenie's SDK take the bodies of their
presets, and aiosmtpd, a mail server, takes a mail of which one recipient does not exist.
"""

import argparse
import base64
import email
import email.policy
import http.server
import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import typing

from aiosmtpd.controller import Controller
from opsgenie_sdk.api.alert.create_alert_payload import CreateAlertPayload
from standardwebhooks import Webhook
from thehive4py.types.alert import InputAlert
from thehive4py.types.observable import InputObservable

from scenario import SECRET, Process, Relay, call, free_port, until

KEY = base64.b64encode(b"a-key-of-the-relay-for-this-test").decode()


class Hooks(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted, by path."""

    posted = {"/plain": queue.Queue(), "/prefixed": queue.Queue()}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted[self.path].put((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Mails:
    """A handler of aiosmtpd that knows nobody of the name `bad`."""

    def __init__(self):
        self.taken = queue.Queue()

    async def handle_RCPT(self, _server, _session, envelope, address, _options):
        if address.startswith("bad@"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, _server, _session, envelope):
        self.taken.put((envelope.rcpt_tos, envelope.content))
        return "250 queued"


class Sender(Relay):
    """A relay with signed webhooks and a mail server."""

    def __init__(self, binary, folder, hooks, mails):
        self.port, self.ops = free_port(), free_port()
        config = folder / "relay.yaml"
        config.write_text(
            f"server: {{listen: '127.0.0.1:{self.port}', ops_listen: '127.0.0.1:{self.ops}'}}\n"
            "slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}\n"
            "destinations:\n"
            "  - {name: plain, preset: webhook, url: {env: PLAIN_URL}, signing_secret: {env: PLAIN}}\n"
            "  - {name: prefixed, preset: webhook, url: {env: PREFIXED_URL},\n"
            "     signing_secret: {env: PREFIXED}}\n"
            "  - {name: mail, preset: email, url: {env: MAIL_URL},\n"
            "     params: {from: relay@example.com, to: 'a@example.com, bad@example.com, c@example.com'}}\n")
        env = dict(os.environ, SECRET=SECRET, PLAIN=KEY, PREFIXED=f"whsec_{KEY}",
                   PLAIN_URL=f"http://127.0.0.1:{hooks}/plain",
                   PREFIXED_URL=f"http://127.0.0.1:{hooks}/prefixed",
                   MAIL_URL=f"smtp://127.0.0.1:{mails}")
        command = [binary, "serve", "--config", str(config), "--log-level", "warn"]
        self.process = Process(command, folder / "relay.log", env=env)
        self.wait()


def check_webhook(name, secret):
    headers, body = Hooks.posted[f"/{name}"].get(timeout=30)
    alert = Webhook(secret).verify(body, headers)
    assert "." not in headers["webhook-id"], headers["webhook-id"]
    assert headers["idempotency-key"] == alert["id"], headers["idempotency-key"]


def check_mail(mails):
    recipients, content = mails.taken.get(timeout=30)
    assert recipients == ["a@example.com", "c@example.com"], recipients
    mail = email.message_from_bytes(content, policy=email.policy.default)
    assert not mail.defects and mail["MIME-Version"] == "1.0", content
    assert mail["Date"].datetime and mail["Message-ID"] and mail.get_content(), content


def check_delivery(relay):
    """A refused recipient is named once, and the alert is delivered."""
    def delivered():
        answer = call(relay.ops, "GET", "/api/v1/status")
        each = json.loads(answer[1])["destinations"] if answer else []
        return all(one["pending"] + one["leased"] + one["dead"] == 0 for one in each) and each
    each = until("every alert is delivered", delivered, 30)
    problem = next(one["problem"] for one in each if one["name"] == "mail")
    assert "bad@example.com" in problem and "550" in problem, problem


def rendered(binary, preset):
    """The body that the preset makes of the sample incident."""
    command = [binary, "render", "--preset", preset]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(shown.split("\n\n", 1)[1])


def check_bodies(binary):
    alert = rendered(binary, "thehive")
    for kind, value in [(InputAlert, alert), *((InputObservable, o) for o in alert["observables"])]:
        known = set(typing.get_type_hints(kind))
        assert set(value) <= known, set(value) - known
        assert kind.__required_keys__ <= set(value), kind.__required_keys__ - set(value)
    names = {shown: name for name, shown in CreateAlertPayload.attribute_map.items()}
    alert = rendered(binary, "opsgenie")
    # Its setters refuse what is too long.
    CreateAlertPayload(**{names[name]: value for name, value in alert.items()})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--relay", required=True, type=os.path.abspath)
    binary = parser.parse_args().relay
    check_bodies(binary)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="libraries-"))
    hooks = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hooks)
    threading.Thread(target=hooks.serve_forever, daemon=True).start()
    handler = Mails()
    mails = Controller(handler, hostname="127.0.0.1", port=free_port())
    mails.start()
    relay = None
    begin = time.monotonic()
    try:
        relay = Sender(binary, folder, hooks.server_port, mails.port)
        assert relay.post(1)
        check_webhook("plain", KEY)
        check_webhook("prefixed", f"whsec_{KEY}")
        check_mail(handler)
        check_delivery(relay)
        said = (folder / "relay.log").read_text()
        assert said.count("refuses the recipient bad@example.com") == 1, said
    except BaseException:
        print((folder / "relay.log").read_text(errors="replace")[-3000:], file=sys.stderr)
        raise
    finally:
        if relay:
            relay.process.stop()
        mails.stop()
        hooks.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"two signed requests, a mail and two bodies: {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
