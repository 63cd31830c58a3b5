"""Runs the programs of README.md, and compares what they print."""

import asyncio
import pathlib
import re
import sys

from support import PATIENCE, REPOSITORY, Case

README = (REPOSITORY / "clients/python/README.md").read_text()
PROGRAM = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```\n", re.DOTALL)


class Readme(Case):
    CONFIG = re.search(r"```toml\n(.*?)```", README, re.DOTALL).group(1)

    async def test_its_programs_print_what_it_says(self):
        programs = PROGRAM.findall(README)
        self.assertEqual(len(programs), README.count("```python"), "each program is followed by its output")
        for number, (program, expected) in enumerate(programs):
            with self.subTest(program=number):
                path = pathlib.Path(self.server.folder.name, f"readme{number}.py")
                path.write_text(program.replace("localhost:8000", f"127.0.0.1:{self.server.port}"))
                process = await asyncio.create_subprocess_exec(
                    sys.executable, str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
                )
                output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
                self.assertEqual((output.decode(), errors.decode()), (expected, ""))
