"""UCF-101 and HMDB-51 by their official split lists: `ucf101:DIR` and `hmdb51:DIR`, with `,split=2` for another split.

DIR holds a folder of videos for each class, as the sets are distributed, and the lists anywhere below it
(`testlist01.txt`, or `CLASS_test_split1.txt`), or names their folder with `,lists=FOLDER`. The lists know training and
test; validation clips are taken out of training by whole groups (one scene of UCF-101, one film of HMDB-51), so that
no group is on both sides.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hardroute.runtime.datasets.dataset import ClipRow, ClipSet, inside
from hardroute.runtime.errors import DataError
from hardroute.runtime.files import TooLargeError, read_regular

VALIDATION = 8  # one in so many groups of a class
MAX_LIST_BYTES = 16 * 2**20
_UCF = re.compile(r"(?P<label>[A-Za-z]+)/v_[A-Za-z]+_(?P<group>g\d+)_c\d+\.avi")
_TRAIN, _TEST = "1", "2"


def open_official(spec: str) -> ClipSet:
    """`ucf101:DIR[,split=N][,lists=FOLDER]` or `hmdb51:...`; N is 1, 2 or 3.

    Raises:
        DataError: a list or a video that a list names is missing, or a list cannot be read.
    """
    kind, _, rest = spec.partition(":")
    folder, *words = rest.split(",")
    options = dict(word.partition("=")[::2] for word in words)
    number, lists = options.pop("split", "1"), options.pop("lists", folder)
    if options or number not in ("1", "2", "3") or not folder:
        raise DataError(f"{spec}: write {kind}:DIR, and after it ,split=1 to 3 or ,lists=FOLDER")
    for name in (folder, lists):
        if not Path(name).is_dir():
            raise DataError(f"{spec}: no such folder {name}")
    root = Path(folder).resolve()
    entries = list(_LISTS[kind](Path(lists), number, spec))
    rows = [
        ClipRow(inside(root, file, spec), file, label, split, f"{label}/{group}")
        for file, label, split, group in entries
    ]
    missing = [row.file for row in rows if not row.path.is_file()]
    if missing:
        raise DataError(
            f"{spec}: {len(missing)} of the {len(rows)} videos of the lists are missing, first {missing[0]}"
        )
    return ClipSet(spec, tuple(sorted({row.label for row in rows})), tuple(_with_validation(rows)))


def _ucf(lists: Path, number: str, spec: str) -> Iterator[tuple[str, str, str, str]]:
    for split, name in (("train", f"trainlist0{number}.txt"), ("test", f"testlist0{number}.txt")):
        path = _only(lists.rglob(name), name, spec)
        for line in _lines(path):
            found = _UCF.fullmatch(line.split()[0])
            if not found:
                raise DataError(f"{path}: {line[:80]!r} is not a line of a UCF-101 list")
            yield found[0], found["label"], split, found["group"]


def _hmdb(lists: Path, number: str, spec: str) -> Iterator[tuple[str, str, str, str]]:
    ending = f"_test_split{number}.txt"
    paths = sorted(lists.rglob(f"*{ending}"))
    if not paths:
        raise DataError(f"{spec}: no CLASS{ending} below {lists}; get the official split lists")
    for path in paths:
        label = path.name.removesuffix(ending)
        for line in _lines(path):
            file, _, use = line.rpartition(" ")
            if use not in ("0", _TRAIN, _TEST) or not file.endswith(".avi"):
                raise DataError(f"{path}: {line[:80]!r} is not a line of an HMDB-51 list")
            if use != "0":  # 0: in neither part of this split
                # The film's name comes before the class; clips of one film show the same scene.
                film = file.split(f"_{label}_")[0]
                yield f"{label}/{file}", label, "train" if use == _TRAIN else "test", film


_LISTS = {"ucf101": _ucf, "hmdb51": _hmdb}
KINDS = tuple(_LISTS)


def _with_validation(rows: Iterable[ClipRow]) -> Iterator[ClipRow]:
    for row in rows:
        # By the group's name, so that it is the same choice on every machine and whatever else is in the list.
        held_out = int(hashlib.sha256(row.group.encode()).hexdigest(), 16) % VALIDATION == 0
        split = "val" if row.split == "train" and held_out else row.split
        yield ClipRow(row.path, row.file, row.label, split, row.group)


def _only(paths: Iterable[Path], name: str, spec: str) -> Path:
    found = sorted(paths)
    if len(found) != 1:
        said = f"{len(found)} files named {name}" if found else f"no {name}"
        raise DataError(f"{spec}: {said} among its lists; say where with ,lists=FOLDER")
    return found[0]


def _lines(path: Path) -> list[str]:
    try:
        text = read_regular(path, MAX_LIST_BYTES).decode()
    except TooLargeError:
        raise DataError(f"{path}: too large for a split list") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); get the official split lists again") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
