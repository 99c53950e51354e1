"""Failures that the model found, shrunk: each a list of operations, named by what was wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.model.generate import Op
from tests.model.play import replay

CONFIG: dict[str, Any] = {
    "prefix": "",
    "small_file": 0,
    "read_ahead": 256,
    "multipart_threshold": 1 << 30,
    "part_size": 256,
    "cache_size": 1 << 30,
    "upload_delay_s": 1.0,
}


def check(operations: list[Op], base: Path, **config: Any) -> None:
    failure = replay(operations, CONFIG | config, base)
    assert failure is None, failure


@pytest.mark.expect_warnings
def test_a_conflict_keeps_whatever_extension_the_name_has(tmp_path: Path) -> None:
    """The model's own defect: it knew conflict names of .wav files alone (seed 192)."""
    operations: list[Op] = [
        {"op": "unlink", "path": "f0"},
        {"op": "outage", "on": True},
        {"op": "remote_set", "path": "f0.tmp", "size": 4, "tag": 51},
        {"op": "open", "slot": "A", "path": "f0.tmp", "flags": "rc"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path)


@pytest.mark.expect_warnings
def test_a_marker_stored_by_an_attempt_whose_answer_was_lost_stays_after_a_restart(tmp_path: Path) -> None:
    """It was taken for a late attempt of an inode that owes nothing, and deleted (seed 395)."""
    operations: list[Op] = [
        {"op": "mkdir", "path": "d0"},
        {"op": "pump", "plan": {"0": "lost"}},
        {"op": "advance", "seconds": 1.5},
        {"op": "pump"},
        {"op": "kill"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_a_lost_answer_is_remembered_however_long_it_lasts(tmp_path: Path) -> None:
    """Another file's upload made it forgotten after ten minutes: our own object was a conflict (seed 294)."""
    operations: list[Op] = [
        {"op": "symlink", "path": "l1", "tag": 34},
        {"op": "save", "path": "f0", "size": 38, "tag": 36},
        {"op": "pump", "plan": {"0": "lost"}},
        {"op": "attributes", "path": "l1", "mtime_ns": 339562181050003841},
        {"op": "advance", "seconds": 700.0},
        {"op": "pump"},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_a_time_that_a_program_set_is_not_replaced_by_a_listings(tmp_path: Path) -> None:
    """Opened for writing, not written, killed: the object's LastModified was shown after it (seed 229)."""
    operations: list[Op] = [
        {"op": "save", "path": "f1", "size": 26, "tag": 11},
        {"op": "attributes", "path": "f1", "mtime_ns": 287445211161162840},
        {"op": "pump"},
        {"op": "open", "slot": "C", "path": "f1", "flags": "wca"},
        {"op": "kill"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0, cache_size=8192)


@pytest.mark.expect_warnings
def test_metadata_of_others_survives_a_crash_between_put_and_commit(tmp_path: Path) -> None:
    """The next attempt replaced our own object, and did not ask it for what it had taken over (seed 69)."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "f1", "size": 2242, "tag": 42},
        {"op": "save", "path": "f1", "size": 96, "tag": 64},
        {"op": "arm", "point": "sent", "times": 1},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_the_model_knows_its_own_marker_from_another_clients(tmp_path: Path) -> None:
    """The model's own defect: a marker that arrived after rmdir was one to be shown (seed 262)."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "d2/f1", "size": 29, "tag": 1},
        {"op": "open", "slot": "A", "path": "d2/f1", "flags": "wt"},
        {"op": "rename", "old": "d2/f1", "new": "fü"},
        {"op": "pump", "plan": {"0": [{"op": "rmdir", "path": "d2"}]}},
        {"op": "close", "slot": "A"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_a_rename_within_a_directory_leaves_no_marker(tmp_path: Path) -> None:
    """The directory's only file was taken to leave it (seed 117)."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "d2/f0", "size": 0, "tag": 29},
        {"op": "rename", "old": "d2/f0", "new": "d2/f1"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_what_an_attempt_left_under_the_old_name_is_hidden_though_it_was_seen_before(tmp_path: Path) -> None:
    """Looked at while it was the file's own, it was never looked at again (seed 171)."""
    operations: list[Op] = [
        {"op": "mkdir", "path": "d1"},
        {"op": "drain", "deep": False},
        {"op": "save", "path": "d1/f1", "size": 1, "tag": 9},
        {"op": "rename", "old": "d1", "new": "d0"},
        {"op": "outage", "on": True},
        {"op": "rename", "old": "d0/f1", "new": "d0/fü"},
        {"op": "pump"},
        {"op": "drain", "deep": False},
        {"op": "replace", "path": "d0/fü", "size": 15, "tag": 22},
        {"op": "symlink", "path": "l1", "tag": 23, "plan": {"0": "late"}},
        {"op": "save", "path": "d0/fü", "size": 326, "tag": 24, "flags": "wa", "at": 1101},
        {
            "op": "pump",
            "plan": {
                "2": [
                    {"op": "open", "slot": "B", "path": "d0/fü", "flags": "wcx"},
                    {"op": "unlink", "path": "d0/fü"},
                ]
            },
        },
        {"op": "pump"},
        {"op": "pump", "plan": {"0": "lost"}},
        {"op": "rename", "old": "d0/fü", "new": "f2.wav"},
    ]
    operations.append({"op": "drain", "deep": True})
    check(operations, tmp_path, upload_delay_s=0.0, cache_size=8192)


@pytest.mark.expect_warnings
def test_a_conflicts_copy_that_got_a_name_of_its_own_is_called_after_that_name(tmp_path: Path) -> None:
    """In conflict once more, it was called after the name that it had before it was a copy (seed 339)."""
    operations: list[Op] = [
        {"op": "save", "path": "f0", "size": 10, "tag": 1},
        {"op": "remote_set", "path": "f0", "size": 10, "tag": 2},
        {"op": "pump"},
        {"op": "rename", "old": "f0 (conflict of studio, 2027-01-15)", "new": "f1"},
        {"op": "remote_set", "path": "f1", "size": 10, "tag": 3},
        {"op": "pump"},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_who_won_the_name_that_a_file_has_left_is_no_rival_of_it(tmp_path: Path) -> None:
    """Renamed between 412 and HEAD, it lost its new name for a conflict at the old one."""
    operations: list[Op] = [
        {"op": "save", "path": "f0.tmp", "size": 10, "tag": 1},
        {"op": "save", "path": "f0", "size": 10, "tag": 2},
        {"op": "remote_set", "path": "f0.tmp", "size": 10, "tag": 3},
        {"op": "pump", "plan": {"1": [{"op": "rename", "old": "f0.tmp", "new": "f0"}]}},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_that_the_old_name_is_free_says_nothing_of_the_new_one(tmp_path: Path) -> None:
    """Renamed between 412 and HEAD, it forgot which version it replaces: a conflict with nobody."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "f0", "size": 10, "tag": 1},
        {"op": "remote_set", "path": "f1", "size": 10, "tag": 2},
        {"op": "save", "path": "f0", "size": 10, "tag": 3},
        {"op": "remote_remove", "path": "f0"},
        {"op": "pump", "plan": {"2": [{"op": "rename", "old": "f0", "new": "f1"}]}},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_a_file_whose_close_met_a_full_disk_can_be_written_again(tmp_path: Path) -> None:
    """Its descriptor was read-only by then, and stayed so for who opened it next (seed 38)."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "d1/d0/f0", "size": 1683, "tag": 32},
        {"op": "replace", "path": "d1/d0/f2.wav", "size": 0, "tag": 46},
        {"op": "open", "slot": "A", "path": "fü", "flags": "wca"},
        {"op": "fsync", "slot": "A"},
        {"op": "full", "commits": 5},
        {"op": "symlink", "path": "l1", "tag": 77},
        {"op": "pump"},
        {"op": "open", "slot": "C", "path": "d1/d0/f2.wav", "flags": "w"},
        {"op": "close", "slot": "A"},
        {"op": "save", "path": "fü", "size": 2281, "tag": 80},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_the_model_knows_that_void_attributes_leave_nothing_to_send(tmp_path: Path) -> None:
    """The model's own defect: another client's version seemed to be under its old name after a rename (seed 48)."""
    operations: list[Op] = [
        {"op": "save", "path": "f1", "size": 288, "tag": 46},
        {"op": "pump"},
        {"op": "attributes", "path": "f1", "mtime_ns": 956805141114389070},
        {"op": "remote_set", "path": "f1", "size": 0, "tag": 69},
        {"op": "advance", "seconds": 2.0},
        {"op": "pump"},
        {"op": "rename", "old": "f1", "new": "f2"},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_the_model_forgets_an_open_that_cut_the_file_and_failed(tmp_path: Path) -> None:
    """The model's own defect: a writer that had never got a handle kept the file from being sealed (seed 274)."""
    between: list[Op] = [{"op": "remote_set", "path": "d0/d0/f2.wav", "size": 2439, "tag": 37}]
    operations: list[Op] = [
        {"op": "remote_set", "path": "d2/fü", "size": 10, "tag": 19},
        {"op": "remote_set", "path": "d0/d0/f1", "size": 0, "tag": 20},
        {"op": "rename", "old": "d0", "new": "d2/d1"},
        {"op": "unlink", "path": "d0/d0/f1", "plan": {"1": between}},
        {"op": "drain", "deep": False},
        {"op": "rename", "old": "d0", "new": "d2/d1/d2"},
        {"op": "open", "slot": "A", "path": "d2/d1/d2/d0/f2.wav", "flags": "w"},
        {"op": "full", "commits": 1},
        {"op": "save", "path": "d2/d1/d2/d0/f2.wav", "size": 0, "tag": 55},
        {"op": "close", "slot": "A"},
        {"op": "save", "path": "d2/d1/d2/d0/f2.wav", "size": 1, "tag": 58},
        {"op": "pump", "plan": {"3": [{"op": "open", "slot": "B", "path": "d1/f2.wav", "flags": "r"}]}},
    ]
    check(operations, tmp_path, upload_delay_s=0.0, small_file=4 << 20)


@pytest.mark.expect_warnings
def test_a_file_that_is_cut_once_all_of_it_is_here(tmp_path: Path) -> None:
    """Its row listed no range of this host's: after the kill nobody seemed to have written to it (seed 315)."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "f1", "size": 656, "tag": 55},
        {"op": "open", "slot": "C", "path": "f1", "flags": "w"},
        {"op": "background", "plan": {"0": "lost"}},
        {"op": "drain", "deep": True},
        {"op": "truncate_open", "slot": "C", "size": 284},
        {"op": "kill"},
    ]
    check(operations, tmp_path, upload_delay_s=0.0, small_file=300)


@pytest.mark.expect_warnings
def test_names_are_exchanged_where_an_older_delete_is_void(tmp_path: Path) -> None:
    """What it expected there was taken for what the newcomer is to replace: a conflict with nobody (seed 186)."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "d0/f1", "size": 0, "tag": 32},
        {"op": "remote_set", "path": "f0", "size": 78, "tag": 35},
        {"op": "unlink", "path": "f0"},
        {"op": "remote_set", "path": "f0", "size": 1, "tag": 55},
        {"op": "exchange", "one": "d0/f1", "other": "f0"},
        {"op": "open", "slot": "A", "path": "d0/f1", "flags": "w"},
        {"op": "pump"},
    ]
    check(operations, tmp_path, upload_delay_s=1.0)


@pytest.mark.expect_warnings
def test_new_metadata_of_an_object_of_parts_whose_answer_was_lost(tmp_path: Path) -> None:
    """The copy has another ETag: it was taken for another host's, and the mode was void (seed 172)."""
    operations: list[Op] = [
        {"op": "save", "path": "f0", "size": 1906, "tag": 42},
        {"op": "drain", "deep": True},
        {"op": "attributes", "path": "f0", "mode": 0o640},
        {"op": "pump", "plan": {"0": "cut", "1": "lost"}},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0, multipart_threshold=600)


@pytest.mark.expect_warnings
def test_a_late_upload_of_a_removed_tree_is_removed(tmp_path: Path) -> None:
    """It has the ETag of the object that was looked at and found to be none: it was shown until the next look."""
    operations: list[Op] = [
        {"op": "mkdir", "path": "d1"},
        {"op": "save", "path": "d1/f0", "size": 30, "tag": 1},
        {"op": "pump", "plan": {"0": "late"}},
        {"op": "drain"},
        {"op": "kill"},
        {"op": "check"},
        {"op": "rmtree", "path": "d1"},
        {"op": "deliver"},
        {"op": "check"},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_a_late_upload_over_the_same_bytes_takes_no_file_away(tmp_path: Path) -> None:
    """Its If-Match held, and after a kill the object was deleted as that of an inode that is no more (seed 3008)."""
    operations: list[Op] = [
        {"op": "save", "path": "f1", "size": 1, "tag": 1},
        {"op": "pump", "plan": {"0": "lost"}},
        {"op": "unlink", "path": "f1"},  # from here on late uploads are looked for
        {"op": "save", "path": "f1", "size": 1, "tag": 2},
        *[{"op": "pump"}] * 3,
        {"op": "save", "path": "f1", "size": 1, "tag": 3},  # the same byte
        {"op": "pump", "plan": {"1": "late"}},
        {"op": "advance", "seconds": 6.0},
        *[{"op": "pump"}] * 2,
        {"op": "deliver"},
        {"op": "kill"},
        {"op": "advance", "seconds": 20.0},
        *[{"op": "pump"}] * 2,
        {"op": "check"},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_a_close_that_finds_the_disk_full_leaves_nothing_in_staging(tmp_path: Path) -> None:
    """The source of a copy was replaced: what was sent instead stayed in staging for nothing (seeds 91, 4045)."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "d2/d2/f\u00fc", "size": 24, "tag": 23},
        {"op": "remote_mkdir", "path": "d2/d0"},
        {"op": "open", "slot": "A", "path": "d2/f\u00fc", "flags": "wca"},
        {"op": "cp", "old": "d2/f\u00fc", "new": "d2/d2/f1", "tag": 55, "edit": 3},
        {"op": "cp", "old": "d2/d2/f\u00fc", "new": "d2/d0/f\u00fc", "tag": 56},
        {"op": "exchange", "one": "d2/d0/f\u00fc", "other": "d2/d2/f\u00fc"},
        {"op": "pump"},
        {"op": "remote_set", "path": "d2/d2/f\u00fc", "size": 0, "tag": 67},
        {"op": "full", "commits": 3},
        {"op": "background"},
        {"op": "pump"},
    ]
    check(operations, tmp_path, upload_delay_s=0.0, cache_size=8192)


@pytest.mark.expect_warnings
def test_a_program_creates_over_a_file_that_it_has_not_looked_up(tmp_path: Path) -> None:
    """It lost the mode that an earlier mount had stored, while the bucket was away (seed 222)."""
    operations: list[Op] = [
        {"op": "save", "path": "f1", "size": 1, "tag": 1},
        {"op": "attributes", "path": "f1", "mode": 493},
        {"op": "drain", "deep": False},
        {"op": "outage", "on": True},
        {"op": "remount"},
        {"op": "save", "path": "f1", "size": 2, "tag": 2},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_the_model_knows_that_a_program_keeps_the_directory_above(tmp_path: Path) -> None:
    """The model's own defect: d0/d0 was shown for a delete below alone, and was not taken for `rm -r`'s (seed 80)."""
    operations: list[Op] = [
        {"op": "mkdir", "path": "d0"},
        {"op": "save", "path": "f0", "size": 773, "tag": 24},
        {"op": "mkdir", "path": "d0/d0"},
        {"op": "remote_set", "path": "d0/f1", "size": 1585, "tag": 25},
        {"op": "mkdir", "path": "d0/d0/d2"},
        {"op": "pump"},
        {"op": "replace", "path": "f0", "size": 1, "tag": 30},
        {
            "op": "pump",
            "plan": {
                "2": [
                    {"op": "remote_rmdir", "path": "d0"},
                    {"op": "remote_set", "path": "d0/f2.wav", "size": 0, "tag": 32},
                ]
            },
        },
        {"op": "exchange", "one": "f0", "other": "d0/f1"},
        {"op": "symlink", "path": "d0/d0/d2/l1", "tag": 38},
        {"op": "pump", "plan": {}},
        {"op": "symlink", "path": "l1", "tag": 44},
        {"op": "pump"},
        {"op": "truncate", "path": "f0", "size": 593},
        {"op": "pump"},
        {"op": "rename", "old": "d0/d0/d2/l1", "new": "d0/l1"},
        {"op": "pump", "plan": {"0": "refused"}},
        {"op": "pump", "plan": {}},
        {
            "op": "pump",
            "plan": {
                "1": [
                    {"op": "remote_set", "path": "d0/f2.wav", "size": 1, "tag": 52},
                    {"op": "readall", "path": "f\u00fc"},
                ]
            },
        },
        {"op": "remote_rmdir", "path": "d0/d0/d2"},
        {"op": "pump", "plan": {"0": [{"op": "remote_mkdir", "path": "d1"}]}},
        {"op": "pump"},
        {"op": "rmtree", "path": "d0/d0/d2"},
        {
            "op": "pump",
            "plan": {
                "0": [{"op": "close", "slot": "C"}],
                "1": [{"op": "fsync", "slot": "B"}, {"op": "remote_set", "path": "f0", "size": 0, "tag": 59}],
                "2": [
                    {"op": "remote_mkdir", "path": "d0/d0/d0"},
                    {"op": "close", "slot": "C"},
                    {"op": "fsync", "slot": "C"},
                ],
            },
        },
    ]
    check(operations, tmp_path, small_file=4194304, multipart_threshold=600, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_the_model_sees_a_directory_go_with_the_last_delete_below(tmp_path: Path) -> None:
    """The model's own defect: gone in the middle of an operation, it was shown until the next look (seed 88)."""
    operations: list[Op] = [
        {
            "op": "rename",
            "old": "d0/f2.wav",
            "new": "f\u00fc",
            "plan": {
                "0": [{"op": "remote_set", "path": "d0/f\u00fc", "size": 2147, "tag": 32}],
                "1": [{"op": "remote_set", "path": "d0/f1", "size": 2386, "tag": 33}],
            },
        },
        {"op": "cp", "old": "d0/f1", "new": "f\u00fc", "tag": 34, "plan": {}},
        {
            "op": "attributes",
            "path": "d0/f2.wav",
            "mode": 416,
            "plan": {
                "0": [
                    {"op": "remote_set", "path": "f\u00fc", "size": 36, "tag": 38},
                    {"op": "remote_remove", "path": "f1"},
                ]
            },
        },
        {"op": "drain", "deep": False},
        {"op": "remote_set", "path": "d2/f\u00fc", "size": 66, "tag": 41},
        {"op": "save", "path": "d2/f1", "size": 1, "tag": 47},
        {"op": "pump", "plan": {"0": "refused"}},
        {"op": "rename", "old": "f\u00fc (conflict of studio, 2027-01-15)", "new": "f\u00fc"},
        {"op": "open", "slot": "B", "path": "d2/f1", "flags": "wca", "plan": {}},
        {"op": "pump", "plan": {}},
        {"op": "unlink", "path": "d2/f\u00fc"},
        {"op": "unlink", "path": "d2/f1"},
        {"op": "pump", "plan": {}},
        {"op": "pump", "plan": {"0": [{"op": "close", "slot": "C"}]}},
        {"op": "remote_rmdir", "path": "d2"},
        {"op": "pump", "plan": {"2": [{"op": "open", "slot": "C", "path": "d2/f1", "flags": "wc"}]}},
    ]
    check(operations, tmp_path, small_file=300, upload_delay_s=0.0, multipart_threshold=600)


@pytest.mark.expect_warnings
@pytest.mark.parametrize("then", ["remote_remove", "remote_set"])
def test_the_model_knows_what_another_client_takes_away_before_the_answer_is_recorded(
    tmp_path: Path, then: str
) -> None:
    """The model's own defect: the bucket had the file, and a full disk kept the journal from saying so (seed 138)."""
    operations: list[Op] = [
        {"op": "save", "path": "f1", "size": 10, "tag": 32},
        {"op": "full", "commits": 2},
        {"op": "pump"},
        {"op": then, "path": "f1", **({"size": 20, "tag": 33} if then == "remote_set" else {})},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_the_model_knows_that_an_unlink_is_done_or_not(tmp_path: Path) -> None:
    """The model's own defect: on a full disk it held the file to be gone, perhaps (seed 285)."""
    operations: list[Op] = [
        {"op": "full", "commits": 3},
        {"op": "save", "path": "f0", "size": 49, "tag": 55},
        {"op": "outage", "on": True},
        {"op": "unlink", "path": "f0"},
        {"op": "drop", "path": "f0"},
    ]
    check(operations, tmp_path, upload_delay_s=1.0)


@pytest.mark.expect_warnings
def test_the_model_does_not_look_within_a_listing(tmp_path: Path) -> None:
    """The model's own defect: its look waited for the LIST in which it was made, and saw what was before (seed 4094)."""
    operations: list[Op] = [
        {"op": "save", "path": "f\u00fc", "size": 786, "tag": 51},
        {"op": "advance", "seconds": 20.0},
        {"op": "pump", "plan": {"0": "refused"}},
        {"op": "replace", "path": "f\u00fc", "size": 0, "tag": 53},
        {
            "op": "open",
            "slot": "B",
            "path": "f0",
            "flags": "w",
            "plan": {
                "0": [{"op": "remote_set", "path": "f\u00fc", "size": 80, "tag": 71}],
                "1": [{"op": "remote_mkdir", "path": "d2"}],
            },
        },
    ]
    check(operations, tmp_path, small_file=0, cache_size=8192, upload_delay_s=1.0)


@pytest.mark.expect_warnings
def test_the_model_knows_an_open_that_was_killed_before_it_cut_the_file(tmp_path: Path) -> None:
    """The model's own defect: what was there is kept beside another client's object, though nobody wrote it."""
    operations: list[Op] = [
        {"op": "remote_set", "path": "f0", "size": 1662, "tag": 24},
        {"op": "readall", "path": "f0"},
        {"op": "outage", "on": True},
        {"op": "arm", "point": "commit:after", "times": 1},
        {"op": "remote_set", "path": "f0", "size": 30, "tag": 54},
        {"op": "open", "slot": "A", "path": "f0", "flags": "wct"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0, small_file=4 << 20)


@pytest.mark.expect_warnings
def test_another_clients_object_that_was_removed_with_its_tree_stays_removed(tmp_path: Path) -> None:
    """The answer to the upload before it voided its delete."""
    operations: list[Op] = [
        {"op": "mkdir", "path": "d0"},
        {"op": "save", "path": "d0/f0", "size": 52, "tag": 34},
        {"op": "full", "commits": 2},
        {"op": "pump"},
        {"op": "remote_set", "path": "d0/f0", "size": 16, "tag": 46},
        {"op": "rmtree", "path": "d0"},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_a_time_that_could_not_be_set_is_not_shown(tmp_path: Path) -> None:
    """The staged file had it before the journal found that the disk is full."""
    operations: list[Op] = [
        {"op": "outage", "on": True},
        {"op": "open", "slot": "B", "path": "f1", "flags": "rc"},
        {"op": "attributes", "path": "f1", "mtime_ns": 371184453058573777},
        {"op": "full", "commits": 1},
        {"op": "attributes", "path": "f1", "mtime_ns": 591965591679257954},
    ]
    check(operations, tmp_path, upload_delay_s=0.0)


@pytest.mark.expect_warnings
def test_the_model_knows_that_a_copys_source_is_replaced_while_its_target_is_made(tmp_path: Path) -> None:
    """The model's own defect (seed 5344): the handle keeps its version, and that may be gone."""
    meanwhile = {"1": [{"op": "remote_set", "path": "d1/f2.wav", "size": 0, "tag": 56}]}
    operations: list[Op] = [
        {"op": "remote_set", "path": "d1/f2.wav", "size": 272, "tag": 39},
        {"op": "mkdir", "path": "d1/d1"},
        {"op": "mkdir", "path": "d1/d1/d0"},
        {"op": "pump", "plan": {}},
        {"op": "cp", "old": "d1/f2.wav", "new": "d1/d1/d0/fü", "tag": 55, "edit": 0, "plan": meanwhile},
    ]
    check(operations, tmp_path, upload_delay_s=1.0)


@pytest.mark.expect_warnings
def test_the_model_knows_that_bytes_are_sent_while_attributes_are_not(tmp_path: Path) -> None:
    """The model's own defect: it wanted this host's bytes, which another host had replaced in the bucket (seed 20147)."""
    between: list[Op] = [
        {"op": "attributes", "path": "fü", "mtime_ns": 373336664483391608},
        {"op": "open", "slot": "B", "path": "fü", "flags": "wt"},
    ]
    operations: list[Op] = [
        {"op": "open", "slot": "B", "path": "fü", "flags": "wc"},
        {"op": "close", "slot": "B"},
        {"op": "remote_mkdir", "path": "d1"},
        {"op": "cp", "old": "fü", "new": "d1/f2.wav", "tag": 3},
        {"op": "pump", "plan": {"1": between}},
        {"op": "attributes", "path": "d1/f2.wav", "mode": 0o755},
        {"op": "pump"},
        {"op": "remote_set", "path": "d1/f2.wav", "size": 49, "tag": 6},
        {"op": "pump"},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path, upload_delay_s=0.0, cache_size=8192)


def test_a_directory_whose_object_nobody_could_ask_for_is_kept(tmp_path: Path) -> None:
    """The model's own defect: in an outage another client removed the object of a directory, and a program here the only
    file of which this mount knew. The directory stays, as any that loses its last file here (seed 20328)."""
    operations: list[Op] = [
        {"op": "remote_mkdir", "path": "d1/d0/d0"},
        {"op": "remote_set", "path": "d1/d0/f0", "size": 5, "tag": 22},
        {"op": "outage", "on": True},
        {"op": "rename", "old": "d1/d0/f0", "new": "d1/d0/d0/f2.wav"},
        {"op": "remount"},
        {"op": "remote_rmdir", "path": "d1/d0/d0"},
        {"op": "unlink", "path": "d1/d0/d0/f2.wav"},
        {"op": "outage", "on": False},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path)


def test_a_directory_renamed_in_an_outage_leaves_no_object_under_its_old_name(tmp_path: Path) -> None:
    """The last removal of a file in it gave it a row before its object was known: the old name came back (seed 5290)."""
    operations: list[Op] = [
        {"op": "mkdir", "path": "d1"},
        {"op": "mkdir", "path": "d1/d0"},
        {"op": "drain"},
        {"op": "save", "path": "d1/d0/f2.wav", "size": 1, "tag": 44},
        {"op": "outage", "on": True},
        {"op": "remount"},
        {"op": "rename", "old": "d1/d0/f2.wav", "new": "d1/f0"},
        {"op": "rename", "old": "d1", "new": "d0"},
        {"op": "outage", "on": False},
        {"op": "drain", "deep": True},
    ]
    check(operations, tmp_path)
