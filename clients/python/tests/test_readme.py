"""Runs the programs of README.md, and compares what they print."""

import asyncio
import os
import pathlib
import re
import signal
import sys
import unittest

from support import PATIENCE, REPOSITORY, start, token, within

README = (REPOSITORY / "clients/python/README.md").read_text()
BLOCK = re.compile(r"```(toml|python|text)\n(.*?)```\n", re.DOTALL)


class Readme(unittest.IsolatedAsyncioTestCase):
    async def run_program(self, server, name, program):
        path = pathlib.Path(server.folder.name, f"{name}.py")
        path.write_text(program.replace("localhost:8000", f"127.0.0.1:{server.port}"))
        environment = os.environ | {"SERVICE_TOKEN": token(service=True)}
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(sys.executable, str(path), stdout=pipe, stderr=pipe, env=environment)

    async def test_its_programs_print_what_it_says(self):
        """A program without an output below it runs on, while the next ones do."""
        blocks = BLOCK.findall(README)
        server, compared = None, 0
        for number, (kind, text) in enumerate(blocks):
            if kind == "toml":
                server = start(text)
                self.addCleanup(server.stop)
            if kind != "python":
                continue
            process = await self.run_program(server, f"readme{number}", text)
            if blocks[number + 1][0] == "text":
                output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
                self.assertEqual((output.decode(), errors.decode()), (blocks[number + 1][1], ""), f"program {number}")
                compared += 1
            else:
                self.assertEqual(await within(process.stdout.readline()), b"serving\n", f"program {number}")
                self.addAsyncCleanup(self.ends_in_order, process)
        self.assertEqual(compared, README.count("```text"))

    async def ends_in_order(self, process):
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        self.assertEqual((process.returncode, errors.decode()), (0, ""))
