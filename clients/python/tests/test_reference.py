"""The same client with socketcluster-server: it is a client of the protocol, and not of one server."""

import os

from ringcast_client import AuthenticationChanged, CallError, ClosedError, ConnectionLostError, KickedOutError, ServerError
from support import AUTH_KEY, REPOSITORY, Case, Server, stays_connected, take, token, within


class Reference(Case):
    @classmethod
    def setUpClass(cls):
        command = ["node", str(REPOSITORY / "clients/python/tests/reference_app.mjs")]
        cls.server = Server(command, r"listening (\d+)\n", os.environ | {"AUTH_KEY": AUTH_KEY})

    async def test_calls_errors_and_events(self):
        client = await self.client()
        for data in ({"a": [1, None, "ä"]}, None, 5, "text"):
            self.assertEqual(await client.invoke("echo", data), data)
        with self.assertRaises(ServerError) as caught:
            await client.invoke("fail")
        self.assertEqual((caught.exception.name, caught.exception.message, caught.exception.details["hint"]), ("NotLikeThisError", "not like this", 7))
        said = client.receiver("said")
        await client.transmit("say", [1])
        self.assertEqual(await within(anext(said)), [1])

    async def test_channels(self):
        client, other = await self.client(), await self.client()
        channel = client.subscribe(self.channel())
        await within(channel.subscribed())
        await other.publish(channel.name, {"n": 1})
        await other.transmit_publish(channel.name, {"n": 2})
        publications = await take(aiter(channel), 2)
        self.assertEqual([(one.data, one.position, one.replayed) for one in publications], [({"n": 1}, None, False), ({"n": 2}, None, False)])
        with self.assertRaises(ServerError):
            await within(client.subscribe("secret").subscribed())

    async def test_a_kick(self):
        client = await self.client()
        channel = client.subscribe(self.channel())
        await within(channel.subscribed())
        await client.invoke("kick", channel.name)
        with self.assertRaises(KickedOutError):
            await within(anext(aiter(channel)))

    async def test_tokens(self):
        client = await self.client()
        for procedure in ("login", "loginSurely"):
            await client.login({"user": "ann"}, procedure=procedure)
            self.assertEqual((client.is_authenticated, client.claims["sub"]), (True, "ann"))
            events = client.events()
            await client.invoke("logout")
            self.assertEqual(await within(anext(events)), AuthenticationChanged(None, None))
        await client.authenticate(token(sub="bob"))
        other = await self.client(token=client.token)
        await within(other.connected())
        self.assertTrue(other.is_authenticated)
        with self.assertRaises(ServerError):
            await other.authenticate("bad")

    async def test_calls_of_the_server(self):
        client = await self.client()

        @client.procedure("question")
        async def question(call):
            if call.data == "no":
                raise CallError("no answer", name="NoAnswerError")
            return {"to": call.data}

        self.assertEqual(await client.invoke("askBack", 5), {"answer": {"to": 5}})
        self.assertEqual((await client.invoke("askBack", "no"))["error"]["name"], "NoAnswerError")

    async def test_codes(self):
        client = await self.client()
        await within(client.connected())
        first = client.id
        with self.assertRaises(ConnectionLostError):
            await client.invoke("end", 4001)
        await within(client.connected())
        self.assertNotEqual(client.id, first)
        with self.assertRaises(ConnectionLostError):
            await client.invoke("end", 1000)
        with self.assertRaises(ClosedError) as caught:
            await client.invoke("echo")
        self.assertEqual((caught.exception.code, caught.exception.reason), (1000, "as you wish"))

    async def test_pings_keep_a_silent_client_connected(self):
        client = await self.client()
        # The server pings every 200 ms, and takes clients as gone that are silent for 5 s.
        self.assertTrue(await stays_connected(client, 6.5))
