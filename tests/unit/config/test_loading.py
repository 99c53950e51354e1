"""Loading: precedence, sources, URLs, endpoints, credentials, and what is said of mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from r2fs.model.errors import SettingsError
from r2fs.model.identity import identity
from r2fs.model.settings import GIB, MIB, settings_file
from r2fs.model.settings.loading import credentials_at, credentials_of, load, settings_of
from r2fs.model.settings.sources import Flag, gather
from tests.support.users import ROOT, acting_as, neighbours

R2 = {"R2_ACCOUNT_ID": "acc", "R2_ACCESS_KEY_ID": "id2", "R2_SECRET_ACCESS_KEY": "secret2"}


@pytest.fixture
def write(tmp_path):
    """write(text) → a settings file of mode 0600."""

    def _write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return _write


def env(**variables: str) -> dict[str, str]:
    return {"HOME": "/nonexistent/kim", **variables}


def refused(target=None, environ=None, **given) -> str:
    with pytest.raises(SettingsError) as caught:
        load(target, environ=env() if environ is None else environ, **given)
    return str(caught.value)


# ------------------------------------------------------------------ read again, by a daemon
def test_a_key_is_read_again_where_it_came_from(tmp_path, monkeypatch):
    """From another working directory, and without the warnings of the first time."""
    (tmp_path / "id").write_text("old")
    (tmp_path / "secret").write_text("old-secret")
    sources = {
        "target": "s3://bucket",
        "environ": env(R2FS_ACCESS_KEY_ID_FILE="id", R2FS_CACHE_SIZ="1G"),
        "flags": {"secret_access_key_file": Flag("secret", "flag")},
        "base": tmp_path,
    }
    monkeypatch.chdir("/")
    assert credentials_of(gather(**sources, warn=False)).access_key_id == "old"
    (tmp_path / "id").write_text("new")
    (tmp_path / "secret").write_text("new-secret")
    found = credentials_of(gather(**sources, warn=False))
    assert (found.access_key_id, found.secret_access_key) == ("new", "new-secret")


# ------------------------------------------------------------------ precedence
def test_defaults():
    settings = load("file:///srv/b", environ=env())
    assert settings.cache_size == 10 * GIB
    assert settings.cache_ttl_s == 0.0
    assert settings.uid == os.getuid()
    assert settings.host
    assert settings.bucket.url == "file:///srv/b"


FILE = """
cache_size = "1GiB"
upload_threads = 2

[defaults]
cache_size = "2GiB"
freshness = "30s"

[mount.takes]
url = "file:///srv/takes"
mountpoint = "/mnt/takes"
cache_size = 3221225472

[mount.other]
url = "file:///srv/other"
"""


def test_each_source_is_stronger_than_the_one_before(write):
    path = write(FILE)
    name = "cache_size"

    def value(target, **given):
        values = gather(target, config_file=path, **given)
        return values.get(name), values.source(name)

    assert gather("other", environ=env(), config_file=path).get("upload_threads") == 2
    assert value("other", environ=env()) == (2 * GIB, f"{path}:6 [defaults]")
    assert value("takes", environ=env()) == (3 * GIB, f"{path}:12 [mount.takes]")
    variables = env(R2FS_CACHE_SIZE="4G")
    assert value("takes", environ=variables) == (4 * GIB, "variable R2FS_CACHE_SIZE")
    flags = {name: Flag("5G", "flag --cache-size")}
    assert value("takes", environ=variables, flags=flags) == (5 * GIB, "flag --cache-size")


def test_a_named_mount_keeps_its_url_whatever_the_environment_says(write):
    path = write(FILE)
    variables = env(R2FS_URL="file:///elsewhere", R2FS_MOUNTPOINT="/elsewhere")
    values = gather("takes", environ=variables, config_file=path)
    assert values.get("url") == "file:///srv/takes"
    assert values.mountpoint == Path("/mnt/takes")
    assert load("takes", environ=variables, config_file=path).name == "takes"
    assert load(environ=variables, config_file=path).bucket.name == "/elsewhere"


def test_a_wrong_value_that_is_overruled_or_empty_harms_nobody(write):
    path = write('cache_size = "rubbish"')
    assert load("file:///b", environ=env(R2FS_CACHE_SIZE="1G"), config_file=path).cache_size == GIB
    assert load("file:///b", environ=env(R2FS_CACHE_SIZE="")).cache_size == 10 * GIB


def test_the_file_named_by_a_variable_must_be_there():
    assert "there is no such settings file" in refused("file:///b", env(R2FS_CONFIG="/nonexistent/x.toml"))


def test_v4_paths_in_the_file_are_relative_to_it(write):
    """V4: `cache_dir = "cache"` is in the application's checkout, whose .gitignore names it."""
    path = write('cache_dir = "cache"\nstate_dir = "~/state"')
    settings = load("file:///b", environ=env(), config_file=path)
    assert settings.cache_dir.parent == path.parent / "cache"
    assert settings.state_dir.parent == Path("~/state").expanduser()


