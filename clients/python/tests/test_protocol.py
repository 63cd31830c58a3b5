"""What a server may do that Ringcast does rarely or never: the other side is a script."""

import asyncio
import json
import ssl
import unittest

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidURI

from ringcast_client import CallError, Client, ClosedError, ConnectionLostError, Disconnected, KickedOutError, ServerError, Service, SlowReaderError
from support import PATIENCE, QUICKLY, eventually, take, token, within


class Peer:
    """The server's side of one connection."""

    def __init__(self, websocket):
        self.websocket = websocket

    async def send(self, *packets):
        for packet in packets:
            await self.websocket.send(packet if isinstance(packet, str | bytes) else json.dumps(packet))

    async def receive(self):
        text = await within(self.websocket.recv())
        return json.loads(text) if text else text

    async def handshake(self, **facts):
        packet = await self.receive()
        assert packet["event"] == "#handshake", packet
        await self.send({"rid": packet["cid"], "data": {"id": "x", "pingTimeout": 60_000, "isAuthenticated": False} | facts})
        return packet


class Scripted(unittest.IsolatedAsyncioTestCase):
    async def script(self, *acts, **options):
        """A client of a server that runs the acts, one for each connection."""
        acts = list(acts)
        self.failures, self.connections = [], 0

        async def accept(websocket):
            self.connections += 1
            if acts:
                try:
                    await acts.pop(0)(Peer(websocket))
                except ConnectionClosed:
                    pass
                except Exception as error:
                    self.failures.append(error)

        server = await self.enterAsyncContext(serve(accept, "127.0.0.1", 0))
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/socketcluster/"
        client = Client(url, **({"backoff": QUICKLY, "call_timeout": PATIENCE} | options))
        self.addCleanup(lambda: self.assertEqual(self.failures, []))
        return client


