"""Stands in for the SDK's module of that name, as far as the connector uses it.

Like the SDK it keeps the process's output for the package and catches what else is printed.
"""

import io
import sys

real_stdout = sys.stdout
my_stdout = io.StringIO()


def override_stdout():
    sys.stdout = my_stdout


def output_handler(function):
    return function
