"""Make src/freehold/data/licenses/fingerprints.json from a folder of license texts.

    python scripts/license_fingerprints.py TEXTS [--check]

TEXTS holds the files that names.toml lists. With --check nothing is written: exit code 1 says that the shipped file is stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from freehold.study.license_text import METHOD, fingerprint, license_names

SHIPPED = Path(__file__).parent.parent / "src" / "freehold" / "data" / "licenses" / "fingerprints.json"


def build(texts: Path) -> str:
    """The file's content, one license a line."""
    rows = []
    for key, row in sorted(license_names().items()):
        made = fingerprint((texts / name).read_text("utf-8") for name in row["files"])
        rows.append(json.dumps({"key": key, **made}, separators=(",", ":")))
    return '{"method":' + json.dumps(METHOD) + ',"licenses":[\n' + ",\n".join(rows) + "\n]}\n"


def main(arguments: list[str]) -> int:
    texts, *flags = arguments
    made = build(Path(texts))
    if "--check" in flags:
        return int(made != SHIPPED.read_text("utf-8"))
    SHIPPED.write_text(made, "utf-8")
    print(f"{SHIPPED}: {len(made):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
