"""Runs all tests: python tests --binary BINARY [--reference] [NAME...]

`--reference` also runs them that need Node and the packages of tests/interop. The last line is `N passed, N failed`; the exit status is 1
if any failed.
"""

import argparse
import logging
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import support  # noqa: E402

parser = argparse.ArgumentParser(prog="tests")
parser.add_argument("--binary", required=True)
parser.add_argument("--reference", action="store_true")
parser.add_argument("names", nargs="*", help="only the tests whose names have one of these parts")
arguments = parser.parse_args()
support.BINARY = arguments.binary
logging.getLogger("ringcast_client").setLevel(logging.CRITICAL)
# unittest runs loops in debug mode, which reports each pause of a busy machine.
logging.getLogger("asyncio").setLevel(logging.ERROR)


def each(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        elif any(name in test.id() for name in arguments.names or [""]):
            if arguments.reference or not test.id().startswith("test_reference."):
                yield test


tests = unittest.TestSuite(each(unittest.defaultTestLoader.discover(str(HERE))))
result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(tests)
failed = len(result.failures) + len(result.errors)
passed = result.testsRun - failed
print(f"{passed} passed, {failed} failed")
sys.exit(0 if failed == 0 and passed > 0 else 1)