class Protocol(Scripted):
    async def test_a_ping_is_answered(self):
        done = asyncio.Event()

        async def act(peer):
            await peer.handshake()
            await peer.send("")
            self.assertEqual(await peer.receive(), "")
            done.set()
            await peer.websocket.wait_closed()

        async with await self.script(act):
            await within(done.wait())

    async def test_without_pings_the_client_closes_and_comes_back(self):
        codes = []

        async def silent(peer):
            await peer.handshake(pingTimeout=100)
            await peer.websocket.wait_closed()
            codes.append(peer.websocket.close_code)

        async def answers(peer):
            await peer.handshake()
            await peer.websocket.wait_closed()

        async with await self.script(silent, answers) as client:
            events = client.events()
            ends = [event for event in await take(events, 3) if isinstance(event, Disconnected)]
            self.assertEqual([end.code for end in ends], [4000])
        self.assertEqual(codes, [4000])

    async def test_a_handshake_without_an_answer_is_given_up(self):
        async def silent(peer):
            await peer.websocket.wait_closed()

        async def answers(peer):
            await peer.handshake()
            await peer.websocket.wait_closed()

        async with await self.script(silent, answers, connect_timeout=0.5) as client:
            await within(client.connected())
            self.assertEqual(self.connections, 2)

    async def test_a_refused_handshake_says_why(self):
        async def refuses(peer):
            packet = await peer.receive()
            await peer.send({"rid": packet["cid"], "error": {"name": "Full", "message": "come back later", "statusCode": 4501}})
            await peer.websocket.wait_closed()

        async with await self.script(refuses) as client:
            with self.assertRaises(ClosedError) as caught:
                await within(client.connected())
            self.assertEqual((caught.exception.code, caught.exception.reason), (4501, "come back later"))
            self.assertIsInstance(caught.exception.__cause__, ServerError)
            with self.assertRaises(ClosedError):
                await client.invoke("ping")

    async def test_codes_that_end_a_client_for_good(self):
        for code in (1000, 4500):

            async def closes(peer, code=code):
                await peer.handshake()
                await peer.receive()
                await peer.websocket.close(code, "go away")

            async with await self.script(closes) as client:
                channel = client.subscribe("room")
                with self.assertRaises(ClosedError) as caught:
                    await within(anext(aiter(channel)))
                self.assertEqual((caught.exception.code, caught.exception.reason, client.state), (code, "go away", "closed"))

    async def test_other_codes_make_it_come_back(self):
        async def closes(peer):
            await peer.handshake()
            await peer.websocket.close(1001, "restart")

        async def answers(peer):
            packet = await peer.handshake()
            self.assertGreater(packet["cid"], 1)
            await peer.websocket.wait_closed()

        async with await self.script(closes, closes, answers) as client:
            await eventually(lambda: self.connections == 3 and client.state == "open", "the third connection")

    async def test_subscriptions_come_first_and_by_priority(self):
        seen = []

        async def act(peer):
            await peer.handshake()
            for _ in range(4):
                packet = await peer.receive()
                seen.append((packet["event"], packet["data"]))
            await peer.websocket.wait_closed()

        async with await self.script(act) as client:
            await client.transmit("early", 1)
            client.subscribe("a", recover=False)
            client.subscribe("b", recover=False, priority=5, data=[1])
            client.subscribe("c")
            await eventually(lambda: len(seen) == 4, "all packets")
        self.assertEqual(
            seen,
            [
                ("#subscribe", {"channel": "b", "data": [1]}),
                ("#subscribe", {"channel": "a"}),
                ("#subscribe", {"channel": "c", "data": {"recover": None}}),
                ("early", 1),
            ],
        )

    async def test_a_kick_ends_a_subscription_for_good(self):
        async def kicks(peer):
            await peer.handshake()
            packet = await peer.receive()
            await peer.send({"rid": packet["cid"]}, {"event": "#publish", "data": {"channel": "room", "data": 1}})
            await peer.send({"event": "#kickOut", "data": {"channel": "room", "message": "no more"}})
            await peer.websocket.close(1001)

        async def waits(peer):
            await peer.handshake()
            packet = await peer.receive()
            self.assertEqual(packet, {"event": "after", "data": 1})
            await peer.websocket.wait_closed()

        async with await self.script(kicks, waits) as client:
            reader = aiter(client.subscribe("room"))
            self.assertEqual((await within(anext(reader))).data, 1)
            with self.assertRaises(KickedOutError) as caught:
                await within(anext(reader))
            self.assertEqual((caught.exception.channel, caught.exception.message), ("room", "no more"))
            await eventually(lambda: self.connections == 2 and client.state == "open", "the second connection")
            await client.transmit("after", 1)
            await eventually(lambda: not client._outbox or len(client._outbox) == 0, "it is sent")

    async def test_the_position_of_what_was_withheld_is_the_one_that_it_recovers_from(self):
        def position(offset):
            return {"epoch": "k3j9x0ab", "offset": offset}

        def event(name, **data):
            return {"event": name, "data": {"channel": "room", **data}}

        asked = []

        async def withholds(peer):
            await peer.handshake()
            packet = await peer.receive()
            # Two were to follow: one is withheld.
            answer = {"recovered": True, "position": position(9), "publications": 2}
            await peer.send({"rid": packet["cid"], "data": answer})
            await peer.send(event("#publish", position=position(7), replayed=True, data="seen"))
            await peer.send(event("$position", position=position(9)))
            await peer.websocket.close(1001)

        async def recovers(peer):
            await peer.handshake()
            asked.append((await peer.receive())["data"]["data"])
            await peer.websocket.wait_closed()

        async with await self.script(withholds, recovers) as client:
            reader = aiter(client.subscribe("room", last=2))
            self.assertEqual((await within(anext(reader))).data, "seen")
            await eventually(lambda: len(asked) == 1, "the second subscribe")
        self.assertEqual(asked, [{"recover": position(9)}])

    async def test_procedures_of_the_client_answer_the_server(self):
        answers = []

        async def calls(peer):
            await peer.handshake()
            packets = [{"event": "slow", "cid": 1}, {"event": "add", "cid": 2, "data": [1, 2]}, {"event": "refuse", "cid": 3}]
            await peer.send(packets, {"event": "fail", "cid": 4}, {"event": "unknown", "cid": 5})
            for _ in range(4):
                answers.append(await peer.receive())
            await peer.send({"event": "go"})
            answers.append(await peer.receive())
            await peer.websocket.wait_closed()

        client = await self.script(calls)
        go = asyncio.Event()

        @client.procedure("slow")
        async def slow(call):
            await go.wait()

        @client.procedure("add")
        async def add(call):
            return sum(call.data)

        @client.procedure("refuse")
        async def refuse(call):
            raise CallError("not now", name="BusyError", retry=5)

        @client.procedure("fail")
        async def fail(call):
            raise ValueError("a secret of the program")

        async with client:
            await within(anext(client.receiver("go")))
            go.set()
            await eventually(lambda: len(answers) == 5, "all answers")
        self.assertEqual(
            sorted(answers, key=lambda answer: answer["rid"]),
            [
                {"rid": 1},
                {"rid": 2, "data": 3},
                {"rid": 3, "error": {"message": "not now", "name": "BusyError", "retry": 5}},
                {"rid": 4, "error": {"message": "The procedure has failed", "name": "InternalError"}},
                {"rid": 5, "error": {"message": "This client has no procedure unknown", "name": "UnknownProcedureError"}},
            ],
        )
        self.assertEqual(answers[-1], {"rid": 1})

    async def test_a_procedure_is_cancelled_with_its_connection(self):
        ends = []

        async def calls(peer):
            await peer.handshake()
            await peer.send({"event": "slow", "cid": 1})
            await peer.receive()
            await peer.websocket.close(1001)

        client = await self.script(calls)

        @client.procedure("slow")
        async def slow(call):
            try:
                await client.transmit("began")
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append(True)
                raise

        async with client:
            await eventually(lambda: ends, "it is cancelled")

    async def test_a_token_that_is_delivered_as_a_call_is_acknowledged(self):
        seen = []

        async def gives(peer):
            await peer.handshake()
            await peer.send({"event": "#setAuthToken", "cid": 7, "data": {"token": token(sub="ann")}})
            seen.append(await peer.receive())
            await peer.send({"event": "#removeAuthToken", "cid": 8})
            seen.append(await peer.receive())
            await peer.websocket.wait_closed()

        async with await self.script(gives) as client:
            events = client.events()
            _, given, taken = await take(events, 3)
            self.assertEqual((given.claims, taken.token), ({"sub": "ann"}, None))
            await eventually(lambda: len(seen) == 2, "both answers")
        self.assertEqual(seen, [{"rid": 7}, {"rid": 8}])

    async def test_what_no_client_understands_is_ignored(self):
        async def answers(peer):
            await peer.send("", "#1", b"\0", "null", "{", '"text"', {"event": "#publish", "data": {"channel": "room", "data": "early"}})
            packet = await peer.receive()
            packet = packet or await peer.receive()
            await peer.send({"rid": packet["cid"], "data": {"id": "x", "pingTimeout": 60_000, "isAuthenticated": False}})
            await peer.send({"rid": 99, "data": 1}, {"rid": "1", "data": 1}, {"event": 5}, {"event": "#publish"}, {"event": "#publish", "data": {}})
            await peer.send({"event": "#publish", "data": {"channel": ["room"]}}, {"event": "#kickOut"}, {"event": "#setAuthToken", "data": 5})
            while (packet := await peer.receive()) == "" or packet["event"] != "echo":
                pass
            await peer.send([{"rid": packet["cid"], "data": packet["data"]}])
            await peer.websocket.wait_closed()

        async with await self.script(answers) as client:
            client.subscribe("room")
            self.assertEqual(await client.invoke("echo", {"a": None}), {"a": None})
            self.assertIsNone(client.token)

    async def test_an_error_may_be_a_text(self):
        async def fails(peer):
            await peer.handshake()
            packet = await peer.receive()
            await peer.send({"rid": packet["cid"], "error": "just a text"})
            await peer.websocket.wait_closed()

        async with await self.script(fails) as client:
            with self.assertRaises(ServerError) as caught:
                await client.invoke("anything")
            self.assertEqual(caught.exception.message, "just a text")

    async def test_a_close_leaves_a_code(self):
        codes = []

        async def act(peer):
            await peer.handshake()
            await peer.websocket.wait_closed()
            codes.append(peer.websocket.close_code)

        for code in (1000, 1001):
            client = await self.script(act)
            client.connect()
            await within(client.connected())
            await client.close(code)
            await eventually(lambda: codes, "the end")
            self.assertEqual(codes.pop(), code)

    async def test_a_server_that_is_no_websocket_server_is_tried_again(self):
        async def http(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(http, "127.0.0.1", 0)
        self.addAsyncCleanup(server.wait_closed)
        self.addCleanup(server.close)
        async with Client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", backoff=QUICKLY) as client:
            events = client.events()
            for end in await take(events, 3):
                self.assertEqual(end.code, 1006)
                self.assertIn("403", end.reason)

    async def test_options_that_can_never_work_are_told(self):
        for url in ("localhost:8000", "http://localhost:8000/", "ws:///"):
            self.assertRaises(InvalidURI, Client, url)
        # No TLS with ws://.
        async with Client("ws://localhost:1/", websocket={"ssl": ssl.create_default_context()}) as client:
            channel = client.subscribe("room")
            with self.assertRaises(ClosedError):
                await within(client.connected())
            with self.assertRaises(ValueError):
                await within(anext(aiter(channel)))

    async def test_a_connection_that_ends_fails_its_calls(self):
        async def ends(peer):
            await peer.handshake()
            await peer.receive()
            await peer.websocket.close(1011)

        async with await self.script(ends) as client:
            with self.assertRaises(ConnectionLostError):
                await client.invoke("anything")


class Services(Scripted):
    async def test_a_service_registers_after_each_connect_and_answers(self):
        seen = []

        async def first(peer):
            await peer.handshake()
            for _ in range(2):
                packet = await peer.receive()
                seen.append((packet["event"], packet["data"]))
                await peer.send({"rid": packet["cid"], "data": packet["data"]})
            caller = {"id": "c", "user": "ann", "claims": {"sub": "ann"}}
            await peer.send({"event": "math.add", "data": {"data": [1, 2], "caller": caller}, "cid": 7})
            seen.append(await peer.receive())
            await peer.send({"event": "math.neg", "data": {"caller": {"id": "d"}}, "cid": 8})
            seen.append(await peer.receive())
            await peer.send({"event": "math.add", "data": {"data": "log", "caller": caller}})
            await peer.send({"event": "other.add", "data": {"data": 1, "caller": caller}, "cid": 9})
            seen.append(await peer.receive())
            await peer.websocket.close(1001)

        async def second(peer):
            await peer.handshake()
            seen.append({(await peer.receive())["data"]["procedure"] for _ in range(2)})
            await peer.websocket.wait_closed()

        client = await self.script(first, second)
        service = Service(client)
        told = []

        @service.procedure("math.*", weight=2, window=5)
        async def math(call):
            return [call.procedure, call.data, call.caller.id, call.caller.user, call.caller.claims]

        @service.procedure("math.neg")
        async def neg(call):
            raise CallError("no", name="NoError")

        @service.receiver("math.*")
        async def log(call):
            told.append(call.data)

        async with client:
            await within(service.ready())
            await eventually(lambda: len(seen) == 6, "the second registration")
        self.assertEqual(seen[:2], [("$serve", {"procedure": "math.*", "weight": 2, "window": 5}), ("$serve", {"procedure": "math.neg"})])
        self.assertEqual(seen[2], {"rid": 7, "data": ["math.add", [1, 2], "c", "ann", {"sub": "ann"}]})
        self.assertEqual(seen[3], {"rid": 8, "error": {"message": "no", "name": "NoError"}})
        self.assertEqual(seen[4]["error"]["name"], "UnknownProcedureError")
        self.assertEqual((seen[5], told), ({"math.*", "math.neg"}, ["log"]))

    async def test_a_cancelled_call_is_not_answered(self):
        ends = []

        async def act(peer):
            await peer.handshake()
            packet = await peer.receive()
            await peer.send({"rid": packet["cid"]})
            await peer.send({"event": "slow", "data": {"caller": {"id": "c"}}, "cid": 1})
            await peer.send({"event": "$cancel", "data": {"rid": 1}})
            await peer.send({"event": "slow", "data": {"data": "fast", "caller": {"id": "c"}}, "cid": 2})
            ends.append(await peer.receive())
            await peer.websocket.wait_closed()

        client = await self.script(act)
        service = Service(client)

        @service.procedure("slow")
        async def slow(call):
            if call.data != "fast":
                await asyncio.Event().wait()

        async with client:
            await eventually(lambda: ends, "the answer of the second call")
        self.assertEqual(ends, [{"rid": 2}])

    async def test_what_has_no_form_in_json_is_a_failure(self):
        answers = []

        async def act(peer):
            await peer.handshake()
            await peer.send({"event": "value", "cid": 1}, {"event": "error", "cid": 2})
            for _ in range(2):
                answers.append(await peer.receive())
            await peer.websocket.wait_closed()

        client = await self.script(act)

        @client.procedure("value")
        async def value(call):
            return {1, 2}

        @client.procedure("error")
        async def error(call):
            raise CallError("x", why={1, 2})

        async with client:
            await eventually(lambda: len(answers) == 2, "both answers")
        self.assertEqual({answer["error"]["name"] for answer in answers}, {"InternalError"})

    async def test_events_beyond_the_limit_are_dropped_and_told(self):
        async def act(peer):
            await peer.handshake()
            packet = await peer.receive()
            await peer.send({"rid": packet["cid"]})
            for number in range(3):
                await peer.send({"event": "log", "data": {"data": number, "caller": {"id": "c"}}})
            await peer.websocket.wait_closed()

        client = await self.script(act, pending_max=2)
        service = Service(client)
        began, go = [], asyncio.Event()

        @service.receiver("log")
        async def log(call):
            began.append(call.data)
            await go.wait()

        events = client.events()
        async with client:
            problem = (await take(events, 2))[1]
            self.assertIsInstance(problem.error, SlowReaderError)
            await eventually(lambda: began == [0, 1], "two events")
            go.set()
            await eventually(lambda: not client._tasks, "their ends")

    async def test_a_refused_registration_raises(self):
        async def refuses(peer):
            await peer.handshake()
            packet = await peer.receive()
            await peer.send({"rid": packet["cid"], "error": {"name": "SilentMiddlewareBlockedError", "message": "no rule"}})
            await peer.websocket.wait_closed()

        client = await self.script(refuses)
        service = Service(client)

        @service.procedure("math.*")
        async def math(call): ...

        async with client:
            with self.assertRaises(ServerError):
                await within(service.ready())

    async def test_a_stop_lets_open_calls_end(self):
        seen, events = [], []

        async def act(peer):
            await peer.handshake()
            packet = await peer.receive()
            await peer.send({"rid": packet["cid"]}, {"event": "slow", "data": {"caller": {"id": "c"}}, "cid": 1})
            while len(seen) < 2:
                packet = await peer.receive()
                if packet.get("event") == "$unserve":
                    seen.append(packet["data"])
                    await peer.send({"rid": packet["cid"]})
                    go.set()
                else:
                    seen.append(packet)
            await peer.websocket.wait_closed()

        go = asyncio.Event()
        client = await self.script(act)
        service = Service(client)

        @service.procedure("slow")
        async def slow(call):
            events.append("began")
            await go.wait()
            return "done"

        async with client:
            await eventually(lambda: events, "the call")
            await within(service.stop())
            await eventually(lambda: len(seen) == 2, "the answer")
        self.assertEqual(seen, [{"procedure": "slow"}, {"rid": 1, "data": "done"}])