# ------------------------------------------------------------------ mistakes
def test_a_wrong_value_names_setting_source_and_what_is_allowed(write):
    path = write("\n[mount.takes]\nurl = 'file:///b'\nupload_threads = 900\n")
    text = refused("takes", config_file=path)
    assert "upload_threads" in text
    assert f"{path}:4 [mount.takes]" in text
    assert "from 1 to 64" in text
    text = refused("file:///b", env(R2FS_FRESHNESS="soon"))
    assert "freshness: 'soon'" in text
    assert "variable R2FS_FRESHNESS" in text
    assert "allowed: a time from 0 to 1d" in text


@pytest.mark.parametrize(
    ("target", "text", "says"),
    [
        ("file:///b", '\ncach_size = "1G"', "config.toml:2: unknown setting 'cach_size' (is cache_size"),
        ("file:///b", "[mounts.x]\nurl='x'", "unknown table 'mounts' (is mount"),
        ("a", "[mount.a]\nurl = 'file:///a'\n[mount.b]\nurll = 'file:///b'", "unknown setting 'urll'"),
        ("file:///b", '[mount."a b"]\nurl="file:///b"', "a name has letters"),
        ("tales", FILE, "is takes meant?"),
        ("zzz", FILE, "it has other, takes"),
        ("r2://a+b", '[buckets.a]\ncache_size = "1G"\n', "cache_size is a setting of a mount"),
        ("r2://a+b", '[buckets.a]\npublic_ur = "x"\n', "is public_url meant"),
        ("r2://a+b", "buckets = 1\n", "[buckets.NAME]"),
    ],
)
def test_a_name_that_is_wrong_in_the_file(write, target, text, says):
    assert says in refused(target, env(**R2), config_file=write(text))


def test_a_file_that_is_not_toml(write):
    path = write("cache_size = 10GiB")
    text = refused("file:///b", config_file=path)
    assert text.startswith(f"{path}: not TOML: ")
    assert "line 1" in text


@pytest.mark.expect_warnings("R2FS_CACHE_SIZ is no setting")
def test_a_misspelled_variable_is_told():
    load("file:///b", environ=env(R2FS_CACHE_SIZ="1G"))


def test_foreign_variables_of_our_prefix_are_left_alone():
    load("file:///b", environ=env(R2FS_TEST_SESSION="x"))


# ------------------------------------------------------------------ URLs
def test_urls():
    bucket = load("r2://studio/takes//2024/", environ=env(**R2)).bucket
    assert (bucket.scheme, bucket.name, bucket.prefix) == ("s3", "studio", "takes/2024/")
    assert load("r2fs#r2://studio", environ=env(**R2)).bucket.name == "studio"
    assert load("file:///a/../b/", environ=env()).bucket.name == "/b"


