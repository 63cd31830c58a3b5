"""MQTT clients in Python (paho-mqtt, aiomqtt) and Mosquitto's tools against a running server.

usage: mqtt_clients.py HOST PORT WEBSOCKET_PORT WEBSOCKET_PATH
The last line is `N passed, N failed`; the exit status is 1 if any failed.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time

import aiomqtt
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT, WS_PORT, WS_PATH = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
# The longest wait for anything, however busy the machine is. Only failing checks wait so long.
PATIENCE_S = 20
results = []
names = 0


def check(name, found, expected=True):
    results.append(found == expected)
    print(f"PASS {name}" if found == expected else f"FAIL {name}\n  found    {found}\n  expected {expected}", flush=True)


def fresh(kind="topic"):
    global names
    names += 1
    return f"py/{os.getpid()}/{kind}{names}"


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


class Client:
    """A connected client of paho-mqtt, with what it has received."""

    def __init__(self, version, transport="tcp", will=None, **options):
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=version, transport=transport, **options)
        self.received, self.answers, self.connected, self.ended = [], [], threading.Event(), threading.Event()
        self.client.on_message = lambda client, data, message: self.received.append(message)
        self.client.on_connect = lambda client, data, flags, reason, properties: (self.answers.append((flags.session_present, reason.is_failure)), self.connected.set())
        self.client.on_disconnect = lambda client, data, flags, reason, properties: self.ended.set()
        self.granted, self.acknowledged = [], []
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self.granted.extend(code.value for code in codes)
        self.client.on_publish = lambda client, data, mid, reason, properties: self.acknowledged.append(mid)
        if transport == "websockets":
            self.client.ws_set_options(path=WS_PATH)
        if will:
            self.client.will_set(will, "gone", qos=1)
        self.client.connect(HOST, WS_PORT if transport == "websockets" else PORT, keepalive=60)
        self.client.loop_start()
        self.connected.wait(PATIENCE_S)

    def subscribe(self, *filters, qos=1):
        before = len(self.granted)
        self.client.subscribe([(one, qos) for one in filters])
        until(lambda: len(self.granted) == before + len(filters))
        return self.granted[before:]

    def publish(self, topic, payload, qos=1, **more):
        self.client.publish(topic, payload, qos=qos, **more).wait_for_publish(PATIENCE_S)

    def payloads(self, count):
        until(lambda: len(self.received) >= count)
        return [message.payload.decode() for message in self.received]

    def leave(self):
        self.client.disconnect()
        self.ended.wait(PATIENCE_S)
        self.client.loop_stop()

    def cut(self):
        self.client.loop_stop()
        self.client.socket().close()


def paho_mqtt(label, version, transport):
    one, two = Client(version, transport), Client(version, transport)
    check(f"{label}: connected without a session", one.answers, [(False, False)])
    topic = fresh()
    check(f"{label}: subscriptions are granted", two.subscribe(f"{topic}/+", f"{topic}/deep/#", qos=2), [2, 2])
    for i in range(20):
        one.client.publish(f"{topic}/x", str(i), qos=i % 3)
    two.payloads(20)
    for qos in range(3):
        numbers = [int(message.payload) for message in two.received if message.qos == qos]
        check(f"{label}: QoS {qos}, once each, in order", numbers, list(range(qos, 20, 3)))
    two.received.clear()
    one.publish(f"{topic}/deep/er", b"\x00\xff", qos=2, retain=True)
    until(lambda: two.received)
    check(f"{label}: any bytes below a wildcard", [(message.topic, message.payload, message.retain) for message in two.received], [(f"{topic}/deep/er", b"\x00\xff", False)])
    three = Client(version, transport)
    three.subscribe(f"{topic}/#")
    until(lambda: three.received)
    check(f"{label}: a retained message", [(message.payload, message.retain) for message in three.received], [(b"\x00\xff", True)])
    one.publish(f"{topic}/deep/er", b"", retain=True)
    will = fresh("will")
    three.subscribe(will)
    three.received.clear()
    Client(version, transport, will=will).cut()
    check(f"{label}: a last will", three.payloads(1), ["gone"])
    three.received.clear()
    if version == paho.MQTTv5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("b", "2"), ("a", "1"), ("b", "1")]
        properties.ResponseTopic, properties.CorrelationData, properties.ContentType = "answer/here", b"\x01\x02", "text/plain"
        one.publish(will, "v", properties=properties)
        until(lambda: three.received)
        found = three.received[0].properties if three.received else None
        check(f"{label}: properties in their order", found and [found.UserProperty, found.ResponseTopic, found.CorrelationData, found.ContentType],
              [[("b", "2"), ("a", "1"), ("b", "1")], "answer/here", b"\x01\x02", "text/plain"])
    for client in (one, two, three):
        client.leave()
    check(f"{label}: all have left", [client.ended.is_set() for client in (one, two, three)], [True] * 3)


async def aio(label, version):
    topic, got = fresh("aio"), []
    async with aiomqtt.Client(HOST, PORT, protocol=version) as receiver, aiomqtt.Client(HOST, PORT, protocol=version) as sender:
        await receiver.subscribe(f"{topic}/#", qos=2)
        for i in range(10):
            await sender.publish(f"{topic}/{i}", f"{i}", qos=i % 3)

        async def receive():
            async for message in receiver.messages:
                got.append(int(message.payload))
                if len(got) == 10:
                    return

        await asyncio.wait_for(receive(), PATIENCE_S)
    check(f"{label}: all have come", sorted(got), list(range(10)))


def tool(name, *words, **more):
    # Into a pipe, the tools would write their lines only when they end.
    return subprocess.Popen(["stdbuf", "-oL", name, "-h", HOST, "-p", str(PORT), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def run(name, *words):
    process = tool(name, *words)
    try:
        return process.communicate(timeout=PATIENCE_S)[0], process.returncode
    finally:
        process.kill()


def subscribed(*words):
    """mosquitto_sub, when it has subscribed (which `-d` says)."""
    process = tool("mosquitto_sub", "-d", *words)
    watch = threading.Timer(PATIENCE_S, process.kill)
    watch.start()
    for line in process.stdout:
        if line.startswith("Subscribed"):
            break
    watch.cancel()
    return process


def finished(process):
    try:
        text = process.communicate(timeout=PATIENCE_S)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return "no end"
    told = ("Client ", "Subscribed")
    return [line for line in text.splitlines() if line and not line.startswith(told)]


def mosquitto(label, version):
    topic = fresh("tools")
    for qos in "012":
        waiting = subscribed("-V", version, "-t", f"{topic}/+", "-q", qos, "-C", "2", "-F", "%t %q %p")
        outcomes = [run("mosquitto_pub", "-V", version, "-t", f"{topic}/a", "-q", qos, "-m", payload) for payload in ("one", "two")]
        check(f"{label}: mosquitto_pub, QoS {qos}", outcomes, [("", 0)] * 2)
        check(f"{label}: mosquitto_sub, QoS {qos}", finished(waiting), [f"{topic}/a {qos} {payload}" for payload in ("one", "two")])
    check(f"{label}: a retained message is set", run("mosquitto_pub", "-V", version, "-t", f"{topic}/kept", "-r", "-q", "1", "-m", "kept"), ("", 0))
    check(f"{label}: and read", run("mosquitto_sub", "-V", version, "-t", f"{topic}/kept", "-C", "1", "-F", "%r %p"), ("1 kept\n", 0))
    check(f"{label}: and cleared", run("mosquitto_pub", "-V", version, "-t", f"{topic}/kept", "-r", "-n", "-q", "1"), ("", 0))
    check(f"{label}: nothing is left", run("mosquitto_sub", "-V", version, "-t", f"{topic}/kept", "-W", "1")[0].replace("Timed out\n", ""), "")
    waiting = subscribed("-V", version, "-t", f"{topic}/will", "-C", "1", "-F", "%p")
    dying = subscribed("-V", version, "-t", f"{topic}/none", "--will-topic", f"{topic}/will", "--will-payload", "killed", "--will-qos", "1")
    dying.kill()
    dying.wait()
    check(f"{label}: the last will of a killed mosquitto_sub", finished(waiting), ["killed"])
    if version == "mqttv5":
        answering = subscribed("-V", version, "-t", f"{topic}/ask", "-C", "1", "-F", "%R|%p")
        asking = tool("mosquitto_rr", "-V", version, "-t", f"{topic}/ask", "-e", f"{topic}/answer", "-m", "what?", "-q", "1")
        check(f"{label}: mosquitto_rr asks", finished(answering), [f"{topic}/answer|what?"])
        run("mosquitto_pub", "-V", version, "-t", f"{topic}/answer", "-q", "1", "-m", "that")
        check(f"{label}: and gets the answer", finished(asking), ["that"])
        calling = tool("mosquitto_rr", "-V", version, "-t", "$rpc/ping", "-e", f"{topic}/pong", "-m", "", "-q", "1")
        check(f"{label}: mosquitto_rr calls a procedure", [line.startswith('{"count":') for line in finished(calling)], [True])


def guarded(name, run_it):
    try:
        run_it()
    except Exception as error:
        check(name, repr(error), "no error")


for version, words in ((paho.MQTTv311, "3.1.1"), (paho.MQTTv5, "5")):
    for transport in ("tcp", "websockets"):
        label = f"paho-mqtt, {words}, {transport}"
        guarded(label, lambda: paho_mqtt(label, version, transport))
    guarded(f"aiomqtt, {words}", lambda: asyncio.run(aio(f"aiomqtt, {words}", aiomqtt.ProtocolVersion.V311 if words == "3.1.1" else aiomqtt.ProtocolVersion.V5)))
check("Mosquitto's tools are installed", shutil.which("mosquitto_pub") is not None)
if shutil.which("mosquitto_pub"):
    for version in ("mqttv31", "mqttv311", "mqttv5"):
        guarded(f"Mosquitto's tools, {version}", lambda: mosquitto(f"Mosquitto's tools, {version}", version))
print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
sys.exit(0 if results and all(results) else 1)
