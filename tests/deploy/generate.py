"""Writes what is derived from something else: the chart's values.schema.json and the table of its
README.md, and the bases of the plain manifests.

    generate.py RELAY HELM [ROOT]    the two binaries, and another root than this repository

The schema of `config` is the relay's own (`slack-soar-relay schema`), so a mistyped key is refused
by `helm install` and not by the pod; what the chart sets itself is taken out of it. The table of the
README comes from the `@param` lines of values.yaml. The bases are the chart, rendered with values of
their own, `values.yaml` in their folders.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

CHART = "deploy/helm/slack-soar-relay"
BASES = ["base", "base-postgres"]

# Of a rendered object, what only Helm needs; kustomize sets the namespace and names the
# configuration by its hash.
HELMS_OWN = re.compile(
    r"^ *(# Source: .*|namespace: .*|app\.kubernetes\.io/managed-by: .*|helm\.sh/chart: .*"
    r"|annotations:\n *checksum/config: .*)\n",
    re.MULTILINE,
)

STRING = {"type": "string"}
NAME = {"type": "string", "pattern": "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$"}
NEEDED_NAME = {"type": "string", "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"}
LABEL = {"type": "string", "pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$"}
BOOLEAN = {"type": "boolean"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
MAP = {"type": "object", "additionalProperties": STRING}
OBJECT = {"type": "object"}
OBJECTS = {"type": "array", "items": OBJECT}
STRINGS = {"type": "array", "items": STRING}
PORTS = {"type": "array", "items": PORT, "minItems": 1}
SECONDS = {"type": "string", "pattern": "^[0-9]{1,4}s$"}
QUANTITY = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"}


def closed(required=(), **properties):
    """An object that has these properties and no others."""
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def monitor():
    return closed(enabled=BOOLEAN, interval=SECONDS, labels=MAP)


def relay_schema(relay):
    """The relay's schema as (schema of the file, definitions), without what the chart sets."""
    schema = json.loads(subprocess.run([relay, "schema"], check=True, capture_output=True).stdout)
    definitions = schema.pop("$defs")
    for key in ["$schema", "title"]:
        schema.pop(key, None)
    server = definitions["ServerSection"]["properties"]
    for key in ["listen", "ops_listen", "ops_token"]:
        del server[key]
    server["drain_delay"] = SECONDS | {"description": server["drain_delay"]["description"]}
    del definitions["SqliteSection"]["properties"]["path"]
    del schema["properties"]["presets_dir"]
    # Secrets come as files: no environment variable, and no password in a ConfigMap.
    definitions["SecretRef"] = closed(
        ["file"], file={"type": "string", "pattern": "^/secrets/[-._a-zA-Z0-9]+$"}
    ) | {"description": "A file of existingSecret: /secrets/KEY"}
    definitions["DestinationSection"]["properties"]["proxy"]["pattern"] = "^https?://[^@]+$"
    return schema, definitions


def values_schema(relay):
    config, definitions = relay_schema(relay)
    properties = {
        "config": config,
        "existingSecret": NEEDED_NAME,
        "presets": {
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {"^[a-z0-9][a-z0-9-]{0,62}\\.yaml$": STRING},
        },
        "caConfigMap": NAME,
        "replicaCount": {"type": "integer", "minimum": 0},
        "listenOn": {"enum": ["0.0.0.0", "[::]"]},
        "logLevel": {"enum": ["error", "warn", "info", "debug", "trace"]},
        "image": closed(
            ["repository"],
            repository={"type": "string", "minLength": 1},
            tag=STRING,
            digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
            pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
            pullSecrets={"type": "array", "items": closed(["name"], name=NEEDED_NAME)},
        ),
        "nameOverride": LABEL,
        "fullnameOverride": LABEL,
        "persistence": closed(
            enabled=BOOLEAN,
            size=QUANTITY,
            storageClass=NAME,
            accessMode={"enum": ["ReadWriteOnce", "ReadWriteOncePod"]},
        ),
        "migrateFromClaim": NAME,
        "service": closed(
            type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, port=PORT, annotations=MAP
        ),
        "httpRoute": closed(
            enabled=BOOLEAN,
            parentRefs={"type": "array", "items": OBJECT | {"required": ["name"]}},
            hostnames=STRINGS,
            annotations=MAP,
        ),
        "ingress": closed(
            enabled=BOOLEAN,
            className=NAME,
            hostname=STRING,
            tlsSecretName=NAME,
            annotations=MAP,
        ),
        # Without ports a rule would open all of them.
        "networkPolicy": closed(
            ["egressPorts", "databasePorts"],
            enabled=BOOLEAN,
            slackFrom=OBJECTS,
            opsFrom=OBJECTS,
            egressPorts=PORTS,
            databasePorts=PORTS,
        ),
        "podMonitor": monitor(),
        "serviceMonitor": monitor(),
        "resources": closed(requests=OBJECT, limits=OBJECT, claims=OBJECTS),
        "podAnnotations": MAP,
        "podLabels": MAP,
        "nodeSelector": MAP,
        "tolerations": OBJECTS,
        "affinity": OBJECT,
        "priorityClassName": NAME,
        "extraObjects": OBJECTS,
        # What Helm itself puts there when the chart is part of another one.
        "global": OBJECT,
    }
    schema = closed(["config", "existingSecret", "image"], **properties)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart slack-soar-relay",
    } | schema | {"$defs": definitions}


