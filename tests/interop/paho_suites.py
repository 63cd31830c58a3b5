"""Eclipse paho.mqtt.testing's interoperability tests against a running server.

usage: paho_suites.py FOLDER client_test|client_test5 HOST PORT [test ... | without test ...]
The last line is `N passed, N failed`; the exit status is 1 if any failed.

The module's own command line collides with that of unittest, so this program sets the globals that the module's command
line would set. Each test has a time limit, because some wait for ever for a server that does not disconnect.
"""

import importlib
import os
import signal
import sys
import unittest

folder, suite, host, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
LIMIT_S = 60
os.chdir(os.path.join(folder, "interoperability"))
sys.path.insert(0, ".")
sys.dont_write_bytecode = True
module = importlib.import_module(suite)
prefix = "client_test5/" if suite.endswith("5") else ""
kind = list if prefix else tuple
module.topic_prefix = prefix
module.topics = kind(prefix + topic for topic in ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA"))
module.wildtopics = kind(prefix + topic for topic in ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#"))
module.nosubscribe_topics = ("test/nosubscribe",)
module.host, module.port = host, port


class TooLong(BaseException):
    pass


def on_alarm(*_):
    raise TooLong()


def fresh_clients():
    """As setUpClass makes them, after a test that did not end."""
    for name in ("aclient", "bclient"):
        try:
            getattr(module, name).terminate()
        except BaseException:
            pass
    module.cleanup()
    module.callback, module.callback2 = module.Callbacks(), module.Callbacks()
    module.aclient = module.mqtt_client.Client(b"myclientid")
    module.aclient.registerCallback(module.callback)
    module.bclient = module.mqtt_client.Client(b"myclientid2")
    module.bclient.registerCallback(module.callback2)


signal.signal(signal.SIGALRM, on_alarm)
names = sys.argv[5:]
if not names or names[0] == "without":
    names = [name for name in unittest.defaultTestLoader.getTestCaseNames(module.Test) if name not in names]
passed, failed = 0, 0
signal.alarm(LIMIT_S)
try:
    module.Test.setUpClass()
except BaseException as error:
    print(f"FAIL the preparation of {suite}: {error!r}\n0 passed, {len(names)} failed")
    sys.exit(1)
module.Test.setUpClass = classmethod(lambda kind: None)
for name in names:
    result = unittest.TestResult()
    signal.alarm(LIMIT_S)
    try:
        module.Test(name).run(result)
        problems = result.failures + result.errors
        problem = problems[0][1].strip().splitlines()[-1] if problems else None
    except TooLong:
        problem = f"no end in {LIMIT_S} s"
        fresh_clients()
    finally:
        signal.alarm(0)
    passed, failed = passed + (problem is None), failed + (problem is not None)
    print(f"PASS {suite} {name}" if problem is None else f"FAIL {suite} {name}: {problem}", flush=True)
print(f"{passed} passed, {failed} failed", flush=True)
# Threads of the suite may still run.
os._exit(1 if failed or not passed else 0)
