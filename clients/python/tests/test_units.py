"""The parts that need no connection."""

import asyncio
import gc
import unittest

from ringcast_client import Backoff, Position, SlowReaderError
from ringcast_client.packet import ABSENT, claims_of, decode, encode
from ringcast_client.stream import Stream
from support import token


class Streams(unittest.IsolatedAsyncioTestCase):
    async def test_each_reader_gets_what_is_pushed_after_it_began(self):
        stream = Stream(10)
        first = stream.read()
        stream.push(1)
        second = stream.read()
        stream.push(2)
        stream.end()
        self.assertEqual([[one async for one in first], [one async for one in second]], [[1, 2], [2]])
        self.assertEqual([one async for one in stream], [])

    async def test_a_reader_waits_and_wakes(self):
        stream = Stream(10)
        reader = stream.read()
        waits = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
        stream.push(1)
        self.assertEqual(await waits, 1)

    async def test_a_slow_reader_gets_what_fits_and_then_an_error(self):
        stream = Stream(2)
        reader, other = stream.read(), stream.read(lambda value: value == 3)
        for value in (1, 2, 3):
            stream.push(value)
        self.assertEqual([await anext(reader), await anext(reader)], [1, 2])
        with self.assertRaises(SlowReaderError):
            await anext(reader)
        self.assertEqual(await anext(other), 3)

    async def test_a_reader_that_nobody_holds_takes_no_memory(self):
        stream = Stream(10)
        async def reads_one():
            async for _ in stream:
                break
        task = asyncio.create_task(reads_one())
        await asyncio.sleep(0)
        self.assertEqual(len(stream._readers), 1)
        stream.push(1)
        await task
        gc.collect()
        self.assertEqual(len(stream._readers), 0)

    async def test_a_wait_that_is_cancelled_loses_nothing(self):
        stream = Stream(10)
        reader = stream.read()
        with self.assertRaises(TimeoutError):
            await asyncio.wait_for(anext(reader), 0.01)
        stream.push(1)
        self.assertEqual(await anext(reader), 1)


class Waits(unittest.TestCase):
    def test_waits_grow_up_to_the_maximum(self):
        backoff = Backoff(initial=1, randomness=0, multiplier=2, maximum=10)
        self.assertEqual([backoff.wait(failures, 1006, 0) for failures in (0, 1, 2, 3, 4, 10_000)], [1, 2, 4, 8, 10, 10])

    def test_randomness_stays_in_its_bounds(self):
        waits = [Backoff(initial=1, randomness=2).wait(0, 1006, 0) for _ in range(1000)]
        self.assertTrue(1 <= min(waits) < 1.1 and 2.9 < max(waits) <= 3)

    def test_some_codes_come_back_at_once_but_never_in_a_tight_loop(self):
        backoff = Backoff(initial=1, randomness=0)
        self.assertEqual([backoff.wait(0, code, 60) for code in (4000, 4001, 1005, 1001, 1006, 4008)], [0, 0, 0, 1, 1, 1])
        self.assertEqual(backoff.wait(0, 4001, 0.5), 1)
        self.assertEqual(backoff.wait(1, 4001, 60), 1.5)

    def test_some_codes_never_come_back(self):
        self.assertEqual([backoff.wait(0, code, 60) for backoff in [Backoff()] for code in (1000, 4500, 4999)], [None] * 3)


class Packets(unittest.TestCase):
    def test_absent_data_is_not_null(self):
        self.assertEqual(encode({"event": "a", "data": ABSENT}), b'{"event":"a"}')
        self.assertEqual(encode({"event": "a", "data": None}), b'{"event":"a","data":null}')

    def test_any_text_has_a_form(self):
        self.assertEqual(encode({"event": "ä€😀"}).decode(), '{"event":"ä€😀"}')
        self.assertEqual(encode({"event": "\ud800"}), b'{"event":"\\ud800"}')

    def test_values_without_a_form_are_refused_before_they_are_sent(self):
        for value in (float("nan"), float("inf")):
            self.assertRaises(ValueError, encode, {"data": value})
        self.assertRaises(TypeError, encode, {"data": {1, 2}})

    def test_what_is_no_packet_is_left_out(self):
        self.assertEqual(decode('[{"event":"a"},1,[{"event":"b"}],null]'), [{"event": "a"}])
        for text in ("#1", "null", "5", "{", "[" * 100_000):
            self.assertEqual(decode(text), [])

    def test_claims(self):
        self.assertEqual(claims_of(token(sub="ann", n=1)), {"sub": "ann", "n": 1})
        for text in (None, "", "a", "a.b.c", "a.bnVsbA.c", "a.ä.c"):
            self.assertIsNone(claims_of(text))

    def test_positions(self):
        self.assertEqual(Position.of({"epoch": "a", "offset": 1}), Position("a", 1))
        for value in (None, 1, {}, {"epoch": "a"}, {"epoch": 1, "offset": 1}):
            self.assertIsNone(Position.of(value))
