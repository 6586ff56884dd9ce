"""Reads the feed of slack-soar-relay into Google SecOps SOAR (Siemplify).

For a SOAR that cannot be reached from outside: nothing is sent to it, this connector comes and
asks. It needs Python 3.7 or newer and the SOAR's own SDK, nothing else. README.md beside this file
says how it is installed and what each parameter means.

A run asks once, for what is behind the number that the run before it has kept. By that number the
relay learns what was taken, so it is kept as the very last step, once the alerts have left the process:
a run that dies before is made again by the next one, and the platform knows an alert by its name and
display_id.
"""

import base64
import http.client
import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

try:
    import SiemplifyUtils
    from SiemplifyConnectors import SiemplifyConnectorExecution
    from SiemplifyConnectorsDataModel import AlertInfo
    from SiemplifyUtils import output_handler
except ImportError:
    from soar_sdk import SiemplifyUtils
    from soar_sdk.SiemplifyConnectors import SiemplifyConnectorExecution
    from soar_sdk.SiemplifyConnectorsDataModel import AlertInfo
    from soar_sdk.SiemplifyUtils import output_handler

CONNECTOR_NAME = "Slack SOAR Relay Connector"

# The name under which the platform keeps the connector's place in the feed.
PLACE = "feed_after"

# The relay's numbers are 64 bits wide, the first of them free for a sign.
LARGEST_PLACE = 2**63 - 1

# The relay's own limit, and a limit of ours: nothing that is fine is larger.
MAX_ALERTS = 500
MAX_ANSWER_BYTES = 64 * 1024 * 1024

# Of the platform's time limit, what a run may spend on asking: the rest is for the platform.
SHARE = 0.5

# What reading a text raises that is not the JSON of a relay.
NOT_A_PAGE = (ValueError, KeyError, TypeError, RecursionError)


class FeedError(Exception):
    """What the person who runs the connector can mend."""


class NotOfThisFeed(FeedError):
    """The relay says that the number was never given in this feed."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to whoever it names."""

    def redirect_request(self, *_):
        return None


class Settings:
    """The connector's parameters, checked."""

    def __init__(self, siemplify):
        def text(name, default=""):
            value = siemplify.extract_connector_param(name, default_value=default)
            return (value or "").strip()

        def number(name, default):
            value = text(name, str(default))
            if not value.isdigit():
                raise FeedError(f"{name}: `{value}` is no whole number")
            return int(value)

        def choice(name, choices):
            value = text(name, choices[0])
            if value not in choices:
                raise FeedError(f"{name}: `{value}` is none of {', '.join(choices)}")
            return value

        self.url = feed_url(text("Relay URL"))
        self.token = text("Feed Token")
        if not self.token:
            raise FeedError("Feed Token is missing: the relay's `feed_token`")
        self.destination = text("Destination")
        self.limit = number("Max Alerts Per Run", 100)
        if not 1 <= self.limit <= MAX_ALERTS:
            raise FeedError(f"Max Alerts Per Run: from 1 to {MAX_ALERTS}")
        self.seconds = max(number("PythonProcessTimeout", 30) * SHARE, 1)
        self.tls = tls(text("CA Certificate"))
        own = siemplify.context.connector_info.environment
        self.environment = text("Environment") or own or "Default Environment"
        self.id_scheme = choice("ID Scheme", ["micros", "article"])
        self.values = choice("Values", ["clean", "as_predecessor"])


def feed_url(base):
    """The feed's address below the relay's. Without TLS only on this machine."""
    url = urllib.parse.urlsplit(base)
    is_here = url.hostname in ("127.0.0.1", "::1", "localhost")
    if url.scheme != "https" and not (url.scheme == "http" and is_here):
        raise FeedError("Relay URL: must be https://, such as https://relay.example.com")
    path = url.path.rstrip("/") + "/api/v1/feed"
    return urllib.parse.urlunsplit((url.scheme, url.netloc, path, "", ""))


def tls(authority):
    """Certificates are always verified; a private authority is trusted beside the public ones."""
    context = ssl.create_default_context()
    if authority:
        try:
            context.load_verify_locations(cadata=der_of(authority))
        except (ssl.SSLError, ValueError) as error:
            raise FeedError(f"CA Certificate: is no PEM certificate ({error})") from error
    return context


def der_of(pem):
    """The certificates in a PEM text, whatever a field for parameters made of its line ends."""
    body = "-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----"
    found = re.findall(body, pem, re.DOTALL)
    return b"".join(base64.b64decode("".join(one.split()), validate=True) for one in found)


def ask(settings, after, limit):
    """One page of the feed."""
    query = {"after": after, "limit": limit}
    if settings.destination:
        query["destination"] = settings.destination
    request = urllib.request.Request(
        settings.url + "?" + urllib.parse.urlencode(query),
        headers={"Authorization": "Bearer " + settings.token, "Accept": "application/json"},
    )
    opener = urllib.request.build_opener(
        NoRedirect, urllib.request.HTTPSHandler(context=settings.tls)
    )
    until = time.monotonic() + settings.seconds
    try:
        with opener.open(request, timeout=settings.seconds) as answer:
            page = json.loads(read(answer, until))
        items, after = page["items"], page["next"]
        if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
            raise ValueError("`items` is not a list of objects")
        if type(after) is not int or not 0 <= after <= LARGEST_PLACE:
            raise ValueError("`next` is not a number of a feed")
        return items, after
    except urllib.error.HTTPError as error:
        raise refused(error) from error
    except (OSError, http.client.HTTPException, *NOT_A_PAGE) as error:
        raise FeedError(f"{settings.url} does not answer as a relay does: {error}") from error