def parameters(text):
    """(section, [(name, description)]) of the `@section` and `@param` lines."""
    sections = []
    for line in text.splitlines():
        if match := re.match(r"## @section (.*)", line):
            sections.append((match[1], []))
        elif match := re.match(r"## @param (\S+) (?:\[\w+\] )?(.*)", line):
            sections[-1][1].append((match[1], match[2]))
    return sections


def leaves(values, described, prefix=""):
    """The values that need a description: what is described itself, or has nothing below it."""
    for key, value in values.items():
        name = prefix + key
        if name in described or not isinstance(value, dict) or not value:
            yield name, value
        else:
            yield from leaves(value, described, name + ".")


def table(text):
    sections = parameters(text)
    described = {name for _, lines in sections for name, _ in lines}
    defaults = dict(leaves(yaml.safe_load(text), described))
    if described != set(defaults):
        sys.exit(f"values.yaml: not described, or not there: {described ^ set(defaults)}")
    lines = []
    for section, rows in sections:
        lines += [f"### {section}", "", "| value | what it is | default |", "| --- | --- | --- |"]
        for name, description in rows:
            lines.append(f"| `{name}` | {description} | `{json.dumps(defaults[name])}` |")
        lines.append("")
    return "\n".join(lines).rstrip()


def readme(chart):
    start, rest = (chart / "README.md").read_text().split("<!-- values -->\n", 1)
    rest = rest.split("<!-- end of values -->", 1)[1]
    values = table((chart / "values.yaml").read_text())
    return f"{start}<!-- values -->\n{values}\n<!-- end of values -->{rest}"


def plain_manifests(helm, root, base):
    """(the objects, the configuration file) of a base of the plain manifests."""
    values = base / "values.yaml"
    command = [helm, "template", "slack-soar-relay", root / CHART, "--values", values]
    rendered = subprocess.run(
        [*command, "--skip-tests"], check=True, capture_output=True, text=True
    ).stdout
    objects, config = [], None
    for text in rendered.split("---\n")[1:]:
        if (parsed := yaml.safe_load(text))["kind"] == "ConfigMap":
            config = parsed["data"]["relay.yaml"]
        else:
            objects.append(HELMS_OWN.sub("", text))
    return "---\n".join(objects), config


def main():
    relay, helm, *rest = sys.argv[1:]
    root = Path(rest[0]) if rest else Path(__file__).parents[2]
    chart = root / CHART
    schema = json.dumps(values_schema(relay), indent=2, ensure_ascii=False)
    (chart / "values.schema.json").write_text(schema + "\n")
    (chart / "README.md").write_text(readme(chart))
    made = "# Made from the chart by tests/deploy/generate.py.\n"
    for base in (root / "deploy/kubernetes" / name for name in BASES):
        objects, config = plain_manifests(helm, root, base)
        (base / "objects.yaml").write_text(made + objects)
        (base / "relay.yaml").write_text(made + config)


main()
