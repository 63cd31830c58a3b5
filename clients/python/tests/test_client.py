"""Calls, publications and authentication, with the real server."""

import asyncio
import pathlib
import subprocess
import tempfile

import support
from ringcast_client import (
    AuthenticationChanged,
    CallTimeoutError,
    Client,
    ClosedError,
    Connected,
    ConnectionLostError,
    Disconnected,
    ServerError,
)
from support import PATIENCE, Case, eventually, stays_connected, take, token, within


class Calls(Case):
    SETTINGS = {"ping_interval_ms": 100, "ping_timeout_ms": 5000}

    async def test_a_call_is_answered(self):
        client = await self.client()
        self.assertGreater((await client.invoke("ping"))["count"], 0)

    async def test_what_is_called_before_the_connection_waits_for_it_in_order(self):
        client = await self.client()
        channel = client.subscribe(self.channel())
        self.assertEqual(client.state, "connecting")
        for number in range(3):
            await client.transmit_publish(channel.name, number)
        await client.publish(channel.name, 3)
        self.assertEqual([one.data for one in await take(aiter(channel), 4)], [0, 1, 2, 3])

    async def test_an_error_has_its_name_and_members(self):
        client = await self.client()
        with self.assertRaises(ServerError) as caught:
            await client.invoke("#publish", {"channel": 5})
        self.assertEqual((caught.exception.name, caught.exception.message), ("InvalidActionError", "Publish channel name was malformatted"))
        self.assertEqual(caught.exception.details["name"], "InvalidActionError")

    async def test_a_call_without_an_answer_times_out(self):
        client = await self.client()
        with self.assertRaises(CallTimeoutError):
            await client.invoke("nobody answers this", timeout=0.05)
        self.assertEqual(client._calls, {})
        self.assertGreater((await client.invoke("ping"))["count"], 0)

    async def test_a_timeout_without_a_connection_says_why(self):
        proxy = await self.proxy()
        proxy.is_down = True
        client = await self.client(proxy.url)
        with self.assertRaises(CallTimeoutError) as caught:
            await client.invoke("ping", timeout=0.5)
        self.assertNotIsInstance(caught.exception.__cause__, TimeoutError)

    async def test_calls_fail_with_their_connection(self):
        proxy = await self.proxy()
        client = await self.client(proxy.url)
        await within(client.connected())
        call = asyncio.create_task(client.invoke("nobody answers this"))
        await eventually(lambda: client._calls, "the call is sent")
        await client.invoke("ping")
        proxy.cut()
        with self.assertRaises(ConnectionLostError):
            await within(call)
        self.assertGreater((await client.invoke("ping"))["count"], 0)

    async def test_a_full_queue_holds_up_its_callers_and_no_more(self):
        proxy = await self.proxy()
        proxy.is_down = True
        client = await self.client(proxy.url, pending_max=2)
        channel = client.subscribe(self.channel())
        sends = [asyncio.create_task(client.transmit_publish(channel.name, number)) for number in range(5)]
        await eventually(lambda: len(client._waiting) == 2, "two wait in the queue")
        self.assertEqual([send.done() for send in sends], [True, True, False, False, False])
        proxy.is_down = False
        await within(asyncio.gather(*sends))
        self.assertEqual([one.data for one in await take(aiter(channel), 5)], [0, 1, 2, 3, 4])

    async def test_a_call_that_was_given_up_is_never_sent(self):
        proxy = await self.proxy()
        proxy.is_down = True
        client = await self.client(proxy.url, pending_max=1)
        channel = client.subscribe(self.channel())
        with self.assertRaises(CallTimeoutError):
            await client.invoke("#publish", {"channel": channel.name, "data": "too late"}, timeout=0.05)
        await within(client.transmit_publish(channel.name, "in time"))
        proxy.is_down = False
        self.assertEqual((await within(anext(aiter(channel)))).data, "in time")

    async def test_one_way_events_come_to_their_receivers(self):
        client = await self.client()
        pongs = client.receiver("pong")
        await client.transmit("ping")
        self.assertGreater((await within(anext(pongs)))["count"], 0)

    async def test_events_tell_what_happens(self):
        proxy = await self.proxy()
        client = Client(proxy.url)
        events = client.events()
        async with client:
            first = await within(anext(events))
            self.assertEqual(first, Connected(client.id, False, None))
            proxy.cut()
            end = await within(anext(events))
            self.assertIsInstance(end, Disconnected)
            self.assertEqual(end.code, 1006)
            self.assertGreater(end.retry_in, 0)

    async def test_a_closed_client_ends_all_and_can_come_back(self):
        client = await self.client()
        channel = client.subscribe(self.channel())
        await within(channel.subscribed())
        reader = aiter(channel)
        call = asyncio.create_task(client.invoke("nobody answers this"))
        await client.invoke("ping")
        await within(client.close())
        with self.assertRaises(StopAsyncIteration):
            await anext(reader)
        with self.assertRaises((ClosedError, ConnectionLostError)):
            await call
        with self.assertRaises(ClosedError):
            await client.invoke("ping")
        self.assertRaises(ClosedError, client.subscribe, "room")
        client.connect()
        await within(client.connected())
        self.assertGreater((await client.invoke("ping"))["count"], 0)

    async def test_a_close_sends_what_was_queued(self):
        other = await self.client()
        channel = other.subscribe(self.channel())
        await within(channel.subscribed())
        client = await self.client(close_timeout=PATIENCE)
        await within(client.connected())
        for number in range(1000):
            await client.transmit_publish(channel.name, number)
        await client.close()
        self.assertEqual([one.data for one in await take(aiter(channel), 1000)], list(range(1000)))

    async def test_pings_keep_a_silent_client_connected(self):
        client = await self.client()
        # The server pings every 100 ms, and takes clients as gone that are silent for 5 s.
        self.assertTrue(await stays_connected(client, 6.5))