def read(answer, until):
    """The whole answer, in time: a timeout of a socket ends only a silence."""
    pieces, size = [], 0
    while True:
        if time.monotonic() > until:
            raise OSError("the answer takes too long")
        piece = answer.read(64 * 1024)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise OSError("the answer is too large")


def refused(error):
    """What the relay says, in its own words if it is the relay that says it."""
    try:
        detail = json.loads(error.read(64 * 1024))["detail"]
    except (OSError, http.client.HTTPException, *NOT_A_PAGE):
        detail = "not the answer of a relay"
    kind = NotOfThisFeed if error.code == 409 else FeedError
    return kind(f"the relay answers {error.code}: {detail}")


def text_of(alert, *path):
    """A text of the alert; empty, if it is not there."""
    value = alert
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None or value is False or value == 0:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def number_of(alert, name, default):
    value = alert.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def half_even_tenth(ticket):
    """A tenth of the digits that a ticket begins with, a half going to the even neighbour."""
    digits, rest = re.match(r"([0-9]*)(.*)", ticket, re.DOTALL).groups()
    if not digits:
        return ticket
    tenth, last = divmod(int(digits), 10)
    if last > 5 or (last == 5 and tenth % 2):
        tenth += 1
    return f"{tenth}{rest}"


def alert_info(item, settings):
    """The alert as the platform wants it: field for field what the published connector makes.

    Nothing here can fail: an alert that lacks everything is an alert all the same.
    """
    alert = item.get("alert")
    alert = alert if isinstance(alert, dict) else {}
    is_article = settings.id_scheme == "article"
    is_clean = settings.values == "clean"
    ticket = text_of(alert, "ticket_id") or str(item.get("seq"))
    start = number_of(alert, "start_time_ms", 0)
    title = text_of(alert, "title")
    script = text_of(alert, "script", "raw")
    problems = alert.get("parse_problems")
    # The attachment of such an alert is the whole message.
    is_whole = isinstance(problems, list) and "too_many" in problems
    is_read = is_clean or is_whole
    details = text_of(alert, "details") if is_read else text_of(alert, "attachment", "text")
    severity = alert.get("severity")
    info = AlertInfo()
    info.display_id = info.ticket_id = half_even_tenth(ticket) if is_article else ticket
    info.name = text_of(alert, "name") or "Code Defender Unknown Alert"
    info.rule_generator = title
    info.start_time = start
    info.end_time = number_of(alert, "end_time_ms", start) if is_article else start
    info.priority = number_of(severity if isinstance(severity, dict) else {}, "priority", 80)
    info.device_vendor = text_of(alert, "vendor") or "PerimeterX"
    info.device_product = text_of(alert, "product") or "Code Defender"
    info.environment = settings.environment
    info.events = [
        {
            "StartTime": start,
            "EndTime": start,
            "category": text_of(alert, "category") if is_clean else details.split("\n")[0],
            "name": title,
            "scriptName": script,
            "hostDomain": text_of(alert, "host_domain", "name" if is_clean else "raw"),
            "portalDeepLink": text_of(alert, "deep_link"),
            "fullURL": text_of(alert, "script", "url") if is_clean else script[2:-2],
            "details": details,
        }
    ]
    return info


def kept_place(siemplify, identifier):
    """The number that the last run has kept; 0, the oldest alert, if it cannot be one.

    What cannot be read is no reason to stand still: the alerts that come twice are known by their
    ids, and a run that fails because of it would fail for ever.
    """
    kept = siemplify.get_connector_context_property(identifier, PLACE)
    if kept in (None, ""):
        return 0
    text = str(kept).strip().strip('"')
    if re.fullmatch("[0-9]{1,19}", text) and int(text) <= LARGEST_PLACE:
        return int(text)
    shown = text if len(text) <= 40 else text[:40] + "..."
    siemplify.LOGGER.error(f"the kept place {shown!r} is not a number of a feed: "
                           "reading from the beginning")
    return 0


def send_package(siemplify, alerts):
    """Returns the alerts to the platform, out of this process.

    The SDK writes them into a buffer that is emptied when the process ends by itself.
    """
    siemplify.return_package(alerts)
    streams = (getattr(SiemplifyUtils, "real_stdout", None), sys.__stdout__, sys.stdout)
    for stream in streams:
        if stream is not None:
            stream.flush()


def run(siemplify):
    settings = Settings(siemplify)
    identifier = siemplify.context.connector_info.identifier
    before = kept_place(siemplify, identifier)
    limit = min(settings.limit, 10) if siemplify.is_test_run else settings.limit
    try:
        items, after = ask(settings, before, limit)
    except NotOfThisFeed as error:
        siemplify.LOGGER.error(f"{error}; reading from the beginning")
        items, after = ask(settings, 0, limit)
    alerts = [alert_info(item, settings) for item in items]
    siemplify.LOGGER.info(f"{len(alerts)} alerts behind {before}")
    send_package(siemplify, alerts)
    # The last step: what is kept here is what the next run says it has.
    if after != before and not siemplify.is_test_run:
        siemplify.set_connector_context_property(identifier, PLACE, str(after))


@output_handler
def main():
    siemplify = SiemplifyConnectorExecution()
    siemplify.script_name = CONNECTOR_NAME
    try:
        run(siemplify)
    except FeedError as error:
        siemplify.LOGGER.error(str(error))
        raise


if __name__ == "__main__":
    main()
