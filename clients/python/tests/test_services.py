"""Services, with the real server."""

import asyncio
import pathlib
import signal
import sys

from ringcast_client import CallError, Client, ServerError, Service, UnservedError
from support import QUICKLY, Case, eventually, start, token, within

RULES = """
[[rules]]
allow = "serve"
procedures = ["math.**", "echo", "slow", "log.**"]
to = { claim = "service", is = true }

[[rules]]
allow = ["invoke", "transmit"]
procedures = "**"
"""
SERVICE = {"service": True}
#: A service in a process of its own: answers with its name.
PROGRAM = """
import asyncio, sys
from ringcast_client import Backoff, Client, Service

async def main():
    async with Client(sys.argv[1], token=sys.argv[2], backoff=Backoff(0.02, 0.02, 1.2, 0.2)) as client:
        service = Service(client)

        @service.procedure("math.*")
        async def name(call):
            if call.data == "never":
                await asyncio.Event().wait()
            if call.data == "slowly":
                await asyncio.sleep(0.3)
            return sys.argv[3]

        await service.ready()
        print("ready", flush=True)
        await service.run()

asyncio.run(main())
"""


class Services(Case):
    CONFIG = RULES

    async def service(self, url=None, **options):
        client = await self.client(url, token=token(**SERVICE), **options)
        return Service(client)

    async def program(self, name, server=None):
        """Starts a service in a process of its own."""
        path = pathlib.Path(self.server.folder.name, "service.py")
        path.write_text(PROGRAM)
        server = server or self.server
        process = await asyncio.create_subprocess_exec(sys.executable, str(path), server.url, token(**SERVICE), name, stdout=asyncio.subprocess.PIPE)
        self.addCleanup(lambda: process.returncode is None and process.kill())
        self.assertEqual(await within(process.stdout.readline()), b"ready\n")
        return process

    async def test_a_call_comes_with_its_caller_and_its_answer_goes_back(self):
        service = await self.service()

        @service.procedure("echo")
        async def echo(call):
            return {"procedure": call.procedure, "data": call.data, "id": call.caller.id, "user": call.caller.user, "claims": call.caller.claims}

        await within(service.ready())
        caller = await self.client(token=token(sub="ann", role="x"))
        answer = await caller.invoke("echo", [1, None, "ä"])
        self.assertEqual(answer, {"procedure": "echo", "data": [1, None, "ä"], "id": caller.id, "user": "ann", "claims": {"sub": "ann", "role": "x"}})
        anonymous = await self.client()
        answer = await anonymous.invoke("echo")
        self.assertEqual(answer, {"procedure": "echo", "data": None, "id": anonymous.id, "user": None, "claims": None})
        await service.stop()

    async def test_a_pattern_covers_names_and_the_longest_one_counts(self):
        service = await self.service()

        @service.procedure("math.*")
        async def any_name(call):
            return ["math.*", call.procedure]

        @service.procedure("math.add*")
        async def longer(call):
            return ["math.add*", call.procedure]

        @service.procedure("math.add")
        async def exact(call):
            return ["math.add", call.procedure]

        await within(service.ready())
        caller = await self.client()
        for name, pattern in (("math.add", "math.add"), ("math.addition", "math.add*"), ("math.sub.x", "math.*")):
            self.assertEqual(await caller.invoke(name), [pattern, name])
        await service.stop()

    async def test_errors_go_back_unchanged_and_failures_stay_here(self):
        service = await self.service()

        @service.procedure("math.*")
        async def fails(call):
            if call.data == "deliberately":
                raise CallError("not today", name="NotTodayError", retry=5)
            raise ValueError("a secret of the program")

        await within(service.ready())
        caller = await self.client()
        with self.assertRaises(ServerError) as caught:
            await caller.invoke("math.add", "deliberately")
        self.assertEqual(caught.exception.details, {"message": "not today", "name": "NotTodayError", "retry": 5})
        with self.assertRaises(ServerError) as caught:
            await caller.invoke("math.add")
        self.assertEqual(caught.exception.details, {"message": "The procedure has failed", "name": "InternalError"})
        await service.stop()

    async def test_the_server_respects_the_window(self):
        service = await self.service()
        open_calls, most = 0, 0

        @service.procedure("math.*", window=3)
        async def counts(call):
            nonlocal open_calls, most
            open_calls += 1
            most = max(most, open_calls)
            await asyncio.sleep(0.01)
            open_calls -= 1
            return call.data

        await within(service.ready())
        caller = await self.client()
        answers = await within(asyncio.gather(*(caller.invoke("math.add", number) for number in range(40))))
        self.assertEqual((answers, most), (list(range(40)), 3))
        await service.stop()

    async def test_two_services_share_the_calls(self):
        services = [await self.service(), await self.service()]
        counts = [0, 0]
        for number, service in enumerate(services):

            @service.procedure("math.*")
            async def counted(call, number=number):
                counts[number] += 1

            await within(service.ready())
        caller = await self.client()
        for _ in range(20):
            await caller.invoke("math.add")
        self.assertEqual(counts, [10, 10])
        for service in services:
            await service.stop()

    async def test_one_way_events_come_too(self):
        service = await self.service()
        told = []

        @service.receiver("log.*")
        async def log(call):
            told.append((call.procedure, call.data, call.caller.user))

        await within(service.ready())
        caller = await self.client(token=token(sub="ann"))
        await caller.transmit("log.info", {"n": 1})
        await eventually(lambda: told, "the event")
        self.assertEqual(told, [("log.info", {"n": 1}, "ann")])
        await service.stop()

    async def test_a_call_is_cancelled_when_its_caller_goes(self):
        service = await self.service()
        states = []

        @service.procedure("slow")
        async def slow(call):
            states.append("began")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                states.append("cancelled")
                raise

        await within(service.ready())
        caller = await self.client()
        call = asyncio.create_task(caller.invoke("slow"))
        await eventually(lambda: states, "the call")
        await caller.close()
        await eventually(lambda: states == ["began", "cancelled"], "the end of the call")
        await asyncio.gather(call, return_exceptions=True)
        await service.stop()

    async def test_without_a_rule_nothing_is_served(self):
        service = await self.service()

        @service.procedure("other")
        async def other(call): ...

        with self.assertRaises(ServerError):
            await within(service.ready())

    async def test_a_service_that_loses_its_rule_is_told(self):
        service = await self.service()

        @service.procedure("math.*")
        async def name(call):
            return "here"

        await within(service.ready())
        await service._client.authenticate(token(service=False))
        with self.assertRaises(UnservedError):
            await eventually(lambda: service._patterns["math.*"].error, "the news")
            await within(service.ready())

    async def test_a_service_that_is_killed_fails_its_calls_and_its_successor_answers(self):
        caller = await self.client()
        first = await self.program("first")
        self.assertEqual(await caller.invoke("math.add"), "first")
        call = asyncio.create_task(caller.invoke("math.add", "never"))
        await caller.invoke("math.add")
        first.send_signal(signal.SIGKILL)
        with self.assertRaises(ServerError) as caught:
            await within(call)
        self.assertEqual(caught.exception.name, "ServiceGoneError")
        second = await self.program("second")
        self.assertEqual(await caller.invoke("math.add"), "second")
        second.kill()
        await within(second.wait())

    async def test_a_service_that_is_stopped_answers_what_is_open(self):
        caller = await self.client()
        first = await self.program("first")
        call = asyncio.create_task(caller.invoke("math.add", "slowly"))
        await caller.invoke("math.add")
        first.send_signal(signal.SIGTERM)
        self.assertEqual((await within(call), await within(first.wait())), ("first", 0))

    async def test_a_service_comes_back_after_a_cut(self):
        proxy = await self.proxy()
        service = await self.service(proxy.url)

        @service.procedure("math.*")
        async def name(call):
            return "here"

        await within(service.ready())
        caller = await self.client()
        for _ in range(3):
            proxy.cut()
            await eventually(lambda: service._client.state != "open", "the cut")
            await within(service._client.connected())
            await within(service.ready())
            self.assertEqual(await caller.invoke("math.add"), "here")
        await service.stop()

    async def test_a_service_comes_back_after_a_restart_of_the_server(self):
        server = start(RULES)
        process = await self.program("here", server)
        caller = Client(server.url, backoff=QUICKLY)
        async with caller:
            self.assertEqual(await caller.invoke("math.add"), "here")
            server.stop()
            server = start(RULES, port=server.port)
            self.addCleanup(server.stop)

            async def answered():
                while True:
                    try:
                        return await caller.invoke("math.add", timeout=1)
                    except Exception:
                        await asyncio.sleep(0.02)

            self.assertEqual(await within(answered()), "here")
        process.kill()
        await within(process.wait())