@pytest.mark.parametrize("url", ["file://host/dir", "file:x", "ftp://x", "r2:///p", "s3://a b", "r2://-x"])
def test_urls_that_are_refused(url):
    assert refused(url, env(**R2))


@pytest.mark.parametrize("url", ["s3://ID:geheim@bucket", "https://ID:geheim@host/bucket", "r2://geheim@b"])
def test_a_key_in_a_url_is_refused_and_not_repeated(url):
    assert "geheim" not in refused(url, env(**R2))


def test_the_bucket_alone():
    assert (
        load(environ=env(**R2, R2_BUCKET="takes")).bucket.endpoint_url
        == "https://acc.r2.cloudflarestorage.com"
    )
    assert load("r2://", environ=env(**R2, R2_BUCKET_NAME="takes")).bucket.name == "takes"
    storage = {
        "STORAGE_ENDPOINT_URL": "http://127.0.0.1:9000",
        "STORAGE_ACCESS_KEY_ID": "i",
        "STORAGE_SECRET_ACCESS_KEY": "s",
        "STORAGE_BUCKET_NAME": "jobs",
        "STORAGE_REGION": "eu-west-3",
    }
    bucket = load(environ=env(**storage)).bucket
    assert (bucket.name, bucket.endpoint_url, bucket.region) == ("jobs", "http://127.0.0.1:9000", "eu-west-3")
    assert bucket.credentials.secret_access_key == "s"


def test_no_bucket_at_all():
    assert "no bucket is named" in refused(None)


# ------------------------------------------------------------------ endpoints and regions
def test_r2_needs_an_account_or_an_endpoint():
    text = refused("r2://b")
    assert "R2_ACCOUNT_ID" in text
    assert "R2_ENDPOINT" in text


def test_v3_its_four_variables_make_endpoint_region_and_bucket():
    """V3: what VoiceBeat exports today; the endpoint is made of the account, the region is `auto`."""
    settings = load(None, environ=env(**R2, R2_BUCKET_NAME="voicebeat-audio"))
    bucket = settings.bucket
    assert (bucket.name, bucket.region) == ("voicebeat-audio", "auto")
    assert bucket.endpoint_url == "https://acc.r2.cloudflarestorage.com"
    assert (bucket.credentials.access_key_id, bucket.credentials.secret_access_key) == ("id2", "secret2")


def test_jurisdiction():
    bucket = load("r2://b", environ=env(**R2, R2_JURISDICTION="eu")).bucket
    assert bucket.endpoint_url == "https://acc.eu.r2.cloudflarestorage.com"


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({"R2_ENDPOINT": "https://r2.example.com"}, "https://r2.example.com"),
        ({"AWS_ENDPOINT_URL_S3": "http://localhost:1"}, "https://acc.r2.cloudflarestorage.com"),
        ({"STORAGE_ENDPOINT_URL": "http://localhost:1"}, "https://acc.r2.cloudflarestorage.com"),
        ({"R2FS_ENDPOINT_URL": "http://localhost:2"}, "http://localhost:2"),
    ],
)
def test_account_against_endpoint(variables, endpoint):
    assert load("r2://b", environ=env(**R2, **variables)).bucket.endpoint_url == endpoint


def test_an_account_flag_is_stronger_than_an_endpoint_variable():
    flags = {"account_id": Flag("other", "flag --account-id")}
    bucket = load("r2://b", environ=env(**R2, R2_ENDPOINT="https://r2.example.com"), flags=flags).bucket
    assert bucket.endpoint_url == "https://other.r2.cloudflarestorage.com"


def test_regions():
    aws = {"AWS_REGION": "eu-central-1"}
    assert load("r2://b", environ=env(**R2, **aws)).bucket.region == "auto"
    assert load("r2://b", environ=env(**R2, R2_REGION="weur")).bucket.region == "weur"
    assert load("s3://b", environ=env(**aws)).bucket.region == "eu-central-1"
    assert load("s3://b", environ=env()).bucket.region == "us-east-1"
    assert load("s3://b", environ=env()).bucket.endpoint_url is None
    r2 = env(R2FS_ENDPOINT_URL="https://acc.r2.cloudflarestorage.com")
    assert load("s3://b", environ=r2).bucket.region == "auto"


