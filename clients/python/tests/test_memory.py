"""Recovery, history, presence and wills, with the real server."""

import random
from unittest import mock

from ringcast_client import Position, Publication, Recovery, ServerError
from support import Case, eventually, start, take, token, within


class Memory(Case):
    CONFIG = """
[[channels]]
names = ["room.**"]
history_entries = 100
history_bytes = 65536
presence = true
presence_events = true

[[channels]]
names = ["short.**"]
history_entries = 2
history_bytes = 65536

[[channels]]
names = ["last.**"]
last_value = true
"""
    SETTINGS = {"presence_grace_ms": 0, "presence_tick_ms": 20, "mqtt_listen": "127.0.0.1:0"}

    async def away(self, proxy, client):
        """Cuts the connection; the client does not come back before `is_down` is false."""
        proxy.is_down = True
        proxy.cut()
        await eventually(lambda: client.state == "connecting", "the client has noticed")

    async def test_the_first_subscribe_gets_the_last_publications(self):
        client, other = await self.client(), await self.client()
        for number in range(5):
            await other.publish(self.channel(), number)
        channel = client.subscribe(self.channel(), last=2)
        reader = aiter(channel)
        self.assertEqual([(one.data, one.replayed) for one in await take(reader, 2)], [(3, True), (4, True)])
        await channel.publish(5)
        live = await within(anext(reader))
        self.assertEqual((live.data, live.replayed, live.position), (5, False, channel.position))

    async def test_nothing_is_missed_over_a_cut_and_nothing_comes_twice(self):
        proxy = await self.proxy()
        client, other = await self.client(proxy.url), await self.client()
        channel = client.subscribe(self.channel())
        recoveries, reader = channel.recoveries(), aiter(channel)
        await within(channel.subscribed())
        await other.publish(channel.name, 0)
        await within(anext(reader))
        for number in range(1, 10, 3):
            await self.away(proxy, client)
            await other.publish(channel.name, number)
            await other.publish(channel.name, number + 1)
            proxy.is_down = False
            missed = await take(reader, 2)
            await other.publish(channel.name, number + 2)
            live = await within(anext(reader))
            self.assertEqual([(one.data, one.replayed) for one in (*missed, live)], [(number, True), (number + 1, True), (number + 2, False)])
        answers = await take(recoveries, 4)
        self.assertEqual([(one.recovered, one.reason, one.publications) for one in answers], [(True, None, 0)] + [(True, None, 2)] * 3)

    async def test_every_publication_comes_once_whenever_the_connection_is_cut(self):
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        proxy = await self.proxy()
        client, other = await self.client(proxy.url), await self.client()
        gaps = []
        channel = client.subscribe(self.channel(), on_gap=gaps.append)
        reader = aiter(channel)
        await within(channel.subscribed())
        # The history has 100 publications, and the client is never that far behind.
        seen, published = [], 0
        while published < 400:
            for _ in range(chance.randrange(1, 20)):
                await other.publish(channel.name, published)
                published += 1
            if chance.random() < 0.5:
                proxy.cut()
            while len(seen) < published - 60:
                seen.append((await within(anext(reader))).data)
        while len(seen) < published:
            seen.append((await within(anext(reader))).data)
        self.assertEqual((seen, gaps), (list(range(published)), []), f"seed {seed}")

    async def test_a_gap_is_told_with_its_reason_and_in_its_place(self):
        proxy = await self.proxy()
        client, other = await self.client(proxy.url), await self.client()
        gaps = []

        async def fetch_anew(recovery):
            gaps.append(recovery.reason)

        channel = client.subscribe(self.channel("short"), on_gap=fetch_anew)
        reader = channel.with_recoveries()
        await within(channel.subscribed())
        await other.publish(channel.name, 0)
        await take(reader, 2)
        await self.away(proxy, client)
        for number in range(1, 5):
            await other.publish(channel.name, number)
        proxy.is_down = False
        await eventually(lambda: gaps, "the gap")
        await other.publish(channel.name, 5)
        recovery, publication = await take(reader, 2)
        self.assertEqual((recovery.recovered, recovery.reason, publication.data), (False, "evicted", 5))
        self.assertEqual(gaps, ["evicted"])
        self.assertIsInstance(recovery, Recovery)
        self.assertIsInstance(publication, Publication)

    async def test_a_broken_on_gap_breaks_nothing_else(self):
        proxy = await self.proxy()
        client, other = await self.client(proxy.url), await self.client()
        events = client.events()
        channel = client.subscribe(self.channel("short"), position=Position("anything", 5), on_gap=lambda recovery: 1 / 0)
        await within(channel.subscribed())
        await other.publish(channel.name, 1)
        self.assertEqual((await within(anext(aiter(channel)))).data, 1)
        self.assertIsInstance((await take(events, 2))[1].error, ZeroDivisionError)

    async def test_a_position_from_an_earlier_visit_recovers(self):
        other = await self.client()
        first = await self.client()
        channel = first.subscribe(self.channel())
        await within(channel.subscribed())
        await other.publish(channel.name, 1)
        await within(anext(aiter(channel)))
        kept = channel.position.json()
        await first.close()
        await other.publish(channel.name, 2)
        second = await self.client()
        again = second.subscribe(channel.name, position=Position.of(kept))
        self.assertEqual((await within(anext(aiter(again)))).data, 2)

    async def test_an_old_position_of_another_server_is_a_gap(self):
        client = await self.client()
        gaps = []
        channel = client.subscribe(self.channel(), position=Position("another", 1), on_gap=gaps.append)
        await within(channel.subscribed())
        self.assertEqual([one.reason for one in gaps], ["other epoch"])

    async def test_the_last_value_comes_first(self):
        client = await self.client()
        await client.publish(self.channel("last"), "newest")
        channel = client.subscribe(self.channel("last"))
        first = await within(anext(aiter(channel)))
        self.assertEqual((first.data, first.replayed), ("newest", True))

    async def test_without_recovery_the_data_is_the_applications(self):
        client = await self.client()
        await client.publish(self.channel(), 1)
        channel = client.subscribe(self.channel(), recover=False, data=["anything"])
        await within(channel.subscribed())
        await channel.publish(2)
        self.assertEqual((await within(anext(aiter(channel)))).data, 2)
        with self.assertRaises(TypeError):
            client.subscribe("room.other", data=["anything"])

    async def test_history(self):
        client = await self.client()
        for number in range(5):
            await client.publish(self.channel(), number)
        last = await client.history(self.channel(), last=2)
        self.assertEqual([one.data for one in last.publications], [3, 4])
        after = await client.history(self.channel(), recover=last.publications[0].position)
        self.assertEqual(([one.data for one in after.publications], after.recovered, after.more), ([4], True, False))
        some = await client.history(self.channel(), since=0, limit=3)
        self.assertEqual(([one.data for one in some.publications], some.more), ([2, 3, 4], True))
        self.assertEqual((await client.history(self.channel())).publications, [])
        self.assertEqual((await client.history(self.channel(), recover=Position("another", 1))).reason, "other epoch")

    async def test_a_retained_publication_comes_with_each_subscribe(self):
        proxy = await self.proxy()
        client, other = await self.client(proxy.url), await self.client()
        await client.retain("lamp", {"on": True})
        channel = client.subscribe("lamp", last=1)
        reader = aiter(channel)
        self.assertEqual((await within(anext(reader))).data, {"on": True})
        await self.away(proxy, client)
        await other.retain("lamp", {"on": False})
        proxy.is_down = False
        self.assertEqual((await within(anext(reader))).data, {"on": False})
        await client.clear_retained("lamp")
        self.assertEqual((await within(anext(reader))), Publication("lamp", None, None, False))

    async def test_presence_follows_members_and_survives_a_cut(self):
        proxy = await self.proxy()
        client, other = await self.client(proxy.url), await self.client(token=token(sub="bob"))
        name = self.channel()
        await within(client.subscribe(name).subscribed())
        presence = client.presence(name)
        self.assertIs(client.presence(name), presence)
        changes = aiter(presence)
        self.assertEqual(list(await within(anext(changes))), [client.id])
        await within(other.subscribe(name).subscribed())
        await other.set_info(name, {"status": "away"})
        await eventually(lambda: "bob" in presence.members and presence.members["bob"].info == {"status": "away"}, "bob")
        self.assertEqual((presence.count, presence.is_complete, presence.error), (2, True, None))
        await self.away(proxy, client)
        other.unsubscribe(name)
        proxy.is_down = False
        await eventually(lambda: list(presence.members) == [client.id], "the right members after a reconnect")
        presence.end()
        self.assertNotIn(f"$presence/{name}", client._channels)
        async for _ in changes:
            pass

    async def test_presence_of_many_pages(self):
        watcher = await self.client()
        name = self.channel()
        clients = [await self.client() for _ in range(25)]
        for client in clients:
            await within(client.subscribe(name).subscribed())
        with mock.patch("ringcast_client.presence._PAGE", 10):
            presence = watcher.presence(name)
            await eventually(lambda: presence.is_complete, "all pages")
        self.assertEqual((presence.count, set(presence.members)), (25, {client.id for client in clients}))
        presence.end()

    async def test_presence_that_is_refused_raises_where_it_is_read(self):
        client = await self.client()
        presence = client.presence("lamp")
        await eventually(lambda: presence.error is not None, "no presence there")
        self.assertIsInstance(presence.error, ServerError)
        presence.end()

    async def test_a_client_that_vanishes_leaves_its_will_each_time(self):
        proxy = await self.proxy()
        client, other = await self.client(proxy.url), await self.client()
        channel = other.subscribe(self.channel("will"))
        reader = aiter(channel)
        await within(channel.subscribed())
        await client.set_will(channel.name, {"gone": True})
        for _ in range(2):
            await self.away(proxy, client)
            self.assertEqual((await within(anext(reader))).data, {"gone": True})
            proxy.is_down = False
            await within(client.connected())
            await client.invoke("ping")
        await client.close()
        await channel.publish("the mark")
        self.assertEqual((await within(anext(reader))).data, "the mark")

    async def test_a_will_waits_for_a_client_that_comes_back(self):
        proxy = await self.proxy()
        client, other = await self.client(proxy.url), await self.client()
        channel = other.subscribe(self.channel("will"))
        await within(channel.subscribed())
        await client.set_will(channel.name, "gone", delay_ms=60_000, session="a random text")
        await self.away(proxy, client)
        proxy.is_down = False
        await client.invoke("ping")
        await client.clear_will()
        await self.away(proxy, client)
        await channel.publish("the mark")
        self.assertEqual((await within(anext(aiter(channel)))).data, "the mark")

    async def test_a_will_that_is_refused_raises(self):
        client = await self.client()
        with self.assertRaises(ServerError):
            await client.set_will(5)
        self.assertIsNone(client._will)


class Restarts(Case):
    """A server that is killed and started again, on the same port."""

    async def test_subscriptions_go_on_with_the_next_server(self):
        config = '[[channels]]\nnames = ["room.**"]\nhistory_entries = 10\nhistory_bytes = 65536\n'
        server = start(config)
        gaps = []
        client = await self.client(server.url)
        channel = client.subscribe("room.1", on_gap=gaps.append)
        reader = aiter(channel)
        await channel.publish(1)
        await within(anext(reader))
        server.stop()
        server = start(config, port=server.port)
        self.addCleanup(server.stop)
        await within(channel.subscribed())
        await eventually(lambda: channel.state == "subscribed" and gaps, "subscribed again")
        await channel.publish(2)
        self.assertEqual((await within(anext(reader))).data, 2)
        self.assertEqual([one.reason for one in gaps], ["other epoch"])