class Channels(Case):
    CONFIG = """
[[rules]]
allow = ["subscribe", "publish"]
channels = "room.**"

[[rules]]
allow = ["subscribe"]
channels = "members.**"
to = "authenticated"
"""

    async def test_a_refused_subscription_raises_where_it_is_read(self):
        client = await self.client()
        channel = client.subscribe("secret")
        with self.assertRaises(ServerError) as caught:
            await within(channel.subscribed())
        with self.assertRaises(ServerError):
            await within(anext(aiter(channel)))
        self.assertEqual((caught.exception.name, channel.state), ("SilentMiddlewareBlockedError", "unsubscribed"))

    async def test_a_refused_publication_raises(self):
        client = await self.client()
        with self.assertRaises(ServerError):
            await client.publish("secret", 1)

    async def test_after_the_end_of_a_subscription_nothing_comes(self):
        client, other = await self.client(), await self.client()
        channel = client.subscribe(self.channel())
        reader = aiter(channel)
        await within(channel.subscribed())
        channel.unsubscribe()
        with self.assertRaises(StopAsyncIteration):
            await anext(reader)
        again = client.subscribe(channel.name)
        await within(again.subscribed())
        await other.publish(channel.name, 1)
        self.assertEqual((await within(anext(aiter(again)))).data, 1)

    async def test_a_subscription_may_wait_for_authentication(self):
        client = await self.client()
        channel = client.subscribe("members.news", wait_for_auth=True)
        await client.publish("room.any", 1)
        self.assertEqual(channel.state, "pending")
        await client.authenticate(token(sub="ann"))
        await within(channel.subscribed())

    async def test_the_first_iteration_begins_with_the_subscription(self):
        client = await self.client()
        channel = client.subscribe(self.channel())
        for number in range(3):
            await channel.publish(number)
        self.assertEqual([one.data for one in await take(aiter(channel), 3)], [0, 1, 2])

    async def test_two_readers_get_the_same(self):
        client = await self.client()
        channel = client.subscribe(self.channel())
        self.assertIs(client.subscribe(channel.name), channel)
        readers = aiter(channel), aiter(channel)
        await channel.publish({"a": [1, None, "ä"]})
        for reader in readers:
            self.assertEqual((await within(anext(reader))).data, {"a": [1, None, "ä"]})

    async def test_publications_without_data_have_none(self):
        client = await self.client()
        channel = client.subscribe(self.channel())
        await client.publish(channel.name)
        self.assertIsNone((await within(anext(aiter(channel)))).data)


class Authentication(Case):
    SETTINGS = {"allow_anonymous": "on"}

    @classmethod
    def setUpClass(cls):
        cls.users = tempfile.TemporaryDirectory(prefix="ringcast-python-users-")
        users = pathlib.Path(cls.users.name, "users")
        subprocess.run([support.BINARY, "passwd", "-c", "-b", str(users), "ann", "secret"], check=True, capture_output=True)
        cls.SETTINGS = cls.SETTINGS | {"password_file": str(users)}
        super().setUpClass()

    async def test_a_token_is_presented_in_each_handshake(self):
        proxy = await self.proxy()
        client = await self.client(proxy.url, token=token(sub="ann"))
        events = client.events()
        self.assertTrue((await within(anext(events))).is_authenticated)
        proxy.cut()
        await within(anext(events))
        self.assertTrue((await within(anext(events))).is_authenticated)
        self.assertEqual(client.claims, {"sub": "ann"})

    async def test_a_bad_token_is_told_and_forgotten(self):
        client = await self.client(token=token(sub="ann")[:-4] + "AAAA")
        events = client.events()
        connected = await within(anext(events))
        self.assertEqual((connected.is_authenticated, connected.auth_error.name), (False, "AuthTokenInvalidError"))
        self.assertEqual(await within(anext(events)), AuthenticationChanged(None, None))
        self.assertIsNone(client.token)

    async def test_a_login_gives_a_token(self):
        client = await self.client()
        await client.login({"user": "ann", "password": "secret"})
        self.assertTrue(client.is_authenticated)
        self.assertEqual(client.claims["sub"], "ann")
        other = await self.client(token=client.token)
        await within(other.connected())
        self.assertTrue(other.is_authenticated)

    async def test_a_wrong_password_raises(self):
        client = await self.client()
        with self.assertRaises(ServerError):
            await client.login({"user": "ann", "password": "wrong"})
        self.assertFalse(client.is_authenticated)

    async def test_authenticate_accepts_and_refuses(self):
        client = await self.client()
        await client.authenticate(token(sub="bob"))
        self.assertEqual((client.is_authenticated, client.claims), (True, {"sub": "bob"}))
        with self.assertRaises(ServerError) as caught:
            await client.authenticate("no token")
        self.assertEqual(caught.exception.name, "AuthTokenInvalidError")
        self.assertEqual((client.is_authenticated, client.token), (False, None))

    async def test_a_token_that_is_not_yet_valid_is_refused(self):
        client = await self.client()
        with self.assertRaises(ServerError) as caught:
            await client.authenticate(token(sub="bob", nbf=4_000_000_000))
        self.assertEqual(caught.exception.name, "AuthTokenNotBeforeError")

    async def test_deauthenticate_forgets_here_and_there(self):
        client = await self.client(token=token(sub="ann"))
        await within(client.connected())
        events = client.events()
        await client.deauthenticate()
        self.assertEqual(await within(anext(events)), AuthenticationChanged(None, None))
        await client.close()
        client.connect()
        await within(client.connected())
        self.assertFalse(client.is_authenticated)
