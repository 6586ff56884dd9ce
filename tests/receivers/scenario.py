"""The relay between a Slack that is played here and two receivers that are real.

200 incidents; the relay is killed with -9 five times; Alerta is stopped for 60 seconds; Node-RED
answers 500, 429 and nothing at all for its first 25 seconds. In the end Alerta must hold exactly
one alert for each incident, and Node-RED must have seen each one.
"""

import argparse
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

ALERTS = 200
KILLS = 5
DOWN_SECONDS = 60
PATIENCE_SECONDS = 170
SECRET = "a-signing-secret-for-the-scenario"
TITLE = "Code Defender has detected a new incident"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(port, method, path, headers=None, body=None, timeout=5):
    """Status and body, or None if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def until(what, holds, seconds):
    """Asks again and again; there is no event to wait for in somebody else's process."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        threading.Event().wait(0.2)
    raise SystemExit(f"after {seconds} s it is not so: {what}")


class Process:
    """A child that is ended with us."""

    def __init__(self, command, log, env=None, user=None):
        self.command, self.log, self.env, self.user = command, log, env, user
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.env, user=self.user,
                cwd="/", start_new_session=True)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


def start_postgres(bin_dir, folder):
    """A cluster of its own, by a user that is not root: PostgreSQL refuses root."""
    user = "postgres" if os.getuid() == 0 else None
    data, port = folder / "postgres", free_port()
    data.mkdir()
    if user:
        os.chown(data, pwd.getpwnam(user).pw_uid, -1)
    run = lambda *command: subprocess.run(
        command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)
    run(f"{bin_dir}/initdb", "-D", str(data), "-A", "trust", "-U", "alerta", "--no-sync")
    postgres = Process(
        [f"{bin_dir}/postgres", "-D", str(data), "-p", str(port), "-k", str(data),
         "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"],
        folder / "postgres.log", user=user)
    ready = [f"{bin_dir}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    until("PostgreSQL is up", lambda: subprocess.run(ready).returncode == 0, 30)
    run(f"{bin_dir}/createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "alerta", "alerta")
    return postgres, port


def start_alerta(venv, folder, database_port):
    config, port = folder / "alertad.conf", free_port()
    config.write_text(
        f"DATABASE_URL = 'postgresql://alerta@127.0.0.1:{database_port}/alerta'\n"
        "AUTH_REQUIRED = True\nADMIN_USERS = ['relay@example.com']\nSECRET_KEY = 'scenario'\n"
        "PLUGINS = ['reject']\nALLOWED_ENVIRONMENTS = ['Production']\n")
    env = dict(os.environ, ALERTA_SVR_CONF_FILE=str(config), PATH=f"{venv}/bin:/usr/bin:/bin")
    alertad = f"{venv}/bin/alertad"
    user = ["user", "--username", "relay@example.com", "--password", "scenario-only"]
    subprocess.run([alertad, *user, "--text", "scenario"], env=env, capture_output=True, check=True)
    made = subprocess.run(
        [alertad, "key", "--username", "relay@example.com", "--scope", "admin"],
        env=env, capture_output=True, text=True, check=True)
    key = made.stdout.strip().split()[-1]
    alerta = Process(
        [alertad, "run", "--host", "127.0.0.1", "--port", str(port)],
        folder / "alerta.log", env=env)
    headers = {"Authorization": f"Key {key}"}
    until("Alerta is up", lambda: call(port, "GET", "/alerts/count", headers), 60)
    return alerta, port, key


def start_node_red(installed, folder):
    user_dir, port = folder / "node-red", free_port()
    shutil.copytree(pathlib.Path(__file__).parent / "node-red", user_dir)
    node_red = Process(
        ["node", f"{installed}/node_modules/node-red/red.js", "-u", str(user_dir)],
        folder / "node-red.log", env=dict(os.environ, PORT=str(port)))
    until("Node-RED is up", lambda: call(port, "GET", "/seen"), 60)
    return node_red, port


class Relay:
    def __init__(self, binary, folder, alerta_port, key, node_red_port):
        self.port, self.ops = free_port(), free_port()
        config = folder / "relay.yaml"
        config.write_text(
            f"server: {{listen: '127.0.0.1:{self.port}', ops_listen: '127.0.0.1:{self.ops}'}}\n"
            "slack: {apps: [{name: main, signing_secret: {env: SECRET}}]}\n"
            "destinations:\n"
            "  - {name: alerta, preset: alerta, url: {env: ALERTA_URL},\n"
            "     params: {api_key: {env: ALERTA_KEY}}}\n"
            "  - {name: node-red, preset: webhook, url: {env: NODE_RED_URL}, timeout: 3s}\n")
        env = dict(os.environ, SECRET=SECRET, ALERTA_KEY=key,
                   ALERTA_URL=f"http://127.0.0.1:{alerta_port}",
                   NODE_RED_URL=f"http://127.0.0.1:{node_red_port}/incident")
        command = [binary, "serve", "--config", str(config), "--log-level", "warn"]
        self.process = Process(command, folder / "relay.log", env=env)
        self.wait()

    def wait(self):
        ready = lambda: (call(self.ops, "GET", "/readyz") or (0,))[0] == 200
        until("the relay is ready", ready, 30)

    def kill(self):
        self.process.kill()
        self.process.start()
        self.wait()

    def post(self, number):
        """As Slack does: again, until it is answered with 200."""
        seconds = str(1600689944 + number)
        event = {"type": "message", "subtype": "bot_message", "bot_id": "B0RELAY", "text": "",
                 "channel": "C0123456789", "ts": f"{seconds}.000500",
                 "attachments": [{"title": TITLE, "text": f"Incident {number} \n \u05e9 \"q\"",
                     "fields": [{"title": "Script", "value": f"`https://a.b/{number}.js`"},
                                {"title": "Risk Level", "value": "High"},
                                {"title": "Host Domain", "value": "<http://a.b|a.b>"}]}]}
        body = json.dumps({"type": "event_callback", "team_id": "T0RELAY", "event": event,
                           "event_id": f"Ev{number}", "event_time": int(seconds)})
        now = str(int(time.time()))
        signed = hmac.new(SECRET.encode(), f"v0:{now}:{body}".encode(), hashlib.sha256)
        headers = {"Content-Type": "application/json", "X-Slack-Request-Timestamp": now,
                   "X-Slack-Signature": f"v0={signed.hexdigest()}"}
        answer = call(self.port, "POST", "/slack/events", headers, body)
        return answer is not None and answer[0] == 200

    def metric(self, series):
        answer = call(self.ops, "GET", "/metrics")
        if not answer:
            return None
        for line in answer[1].decode().splitlines():
            if line.startswith(f"slack_soar_relay_{series} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0


def ids():
    return {f"main:C0123456789:{1600689944 + n}.000500:0" for n in range(ALERTS)}


def alerts_of(port, key):
    """What Alerta holds: how often each resource, and how many duplicates it saw."""
    path = f"/alerts?page-size={10 * ALERTS}"
    answer = call(port, "GET", path, {"Authorization": f"Key {key}"}, timeout=30)
    return json.loads(answer[1])["alerts"] if answer and answer[0] == 200 else []


def scenario(options, folder, started):
    postgres, database_port = start_postgres(options.postgres, folder)
    started.append(postgres)
    alerta, alerta_port, key = start_alerta(options.alerta, folder, database_port)
    started.append(alerta)
    node_red, node_red_port = start_node_red(options.node_red, folder)
    started.append(node_red)
    relay = Relay(options.relay, folder, alerta_port, key, node_red_port)
    started.append(relay.process)
    begin = time.monotonic()
    down_since = None
    for number in range(ALERTS):
        until(f"incident {number} is taken", lambda: relay.post(number), 30)
        if number == ALERTS // 4:
            alerta.stop()
            down_since = time.monotonic()
        if number % (ALERTS // KILLS) == ALERTS // KILLS // 2:
            relay.kill()
    left = down_since + DOWN_SECONDS - time.monotonic()
    threading.Event().wait(max(0, left))
    alerta.start()

    seen = lambda: json.loads(call(node_red_port, "GET", "/seen")[1])["seen"]
    finished = lambda: ids() <= {one["resource"] for one in alerts_of(alerta_port, key)}
    until("Alerta holds every incident", finished, PATIENCE_SECONDS)
    until("Node-RED has seen every incident", lambda: ids() <= set(seen()), PATIENCE_SECONDS)
    held = [one["resource"] for one in alerts_of(alerta_port, key)]
    assert sorted(held) == sorted(ids()), f"{len(held)} alerts of {ALERTS} incidents"
    assert set(seen()) == ids()
    settled = lambda: all(
        relay.metric(f'deliveries{{destination="{name}",state="{state}"}}') == 0
        for name in ("alerta", "node-red") for state in ("pending", "leased", "dead"))
    until("nothing is pending, leased or dead", settled, 30)
    again = sum(one["duplicateCount"] for one in alerts_of(alerta_port, key))
    took = time.monotonic() - begin
    print(f"{ALERTS} incidents, {KILLS} kills, Alerta down {DOWN_SECONDS} s: {len(held)} alerts, "
          f"{again} repeated requests; Node-RED saw {len(seen())}, "
          f"{sum(seen().values()) - ALERTS} again; {took:.0f} s")


def main():
    parser = argparse.ArgumentParser()
    for name in ("relay", "node-red", "alerta", "postgres"):
        parser.add_argument(f"--{name}", required=True, type=os.path.abspath)
    options = parser.parse_args()
    started = []
    # Not below /root: PostgreSQL's user must reach its folder.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="receivers-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        scenario(options, folder, started)
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        raise
    finally:
        for process in reversed(started):
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
