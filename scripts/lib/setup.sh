# Sourced by scripts/*: what this machine still needs, and nothing else.
#
#   setup demo    enough for scripts/demo
#   setup test    everything for scripts/check and scripts/test (a superset)
#   setup bench   enough for scripts/bench: the peers, too
#
# Debian packages are installed only where something is missing (as root, or by sudo);
# Python packages go into .venv, Node packages below tests/support/node. A second run
# finds all in place and takes a fraction of a second. Fails with one sentence.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python="$repo/.venv/bin/python"

say() { if [ -t 2 ]; then printf '\033[2m%s\033[0m\n' "$*" >&2; else printf '%s\n' "$*" >&2; fi; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

setup() {
    cd "$repo"
    [ -d "${HOME:-}" ] && [ -w "$HOME" ] || export HOME="$repo/.venv/home"  # pip, npm and XDG paths need one
    local lock
    exec {lock}<"$repo"
    flock "$lock"  # two scripts at once: one sets up, the other finds it done
    setup_debian "$1"
    setup_python "$1"
    [ "$1" != test ] || setup_node
    exec {lock}<&-
    mkdir -p "$HOME" 2>/dev/null || true  # .venv may be somebody else's
    need_fuse
}

# ------------------------------------------------------------------ Debian packages
# no pipes into grep -q: with pipefail, its early end would be the other's failure
have_library() { grep -q "$1" <<<"$(/sbin/ldconfig -p)"; }

# Prints the packages that are missing, each with another name that it has in newer releases.
missing_packages() {
    local need='fusermount3:fuse3'
    [ "$1" = bench ] && need+=' s3fs:s3fs git:git' || need+=' sox:sox ffmpeg:ffmpeg'
    [ "$1" != test ] || need+=' flac:flac lame:lame rsync:rsync zip:zip unzip:unzip getfattr:attr sqlite3:sqlite3 git:git make:make patch:patch ed:ed xz:xz-utils bzip2:bzip2 file:file xxd:xxd|vim-common fio:fio systemd-nspawn:systemd-container node:nodejs npm:npm zsh:zsh fish:fish chromium:chromium chromedriver:chromium-driver'
    local pair
    for pair in $need; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done
    have_library 'libfuse3\.so' || echo 'libfuse3-3|libfuse3-4'
    find_python >/dev/null || echo 'python3-venv'
    [ "$1" = test ] || return 0
    have_library 'libfuse\.so\.2' || echo 'libfuse2|libfuse2t64'
    compgen -G '/usr/lib*/*/sox/libsox_fmt_mp3.so' >/dev/null || echo 'libsox-fmt-mp3'
}

setup_debian() {
    local missing
    missing=$(missing_packages "$1")
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null ||
        die "this machine lacks what these Debian packages hold, install it by its own means:" $missing
    local -a root=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || [ -t 0 ] && command -v sudo >/dev/null ||
            die "as root, run: apt-get install" $missing
        root=(sudo)
    fi
    say "installing Debian packages:" $missing
    local log
    log=$(mktemp)
    if ! install_packages $missing >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "apt-get could not install:" $missing
    fi
    rm -f "$log"
    missing=$(missing_packages "$1")
    [ -z "$missing" ] || die "still missing after installing:" $missing
}

install_packages() {
    "${root[@]}" apt-get update || return
    local names=() choice name
    for choice; do
        for name in ${choice//|/ }; do
            if grep -q 'Candidate: [^(]' <<<"$(apt-cache policy "$name")"; then
                names+=("$name")
                break
            fi
        done
    done
    # npm recommends a compiler and half of X11: not needed here
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${names[@]}"
}

# ------------------------------------------------------------------ Python
# The interpreter to build .venv from. The system's own comes first: every user can read it.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

setup_python() {
    local extras wanted stamp
    case "$1" in
        demo) extras=demo ;;
        bench) extras=demo,bench ;;
        *) extras=test,check ;;  # "test" holds all that "demo" needs
    esac
    wanted="$(cat pyproject.toml constraints.txt | sha256sum | cut -c1-32) $repo"
    stamp=.venv/r2fs-installed  # a line for each set of extras: pip only adds
    if [ -x "$python" ] && "$python" -c '' 2>/dev/null; then
        if [ "$1" = demo ]; then
            grep -qF "$wanted " "$stamp" 2>/dev/null && return
        else
            grep -qxF "$wanted $extras" "$stamp" 2>/dev/null && return
        fi
    else
        say "making .venv with $(find_python)"
        rm -rf .venv
        "$(find_python)" -m venv .venv || die "python3 -m venv failed"
    fi
    say "installing Python packages into .venv ($extras); this takes a minute, once"
    "$python" -m pip install --quiet --use-pep517 --disable-pip-version-check -c constraints.txt -e ".[$extras]" ||
        die "pip could not install r2fs[$extras]"
    { grep -F "$wanted " "$stamp" 2>/dev/null || true; echo "$wanted $extras"; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

# ------------------------------------------------------------------ Node (Cloudflare's local R2, for the tests)
setup_node() {
    local dir=tests/support/node wanted
    wanted=$(sha256sum <"$dir/package.json")
    [ "$(cat "$dir/node_modules/.r2fs-installed" 2>/dev/null)" = "$wanted" ] && return
    say "installing Node packages into $dir; once"
    npm install --prefix "$dir" --no-package-lock --no-audit --no-fund --no-update-notifier --loglevel=error >&2 ||
        die "npm could not install $dir/package.json"
    echo "$wanted" >"$dir/node_modules/.r2fs-installed"
}

# ------------------------------------------------------------------ FUSE
need_fuse() {
    [ -e /dev/fuse ] || die "there is no /dev/fuse: load the module (modprobe fuse), or give the container" \
        "the device (--device /dev/fuse --cap-add SYS_ADMIN)"
    { true <>/dev/fuse; } 2>/dev/null || die "/dev/fuse is closed to $(id -un) ($(stat -c %A /dev/fuse)): as root," \
        "run chmod 666 /dev/fuse, or try scripts/as-user"
}
