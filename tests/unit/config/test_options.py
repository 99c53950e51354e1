"""The table: complete, and of one mind with the settings object."""

from __future__ import annotations

import dataclasses
import tomllib

from r2fs.model.settings import Bucket, Credentials, Settings
from r2fs.model.settings.options import BY_NAME, FAMILIES, KEY_PARTS, TABLE

FILLED_BY_CONFIG = {
    "programs",
    "name",
    "staging",
    "scheme",
    "prefix",
    "credentials",
    "given",
    "members",
    "every",
    "label",
}
NOT_FIELDS = {
    "url",
    "mountpoint",
    "account_id",
    "jurisdiction",
    "env_file",
    *(f"{part}_file" for part in KEY_PARTS),
}


def test_every_field_is_a_setting_and_every_setting_a_field():
    fields = {field.name for part in (Settings, Bucket, Credentials) for field in dataclasses.fields(part)}
    options = {option.field for option in TABLE}
    assert fields - options == FILLED_BY_CONFIG
    assert options - fields == NOT_FIELDS


def test_names_are_unique():
    assert len(BY_NAME) == len(TABLE)


def test_every_default_is_allowed_and_reads_back():
    for option in TABLE:
        if option.default is not None:
            written = tomllib.loads(f"x = {option.kind.write(option.default)}")["x"]
            assert option.kind.parse(written) == option.default, option.name


def test_variables_belong_to_a_family():
    for option in TABLE:
        families = [variable.split("_")[0] for variable in option.variables]
        assert set(families) <= set(FAMILIES), option.name
        assert families == sorted(families, key=FAMILIES.index, reverse=True), (
            f"{option.name}: the stronger first"
        )


def test_no_secret_is_a_flag():
    assert {option.name for option in TABLE if option.secret} == {"secret_access_key", "session_token"}
    assert not any(option.flag for option in TABLE if option.secret)


def test_the_variables_that_people_have_are_all_there():
    known = {variable for option in TABLE for variable in option.variables}
    wanted = (
        "R2_ACCOUNT_ID R2_ENDPOINT R2_ACCESS_KEY_ID R2_SECRET_ACCESS_KEY R2_BUCKET R2_BUCKET_NAME "
        "STORAGE_ENDPOINT_URL STORAGE_ACCESS_KEY_ID STORAGE_SECRET_ACCESS_KEY STORAGE_BUCKET_NAME STORAGE_REGION "
        "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_ENDPOINT_URL_S3"
    )
    assert set(wanted.split()) <= known
