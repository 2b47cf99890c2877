"""What users set on the logger holds, whenever the modules are imported."""

import subprocess
import sys

import pytest

CHOICES = {
    "its level": ("logging.getLogger('wlm').setLevel(logging.ERROR)", (40, 1)),
    "logging as a whole": ("logging.basicConfig(level=logging.WARNING)", (20, 0)),
    "nothing": ("pass", (20, 1)),
    "its own handler": ("logging.getLogger('wlm').addHandler(logging.NullHandler())", (20, 1)),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_set_before_the_modules_are_imported_holds(choice):
    code, expected = CHOICES[choice]
    script = f"""
import logging
{code}
import wlm
from wlm._logging import logger, quiet
print(logger.level, len(logger.handlers))
with quiet():
    assert logger.level >= logging.WARNING
print(logger.level, len(logger.handlers))
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert tuple(map(int, out)) == expected * 2