# ------------------------------------------------------------------ credentials
def key(environ, **given) -> tuple[str | None, str | None, str | None]:
    found = load("r2://b", environ=environ, **given).bucket.credentials
    return found.access_key_id, found.secret_access_key, found.session_token


AWS = {"AWS_ACCESS_KEY_ID": "ida", "AWS_SECRET_ACCESS_KEY": "secreta", "AWS_SESSION_TOKEN": "token"}


def test_a_key_comes_from_one_family_of_variables():
    assert key(env(**R2, **AWS)) == ("id2", "secret2", None)
    assert key(env(R2_ACCOUNT_ID="acc", **AWS)) == ("ida", "secreta", "token")
    half = env(R2_ACCOUNT_ID="acc", R2_ACCESS_KEY_ID="id2", **AWS)
    assert key(half) == ("ida", "secreta", "token")


def test_half_a_key_is_told():
    text = refused("r2://b", env(R2_ACCOUNT_ID="acc", R2_ACCESS_KEY_ID="id2"))
    assert "access_key_id is set (variable R2_ACCESS_KEY_ID), but secret_access_key is not" in text
    text = refused("r2://b", env(R2_ACCOUNT_ID="acc", R2_SECRET_ACCESS_KEY="s"))
    assert "secret_access_key is set (variable R2_SECRET_ACCESS_KEY), but access_key_id is not" in text


def test_a_token_of_a_weaker_source_belongs_to_another_key():
    environ = env(R2_ACCOUNT_ID="acc", R2FS_ACCESS_KEY_ID="own", R2FS_SECRET_ACCESS_KEY="s", **AWS)
    assert key(environ) == ("own", "s", None)


