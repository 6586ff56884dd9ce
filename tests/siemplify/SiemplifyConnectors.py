"""Stands in for the SDK's module of that name, as far as the connector uses it.

The context comes on the standard input and the package goes to the standard output, as in the SDK;
the platform's context properties are a file, `STUB_CONTEXT`. `STUB_DIES` names the call in which
the process is killed, or `kept` for the moment after the last one. As in the SDK, nothing is flushed.
"""

import json
import os
import signal
import sys

import SiemplifyUtils


class Logger:
    def info(self, message):
        print(message, file=sys.stderr)

    error = warn = info


class ConnectorInfo:
    def __init__(self, **values):
        self.__dict__.update(values)


class Context:
    def __init__(self, connector_info):
        self.connector_info = ConnectorInfo(**connector_info)


def may_die(call):
    if os.environ.get("STUB_DIES") == call:
        os.kill(os.getpid(), signal.SIGKILL)


class SiemplifyConnectorExecution:
    def __init__(self):
        self.context = Context(json.load(sys.stdin)["connector_info"])
        self.LOGGER = Logger()
        SiemplifyUtils.override_stdout()

    @property
    def is_test_run(self):
        return len(sys.argv) >= 2 and sys.argv[1] == "False"

    def extract_connector_param(
        self, param_name, default_value=None, input_type=str, is_mandatory=False, print_value=False
    ):
        for param in self.context.connector_info.params:
            if param["param_name"] == param_name and param["param_value"]:
                return input_type(param["param_value"])
        return default_value

    def get_connector_context_property(self, identifier, property_key):
        return self._properties().get(f"{identifier}/{property_key}")

    def set_connector_context_property(self, identifier, property_key, property_value):
        may_die("set_connector_context_property")
        properties = self._properties()
        properties[f"{identifier}/{property_key}"] = property_value
        with open(os.environ["STUB_CONTEXT"], "w", encoding="utf-8") as file:
            json.dump(properties, file)
        may_die("kept")

    def _properties(self):
        with open(os.environ["STUB_CONTEXT"], encoding="utf-8") as file:
            return json.load(file)

    def return_package(self, cases, output_variables=None, log_items=None):
        may_die("return_package")
        result = json.dumps({"cases": cases}, default=lambda one: one.__dict__)
        SiemplifyUtils.real_stdout.write(json.dumps({"ResultObjectJson": result}))
