"""Puts the real output of `freehold demo` into README.md and README.zh.md. `--check FILE` compares an output with the README.

Numbers, hashes and the model's words differ from run to run and machine to machine, so the comparison masks them.

    freehold demo >demo.txt 2>/dev/null; .venv/bin/python scripts/readme.py demo.txt
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "README.zh.md")
BLOCK = re.compile(r"(<!-- demo output -->\n```\n)(.*?)(```\n<!-- end of demo output -->)", re.DOTALL)


def output_in(readme: Path) -> str:
    """The block of `readme`; ValueError if it has none."""
    found = BLOCK.search(readme.read_text("utf-8"))
    if not found:
        raise ValueError(f"{readme.name} has no block for the demo's output")
    return found[2]


def tidy(output: str) -> str:
    """Without colour, without the admin key, without spaces at line ends."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    lines = [line.rstrip() for line in plain.splitlines() if not line.startswith("admin key")]
    return "\n".join(lines).strip() + "\n"


def masked(output: str) -> list[str]:
    """What must be equal: quoted words, hashes and numbers replaced by signs."""
    text = re.sub(r"“[^”]*”", "“…”", tidy(output))
    text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text)
    text = re.sub(r"\b[0-9a-f]{7,64}\b", "#", text)
    text = text.replace("already kept as", "kept as")
    return [re.sub(r"\d[\d,.]*", "#", line) for line in text.splitlines() if line]


def main() -> None:
    check = sys.argv[1] == "--check"
    output = Path(sys.argv[-1]).read_text("utf-8")
    for readme in READMES:
        if check:
            if masked(output_in(readme)) != masked(output):
                sys.exit(f"{readme.name} shows an output that the demo does not print any more")
            continue
        text = readme.read_text("utf-8")
        output_in(readme)
        readme.write_text(BLOCK.sub(lambda m: m[1] + tidy(output) + m[3], text), "utf-8")
        print(f"wrote {readme.name}")


if __name__ == "__main__":
    main()