def test_systemd_credentials_are_stronger_than_variables(tmp_path):
    (tmp_path / "access_key_id").write_text("idc\n")
    (tmp_path / "secret_access_key").write_text("secretc\n")
    environ = env(**R2, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert key(environ) == ("idc", "secretc", None)
    assert gather("r2://b", environ=environ).source("access_key_id") == "systemd credential access_key_id"


def test_keys_in_files(tmp_path, write):
    (tmp_path / "secret").write_text("fromfile\n")
    (tmp_path / "secret").chmod(0o600)
    path = write('access_key_id = "i"\nsecret_access_key_file = "secret"\naccount_id = "acc"')
    assert key(env(), config_file=path) == ("i", "fromfile", None)
    assert (
        gather(environ=env(), config_file=path).source("secret_access_key") == f"{tmp_path}/secret ({path}:2)"
    )


@pytest.mark.parametrize("content", ["", "geheim und mehr", "geheim\x07", "gehe\u00efm"])
def test_a_key_file_that_holds_no_key_is_told_without_its_words(tmp_path, content):
    (tmp_path / "secret").write_text(content)
    text = refused(
        "r2://b", env(**R2), flags={"secret_access_key_file": Flag(str(tmp_path / "secret"), "flag x")}
    )
    assert "must hold one line" in text
    assert "gehe" not in text


def test_a_key_file_that_is_not_there(tmp_path):
    text = refused("r2://b", env(**R2, R2FS_SECRET_ACCESS_KEY_FILE=str(tmp_path / "none")))
    assert "cannot be read: No such file" in text
    assert "variable R2FS_SECRET_ACCESS_KEY_FILE" in text


def test_a_secret_is_never_an_argument():
    flags = {"secret_access_key": Flag("geheim", "option -o secret_access_key")}
    text = refused("r2://b", env(**R2), flags=flags)
    assert "cannot be an argument" in text
    assert "geheim" not in text


def test_a_wrong_secret_is_not_repeated(write):
    text = refused("r2://b", env(R2_ACCOUNT_ID="a", R2_ACCESS_KEY_ID="i", R2_SECRET_ACCESS_KEY="ge heim"))
    assert "secret_access_key has a wrong value (variable R2_SECRET_ACCESS_KEY)" in text
    assert "heim" not in text


@pytest.mark.expect_warnings("every user can read it")
@pytest.mark.parametrize("where", ["settings file", "key file"])
def test_a_secret_in_a_file_that_all_can_read_is_told(write, caplog, tmp_path, where):
    key = tmp_path / "key"
    key.write_text("geheim")
    file = write(f'secret_access_key_file = "{key}"' if where == "key file" else 'secret_access_key = "s"')
    path = key if where == "key file" else file
    path.chmod(0o640)
    gather(environ=env(), config_file=file)
    assert caplog.messages == []
    path.chmod(0o644)
    gather(environ=env(), config_file=file)
    assert caplog.messages == [f"{path} holds secret_access_key and every user can read it: chmod 600 it"]


def test_profile_against_key():
    def profile(environ, flags=None):
        found = load("s3://b", environ=environ, flags=flags or {}).bucket.credentials
        return found.profile, found.access_key_id

    assert profile(env(AWS_PROFILE="p")) == ("p", None)
    assert profile(env(AWS_PROFILE="p", **AWS)) == (None, "ida")
    assert profile(env(**AWS), {"profile": Flag("mine", "flag --profile")}) == ("mine", None)


def test_anonymous():
    found = load("s3://b", environ=env(R2FS_ANONYMOUS="yes", **AWS)).bucket.credentials
    assert found.anonymous
    assert found.access_key_id is None


def test_secrets_are_hidden():
    values = gather("r2://b", environ=env(**R2, R2_SESSION_TOKEN="ttt"))
    from r2fs.model.settings.options import TABLE

    shown = " ".join(values.shown(option) for option in TABLE)
    assert "secret2" not in shown
    assert "ttt" not in shown
    assert "id2" in shown
    assert "secret2" not in repr(load("r2://b", environ=env(**R2)))


# ------------------------------------------------------------------ places
def test_directories_by_xdg_and_systemd():
    settings = load(
        "file:///srv/b", environ=env(XDG_CACHE_HOME="/c", XDG_STATE_HOME="/s", XDG_RUNTIME_DIR="/r")
    )
    assert settings.cache_dir.parent == Path("/c/r2fs")
    assert settings.state_dir.parent == Path("/s/r2fs")
    assert settings.run_dir == Path("/r/r2fs")
    unit = env(
        CACHE_DIRECTORY="/var/cache/r2fs/b",
        STATE_DIRECTORY="/var/lib/r2fs/b:/x",
        RUNTIME_DIRECTORY="/run/r2fs/b",
    )
    settings = load("file:///srv/b", environ={**unit, "XDG_CACHE_HOME": "/c"})
    assert settings.cache_dir.parent == Path("/var/cache/r2fs/b")
    assert settings.state_dir.parent == Path("/var/lib/r2fs/b")
    assert settings.run_dir == Path("/run/r2fs/b")
    home = load("file:///srv/b", environ=env(XDG_CACHE_HOME="relative"))
    assert home.cache_dir.parent == Path("/nonexistent/kim/.cache/r2fs")


def test_directories_of_mounts_are_distinct_and_stay_the_same():
    def own(url, **variables):
        return load(url, environ=env(**R2, **variables)).state_dir.name

    names = {
        own("r2://studio"),
        own("r2://studio/takes"),
        own("r2://studio/takes2"),
        own("r2://studio-takes"),
        own("r2://studio", R2_ENDPOINT="http://localhost:1"),
        own("s3://studio"),
        own("file:///studio"),
    }
    assert len(names) == 7
    assert own("r2://studio/takes") == own("r2://studio/takes/")
    assert own("r2://studio/takes").startswith("studio-takes-")
    assert all(len(name) < 60 for name in names)
    assert "/" not in own("r2://studio/" + "ä b/" * 50)


def test_part_size_and_units_reach_the_settings():
    flags = {
        "part_size": Flag("8MiB", "flag"),
        "stop_timeout": Flag("1h", "flag"),
        "umask": Flag("077", "flag"),
        "read_only": Flag(True, "flag"),
        "local_patterns": Flag("*.tmp,*.lock", "flag"),
    }
    settings = load("file:///b", environ=env(), flags=flags)
    assert settings.part_size == 8 * MIB
    assert settings.stop_timeout_s == 3600.0
    assert settings.umask == 0o077
    assert settings.read_only is True
    assert settings.local_patterns == ("*.tmp", "*.lock")


# ------------------------------------------------------------------ files that are none, and files of others
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "zero", "large", "directory"])
@pytest.mark.parametrize("what", ["access_key_id_file", "secret_access_key_file", "settings"])
def test_what_is_no_file_keeps_nobody_waiting(tmp_path, monkeypatch, kind, what):
    monkeypatch.setattr(settings_file, "PATIENCE_S", 0.01)
    path = tmp_path / "key"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        path.write_text("")
        os.truncate(path, 1 << 40)
    else:
        path.mkdir()
    if what == "settings":
        said = refused("s3://b", config_file=path)
    else:
        said = refused("s3://b", flags={what: Flag(str(path), "flag")}, environ=env(), config_file=None)
    assert str(path) in said


