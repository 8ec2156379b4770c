"""Writing a model's folder whole or not at all, and the texts that every lab model comes with.

Files are written to `OUT.part`, which takes OUT's name when the last one is complete; a folder that has anything in it
is never written to.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from freehold.errors import FreeholdError
from freehold.failpoints import failpoint

#: What a hub's default .gitattributes says of large files, shortened to the kinds that the lab makes.
GITATTRIBUTES = "".join(
    f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in ("bin", "gguf", "safetensors", "zip", "zst")
)
MIT = """MIT License

Copyright (c) freehold lab

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `out` at the end of the block and vanishes if the block fails.

    FreeholdError lab-out-not-empty if `out` has anything in it, lab-folder-unwritable.
    """
    part = out.with_name(out.name + ".part")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FreeholdError("lab-out-not-empty", f"{out} exists and is not an empty folder", folder=str(out))
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            failpoint("lab.model-written")
            part.replace(out)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise FreeholdError("lab-folder-unwritable", f"cannot write {out}: {error.strerror or error}", folder=str(out)) from error
