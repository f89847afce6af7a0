"""What the documents show is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readme_has_examples() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_of_the_readme_runs(number) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKS[number]], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "web" in done.stdout.splitlines()[0]
    assert not done.stderr


def test_the_one_liner_isolates() -> None:
    """The line that people try first: a host name, root, and a PID of one digit."""
    code = "import nslab; print(nslab.run('hostname; id -u; echo $$', isolate='uts user pid mnt', hostname='web').stdout)"
    name, uid, pid = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    ).stdout.split()
    assert (name, uid, len(pid)) == ("web", "0", 1)


def test_the_architecture_names_tests_that_exist() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text()
    named = set(re.findall(r"`(test_\w+\.py)`", text)) | {Path(path).name for path in re.findall(r"`(tests/[\w/.]+)`", text)}
    assert named
    for name in named:
        assert list((ROOT / "tests").rglob(name)), name