def test_a_key_may_come_through_a_pipe_of_the_shell():
    reading, writing = os.pipe()
    os.write(writing, b"key-id\n")
    os.close(writing)
    flags = {"access_key_id_file": Flag(f"/dev/fd/{reading}", "flag")}
    found = gather("s3://b", environ=env(R2_SECRET_ACCESS_KEY="s"), flags=flags)
    os.close(reading)
    assert found.get("access_key_id") == "key-id"


def test_root_takes_no_settings_of_another_user_unless_they_are_named():
    with neighbours(ROOT) as two:
        home = two.directory("anna", two.attacker)
        path = home / "r2fs" / "config.toml"
        path.parent.mkdir()
        path.write_text('log_file = "/etc/cron.d/x"')
        two.give(path, two.attacker)
        for leaked in ({"XDG_CONFIG_HOME": str(home)}, {"R2FS_CONFIG": str(path)}):
            said = refused("file:///b", environ=env(**leaked))
            assert f"{path} belongs to another user (uid {two.attacker})" in said
            assert "--config" in said
        assert gather("file:///b", environ=env(), config_file=path).get("log_file") == Path("/etc/cron.d/x")


def test_a_home_that_may_not_be_entered_is_one_sentence():
    """As after su, which leaves HOME as it was."""
    with neighbours(ROOT) as two, acting_as(two.attacker):
        said = refused("file:///b", environ={"HOME": str(two.home)})
    assert said.endswith("config.toml: the settings file cannot be read: Permission denied")


# ------------------------------------------------------------------ several buckets
def names_of(settings) -> list[str]:
    return [member.name for member in settings.bucket.members]


def test_several_buckets_by_flag_url_variable_and_file(write):
    flag = {"bucket": Flag(("manuscripts", "audiobooks"), "flag --bucket")}
    found = load("r2://", environ=env(**R2), flags=flag)
    assert names_of(found) == ["manuscripts", "audiobooks"]
    assert found.bucket.url == "r2://manuscripts+audiobooks"
    assert found.bucket.name == found.bucket.prefix == ""
    assert {m.endpoint_url for m in found.bucket.members} == {"https://acc.r2.cloudflarestorage.com"}
    again = load(found.bucket.url, environ=env(**R2))
    assert (again.bucket, again.state_dir) == (found.bucket, found.state_dir)
    assert names_of(load("r2://", environ=env(R2FS_BUCKET="a:b", **R2))) == ["a", "b"]
    assert names_of(load("r2://", environ=env(**R2), config_file=write('bucket = ["a", "b"]'))) == ["a", "b"]


