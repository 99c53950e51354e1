"""What each server that stands in for R2 cannot do: the tests of the contract that it fails, and why.

`NAME by boto3`: the same server, and boto3 sends every request: it is the reference of the transport without it.
A test is named by its function, or with its parameters in brackets. It runs nevertheless and must
fail (strict xfail), so that this table stays true; those of `NOT_RUN` hang, or log errors of the
server's own. Every test must pass somewhere: `test_cannot.py` sees to it.
"""

from __future__ import annotations

_ROUTES = "its routes do not match a path with a line break"

CANNOT: dict[str, dict[str, str]] = {
    "localdir": {
        "test_an_object_beside_a_directory_of_its_name": "a directory cannot hold a file and a directory "
        "of one name",
    },
    "memory": {},
    "buckets": {},
    "double": {},
    "moto": {
        "test_names_with_control_characters[new\\nline]": _ROUTES,
        "test_copy_of_a_changed_source": "ignores x-amz-copy-source-if-match",
        "test_unequal_parts_do_not_fit": "accepts unequal parts, as AWS does",
    },
    "seaweedfs": {
        "test_a_name_with_a_backslash": "makes a backslash a slash",
        "test_the_order_is_that_of_utf8": "lists by the parts of a key: `a/b` before `a!`",
        "test_a_marker_goes_and_files_stay": "HEAD of a directory without marker answers 200",
        "test_a_directory_without_marker_goes_with_its_last_file": "HEAD of a directory without marker "
        "answers 200",
        "test_a_marker_keeps_its_metadata": "loses a marker's metadata",
        "test_a_marker_can_be_copied": "cannot copy a marker",
        "test_unequal_parts_do_not_fit": "accepts unequal parts, as AWS does",
    },
    "simulator": {
        "test_names_with_control_characters[new\\nline]": _ROUTES,
        "test_names_with_control_characters[carriage\\rreturn]": _ROUTES,
    },
}

NOT_RUN: dict[str, dict[str, str]] = {
    "moto": {
        "test_a_part_of_an_unknown_upload": "answers 500 for a part of an unknown upload",
        "test_abort": "answers 500 for an unknown upload",
    },
}

BY_BOTO3 = " by boto3"
REFERENCES = ("double", "seaweedfs")  # servers on which boto3 is tested, too
for _name in REFERENCES:
    CANNOT[_name + BY_BOTO3] = CANNOT[_name]
