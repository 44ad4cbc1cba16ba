"""UCF-101 and HMDB-51 by their official lists."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from hardroute.runtime.clips import ClipContract
from hardroute.runtime.datasets import load_clips, open_set
from hardroute.runtime.errors import DataError

# What the publishers state: clips of each official split.
UCF = {"1": (9537, 3783), "2": (9586, 3734), "3": (9624, 3696)}
HMDB = {"1": (3570, 1530), "2": (3570, 1530), "3": (3570, 1530)}


def tree(root: Path, lists: Path) -> Path:
    """Empty files of the true names, and the lists beside them."""
    names: set[str] = set()
    for path in lists.glob("*list0*.txt"):
        names |= {line.split()[0] for line in path.read_text().splitlines() if line.strip()}
    for path in lists.glob("*_test_split*.txt"):
        label = path.name.split("_test_split")[0]
        names |= {f"{label}/{line.rstrip()[:-1].rstrip()}" for line in path.read_text().splitlines() if line.strip()}
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    shutil.copytree(lists, root / "lists")
    return root


@pytest.fixture(scope="module")
def trees(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tree(tmp_path_factory.mktemp(kind), shared_data / "splits" / kind) for kind in ("ucf101", "hmdb51")}


@pytest.mark.parametrize("number", ["1", "2", "3"])
@pytest.mark.parametrize(("kind", "stated", "classes"), [("ucf101", UCF, 101), ("hmdb51", HMDB, 51)])
def test_counts_are_those_that_the_publishers_state(
    trees: dict[str, Path], kind: str, stated: dict[str, tuple[int, int]], classes: int, number: str
) -> None:
    found = open_set(f"{kind}:{trees[kind]},split={number}")
    splits = Counter(row.split for row in found.rows)
    assert len(found.classes) == classes
    assert (splits["train"] + splits["val"], splits["test"]) == stated[number]


@pytest.mark.parametrize("kind", ["ucf101", "hmdb51"])
def test_validation_shares_no_group_with_training(trees: dict[str, Path], kind: str) -> None:
    found = open_set(f"{kind}:{trees[kind]}")
    train, val = ({row.group for row in found.split(split).rows} for split in ("train", "val"))
    assert not train & val
    share = len(found.split("val")) / (len(found.split("val")) + len(found.split("train")))
    assert 0.05 < share < 0.25
    assert {row.label for row in found.split("train").rows} == set(found.classes)


def test_groups_are_scenes_of_ucf_and_films_of_hmdb(trees: dict[str, Path]) -> None:
    ucf = {row.file: row.group for row in open_set(f"ucf101:{trees['ucf101']}").rows}
    assert ucf["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"] == "ApplyEyeMakeup/g08"
    hmdb = {row.file: row.group for row in open_set(f"hmdb51:{trees['hmdb51']}").rows}
    assert hmdb["brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi"] == "brush_hair/April_09"


def test_genuine_files_are_read_by_their_own_lists(shared_data: Path, tmp_path: Path) -> None:
    lists = {"trainlist01.txt": "", "testlist01.txt": ""}
    for path in sorted((shared_data / "originals" / "ucf101").glob("v_*.avi")):
        label = path.name.split("_")[1]
        (tmp_path / label).mkdir()
        shutil.copy(path, tmp_path / label)
        official = shared_data / "splits" / "ucf101"
        for name in lists:
            lists[name] += "".join(
                line + "\n" for line in (official / name).read_text().splitlines() if path.name in line
            )
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    found = open_set(f"ucf101:{tmp_path}")
    assert len(found) == 4
    arrays = load_clips(found, ClipContract(frames=4, height=32, width=32))
    assert arrays.frames.std(axis=(1, 2, 3, 4)).min() > 1


def test_genuine_hmdb_files_are_read_by_their_own_lists(shared_data: Path, tmp_path: Path) -> None:
    for path in (shared_data / "originals" / "hmdb51").glob("*.avi"):
        name = path.name.removeprefix("hmdb51_")
        label = "wave" if "_wave_" in name else "cartwheel"
        (tmp_path / label).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / label / name)
        listed = f"{label}_test_split1.txt"
        lines = (shared_data / "splits" / "hmdb51" / listed).read_text().splitlines()
        with (tmp_path / listed).open("a") as file:
            file.writelines(line + "\n" for line in lines if line.startswith(name + " "))
    found = open_set(f"hmdb51:{tmp_path}")
    assert set(found.classes) <= {"wave", "cartwheel"} and len(found) >= 2
    assert load_clips(found, ClipContract(frames=4, height=32, width=32)).frames.std(axis=(1, 2, 3, 4)).min() > 1


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "Archery").mkdir()
    for group in range(1, 5):
        (tmp_path / "Archery" / f"v_Archery_g0{group}_c01.avi").touch()
    (tmp_path / "trainlist01.txt").write_text("".join(f"Archery/v_Archery_g0{g}_c01.avi 1\n" for g in (1, 2, 3)))
    (tmp_path / "testlist01.txt").write_text("Archery/v_Archery_g04_c01.avi\n")
    return tmp_path


class TestBadInput:
    def test_a_missing_video_is_counted_and_named(self, small: Path) -> None:
        (small / "Archery" / "v_Archery_g02_c01.avi").unlink()
        with pytest.raises(DataError, match=r"1 of the 4 videos.*v_Archery_g02_c01\.avi"):
            open_set(f"ucf101:{small}")

    @pytest.mark.parametrize(
        ("spec", "says"),
        [
            ("ucf101:{0},split=4", "split=1 to 3"),
            ("ucf101:{0},colour=red", "write ucf101:DIR"),
            ("ucf101:", "write ucf101:DIR"),
            ("ucf101:{0}/nowhere", "no such folder"),
            ("ucf101:{0},split=2", "no trainlist02.txt"),
            ("hmdb51:{0}", "no CLASS_test_split1.txt"),
        ],
    )
    def test_a_wrong_spec_is_one_clear_line(self, small: Path, spec: str, says: str) -> None:
        with pytest.raises(DataError) as raised:
            open_set(spec.format(small))
        assert says in str(raised.value)

    @pytest.mark.parametrize("line", ["../../etc/passwd 1", "Archery/v_Archery_g01_c01.mp4 1", "Archery"])
    def test_a_line_that_no_list_has_is_shown(self, small: Path, line: str) -> None:
        (small / "trainlist01.txt").write_text(line + "\n")
        with pytest.raises(DataError, match="not a line of a UCF-101 list"):
            open_set(f"ucf101:{small}")

    def test_two_lists_of_one_name_are_not_chosen_between(self, small: Path) -> None:
        (small / "old").mkdir()
        (small / "old" / "testlist01.txt").write_text("")
        with pytest.raises(DataError, match=r"2 files named testlist01\.txt"):
            open_set(f"ucf101:{small}")

    def test_a_link_out_of_the_folder_is_refused(self, small: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.avi"
        elsewhere.touch()
        video = small / "Archery" / "v_Archery_g01_c01.avi"
        video.unlink()
        video.symlink_to(elsewhere)
        with pytest.raises(DataError, match="leads outside"):
            open_set(f"ucf101:{small}")