def test_no_bucket_is_named_and_all_are_meant():
    found = load("r2://", environ=env(**R2))
    assert found.bucket.every
    assert found.bucket.url == "r2://"
    assert not load("r2://", environ=env(R2_BUCKET_NAME="one", **R2)).bucket.several
    assert load(
        "r2://", environ=env(R2_BUCKET_NAME="one", **R2), flags={"bucket": Flag("*", "flag")}
    ).bucket.every
    assert "r2://BUCKET/PREFIX" in refused("r2://a+b/prefix", env(**R2))
    assert "bucket:" in refused("r2://", env(R2FS_BUCKET="a:b/c", **R2))


def test_a_state_directory_is_of_the_mount_and_not_of_its_buckets(write):
    found = load("r2://a+b", environ=env(**R2))
    assert load("r2://b+a+c", environ=env(**R2)).state_dir == found.state_dir
    assert load("r2://", environ=env(**R2)).state_dir == found.state_dir
    one = load("r2://a", environ=env(**R2))
    assert one.state_dir != found.state_dir
    assert identity(one.bucket) != identity(found.bucket)
    file = write('[mount.rohimaya]\nurl = "r2://a+b"\n')
    named = load("rohimaya", environ=env(**R2), config_file=file)
    assert named.state_dir != found.state_dir
    assert identity(named.bucket) != identity(found.bucket)


def test_a_bucket_has_settings_of_its_own(write, tmp_path):
    """R10: an address for each; a key for each is stronger than that of the variables, and whole."""
    (tmp_path / "id").write_text("own-id")
    file = write(
        """
        public_url = "https://all.example.com"
        [buckets.audiobooks]
        access_key_id_file = "id"
        secret_access_key = "own-secret"
        public_url = "https://books.example.com"
        read_only = true
        endpoint_url = "https://s3.example.com"
        """
    )
    sources = {"environ": env(R2_SESSION_TOKEN="token", **R2), "config_file": file}
    found = load("r2://manuscripts+audiobooks", **sources)
    texts, books = found.bucket.members
    assert (texts.credentials.access_key_id, texts.credentials.session_token) == ("id2", "token")
    assert (texts.public_url, texts.read_only, found.read_only) == (None, False, False)
    own = books.credentials
    assert (own.access_key_id, own.secret_access_key, own.session_token) == ("own-id", "own-secret", None)
    assert (books.public_url, books.read_only) == ("https://books.example.com", True)
    assert books.endpoint_url == "https://s3.example.com"
    assert found.public_url == "https://all.example.com"
    alone = load("r2://audiobooks", **sources)  # also in a mount of that bucket alone
    assert (alone.read_only, alone.public_url) == (True, "https://books.example.com")
    assert alone.bucket.credentials == own
    values = gather("r2://manuscripts+audiobooks", **sources)
    assert credentials_at(values, "audiobooks") == own
    assert values.key_files()["access_key_id"] == [tmp_path / "id"]
    assert load("r2://audiobooks", flags={"read_only": Flag(False, "flag")}, **sources).read_only is False


def test_each_bucket_may_have_an_account_of_its_own(write):
    file = write('[buckets.a]\naccount_id = "one"\n[buckets.b]\naccount_id = "two"\n')
    keys = {name: value for name, value in R2.items() if name != "R2_ACCOUNT_ID"}
    found = settings_of(gather("r2://a+b", environ=env(**keys), config_file=file))
    hosts = [str(member.endpoint_url).removeprefix("https://") for member in found.bucket.members]
    assert [host.partition(".")[0] for host in hosts] == ["one", "two"]
    assert "account_id" in refused("r2://", env(**keys), config_file=file)
