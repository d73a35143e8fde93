"""Debian packages in a private folder: signature checked by apt, system untouched, no root needed.

apt itself does the work, with a configuration, lists, state and cache of its own. The mirror and
the way to reach it (proxies, certificates) are the ones this machine's apt uses; the packages are
unpacked, never installed.
"""

import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

# A mirror of Debian itself carries at least one of these; derivatives have names of their own.
DEBIAN_SUITES = frozenset(
    {
        *("oldoldstable", "oldstable", "stable", "testing", "unstable", "sid"),
        *("bullseye", "bookworm", "trixie", "forky", "duke"),
    }
)
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
INSTALLED = Path("/var/lib/dpkg/status")
# How to reach the mirror: kept from the machine's configuration. Everything else (hooks above all)
# is left behind.
KEPT_OPTIONS = (
    "Acquire::http",
    "Acquire::https",
    "Acquire::ftp",
    "Acquire::tor",
    "Acquire::socks",
    "Acquire::Check-",
    "Acquire::Force",
    "Acquire::Retries",
    "Acquire::Max-",
)


class PackageError(Exception):
    """Packages cannot be had; the text says why and what to do, in a sentence."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One line of sources.list, or one URI of a deb822 stanza."""

    uri: str
    suites: tuple[str, ...]
    signed_by: str | None  # a keyring's path, a key in ASCII armour, or nothing


def parse_list(text: str) -> list[Source]:
    """The `deb` lines of a one-line-style sources.list."""
    found = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        if not line.startswith(("deb ", "deb\t")):
            continue
        rest = line[3:].strip()
        options: dict[str, str] = {}
        if rest.startswith("["):
            inside, _, rest = rest[1:].partition("]")
            for item in shlex.split(inside):
                name, _, value = item.partition("=")
                options[name.lower()] = value
        words = rest.split()
        if len(words) >= 2:
            found.append(Source(words[0], (words[1],), options.get("signed-by")))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The enabled `deb` stanzas of a .sources file."""
    stanzas: list[dict[str, str]] = [{}]
    field = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
        elif line[0] in " \t":
            # In a folded key a lone dot stands for an empty line.
            part = line.strip()
            stanzas[-1][field] = stanzas[-1].get(field, "") + "\n" + ("" if part == "." else part)
        else:
            name, _, value = line.partition(":")
            field = name.strip().lower()
            stanzas[-1][field] = value.strip()
    found = []
    for stanza in stanzas:
        if "deb" not in stanza.get("types", "").split():
            continue
        if stanza.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        signed_by = stanza.get("signed-by", "").strip() or None
        suites = tuple(stanza.get("suites", "").split())
        found += [Source(uri, suites, signed_by) for uri in stanza.get("uris", "").split()]
    return found


def read_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """All sources of this machine's apt, in apt's order, of both styles."""
    found: list[Source] = []
    main = etc_apt / "sources.list"
    if main.is_file():
        found += parse_list(main.read_text(errors="replace"))
    parts = etc_apt / "sources.list.d"
    for path in sorted(parts.iterdir()) if parts.is_dir() else ():
        if path.suffix == ".list":
            found += parse_list(path.read_text(errors="replace"))
        elif path.suffix == ".sources":
            found += parse_deb822(path.read_text(errors="replace"))
    return found


def debian_mirrors(sources: Iterable[Source]) -> list[Source]:
    """The sources that mirror Debian itself, likeliest first.

    `DEBIAN_MIRROR` in the environment, if set, is the only one.
    """
    named = os.environ.get("DEBIAN_MIRROR")
    if named:
        return [Source(named, (), None)]
    found: dict[str, Source] = {}
    for source in sources:
        bases = {suite.strip("/").split("-")[0] for suite in source.suites}
        if bases & DEBIAN_SUITES and "security" not in source.uri:
            found.setdefault(source.uri.rstrip("/"), source)
    # Derivatives may reuse Debian's suite names; a mirror of Debian itself says so in its path.
    return sorted(found.values(), key=lambda source: not source.uri.rstrip("/").endswith("/debian"))


def architecture() -> str:
    """Debian's name of this machine's architecture, e.g. amd64 or arm64."""
    for tool in ("dpkg", "dpkg-deb", "apt-get"):
        if shutil.which(tool) is None:
            raise PackageError("%s is not on this machine, so it is no Debian" % tool)
    return _output(["dpkg", "--print-architecture"]).strip()


def _output(command: Sequence[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        detail = said or done.stderr.splitlines() or ["exit code %d" % done.returncode]
        raise PackageError("%s failed: %s" % (" ".join(command[:2]), "; ".join(detail[-2:])))
    return done.stdout


def _quoted(path: Path | str) -> str:
    if '"' in str(path):
        raise PackageError("apt cannot work in a folder with a quote in its name: %s" % path)
    return '"%s"' % path


def _kept_options() -> list[str]:
    return [
        line
        for line in _output(["apt-config", "dump"]).splitlines()
        if line.startswith(KEPT_OPTIONS) and not line.endswith('"";')
    ]


def _keyring(source: Source, root: Path) -> Path:
    if source.signed_by and source.signed_by.startswith("/"):
        first = Path(source.signed_by.split(",")[0].split()[0])
        if first.is_file():
            return first
    if source.signed_by and "BEGIN PGP PUBLIC KEY BLOCK" in source.signed_by:
        inline = root / "mirror.asc"
        inline.write_text(source.signed_by.strip() + "\n")
        return inline
    for path in KEYRINGS:
        if path.is_file():
            return path
    raise PackageError("Debian's keyring is missing: apt install debian-archive-keyring")


def _configuration(
    root: Path, source: Source, suite: str, arch: str, *, installed: bool = False, more: Iterable[Source] = ()
) -> Path:
    """An apt.conf that keeps every file apt reads or writes inside `root`.

    With `installed` apt reads what this machine has installed, and leaves that out of what is needed.
    `more` are further sources of packages, each with its own suites.
    """
    if root.exists():
        shutil.rmtree(root)
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (root / name).mkdir(parents=True)
    root.chmod(0o700)  # the options may hold a proxy's password
    status = INSTALLED
    if not installed or not status.is_file():
        status = root / "status"
        status.touch()
    keyring = _keyring(source, root)
    lines = ["deb [arch=%s signed-by=%s] %s %s main" % (arch, keyring, source.uri, suite)]
    for entry in more:
        for name in entry.suites:
            line = "deb [arch=%s signed-by=%s] %s %s main" % (arch, _keyring(entry, root), entry.uri, name)
            if line not in lines:
                lines.append(line)
    (root / "sources.list").write_text("\n".join(lines) + "\n")
    q = _quoted
    options = [
        *_kept_options(),
        "Dir::Etc::main %s;" % q("/dev/null"),
        "Dir::Etc::parts %s;" % q(root / "parts"),
        "Dir::Etc::sourcelist %s;" % q(root / "sources.list"),
        "Dir::Etc::sourceparts %s;" % q(root / "parts"),
        "Dir::Etc::preferences %s;" % q("/dev/null"),
        "Dir::Etc::preferencesparts %s;" % q(root / "parts"),
        "Dir::State %s;" % q(root),
        "Dir::State::lists %s;" % q(root / "lists"),
        "Dir::State::status %s;" % q(status),
        "Dir::Cache %s;" % q(root / "cache"),
        "Dir::Cache::archives %s;" % q(root / "cache" / "archives"),
        "Dir::Log %s;" % q(root),
        "APT::Architecture %s;" % q(arch),
        "APT::Architectures { %s; };" % q(arch),
        'APT::Install-Recommends "false";',
        'APT::Update::Error-Mode "any";',
        # Everything is private: apt needs neither its lock nor its own user.
        'APT::Sandbox::User "root";',
        'Debug::NoLocking "true";',
        'Acquire::Languages "none";',
        'Acquire::AllowInsecureRepositories "false";',
        'Acquire::Retries "2";',
        'APT::Get::AllowUnauthenticated "false";',
    ]
    conf = root / "apt.conf"
    conf.write_text("\n".join(options) + "\n")
    return conf


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(cache: Path) -> list[Path]:
    """The packages of an earlier download, if all are as they were when apt checked them."""
    record = cache / "record.json"
    if not record.is_file():
        return []
    sums: dict[str, str] = json.loads(record.read_text())
    paths = [cache / name for name in sums]
    if all(path.is_file() and _sha256(path) == sums[path.name] for path in paths):
        return paths
    return []


def say(text: str) -> None:
    """Progress, for whoever watches: on standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def _environment(conf: Path) -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "APT_CONFIG": str(conf)}


def _mirrors() -> list[Source]:
    found = debian_mirrors(read_sources())
    if not found:
        raise PackageError("this machine's apt knows no Debian mirror (DEBIAN_MIRROR in the environment names one)")
    return found


def download(package: str, suites: Sequence[str], cache: Path) -> list[Path]:
    """The .deb files of `package` and of all it depends on, from the first suite that has it.

    They are kept in `cache`, a folder of the caller's: a second call needs no network.
    Raises PackageError.
    """
    kept = _cached(cache)
    if kept:
        say("  %s: %d packages already downloaded" % (package, len(kept)))
        return kept
    arch = architecture()
    reasons = []
    for source in _mirrors():
        for suite in suites:
            root = cache.parent / (cache.name + ".apt")
            try:
                env = _environment(_configuration(root, source, suite, arch))
                say("  %s: reading Debian %s's package list ..." % (package, suite))
                _output(["apt-get", "update", "-q"], env)
                say("  %s: downloading it and what it needs ..." % package)
                _output(["apt-get", "install", "-y", "-q", "--download-only", package], env)
                return _keep(root / "cache" / "archives", cache)
            except PackageError as error:
                reasons.append("Debian %s: %s" % (suite, error))
            finally:
                shutil.rmtree(root, ignore_errors=True)
    raise PackageError("; ".join(reasons))


def own_suite(os_release: Path = Path("/etc/os-release")) -> str:
    """The Debian suite this machine runs, e.g. bookworm. PackageError if it runs none."""
    text = os_release.read_text() if os_release.is_file() else ""
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    codename = fields.get("VERSION_CODENAME", "").strip('"')
    if fields.get("ID", "").strip('"') != "debian" or codename not in DEBIAN_SUITES:
        raise PackageError("this machine runs no released Debian")
    return codename


def download_missing(packages: Sequence[str], cache: Path) -> list[Path]:
    """The .deb files that this machine lacks to have `packages`, from the suite it runs itself.

    What is installed is counted on and not fetched again, not even in a newer version: unpacked, the files need
    the machine's own. Kept in `cache` as by `download`. Raises PackageError.
    """
    kept = _cached(cache)
    if kept:
        say("  %s: %d packages already downloaded" % (packages[0], len(kept)))
        return kept
    arch = architecture()
    suite = own_suite()
    root = cache.parent / (cache.name + ".apt")
    sources = read_sources()
    # Updates and security fixes too: what is installed may be newer than the release.
    more = [
        Source(source.uri, tuple(name for name in source.suites if name.split("-")[0] == suite), source.signed_by)
        for source in sources
        if "debian" in source.uri
    ]
    try:
        env = _environment(_configuration(root, _mirrors()[0], suite, arch, installed=True, more=more))
        say("  reading Debian %s's package list ..." % suite)
        _output(["apt-get", "update", "-q"], env)
        say("  downloading %s and what they need ..." % ", ".join(packages))
        _output(["apt-get", "install", "-y", "-q", "--download-only", *packages], env)
        return _keep(root / "cache" / "archives", cache)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def download_source(packages: Sequence[str], suites: Sequence[str], cache: Path) -> list[Path]:
    """The files of source packages, signatures checked by apt, from the first suite that has them all.

    They are kept in `cache` as by `download`. Raises PackageError.
    """
    kept = _cached(cache)
    if kept:
        say("  sources of %s already downloaded" % ", ".join(packages))
        return kept
    arch = architecture()
    reasons = []
    for source in _mirrors():
        for suite in suites:
            root = cache.parent / (cache.name + ".apt")
            try:
                conf = _configuration(root, source, suite, arch)
                entries = root / "sources.list"
                entries.write_text(entries.read_text().replace("deb [", "deb-src ["))
                env = _environment(conf)
                say("  reading Debian %s's list of sources ..." % suite)
                _output(["apt-get", "update", "-q"], env)
                say("  downloading the sources of %s ..." % ", ".join(packages))
                files = root / "source"
                files.mkdir()
                _output(["apt-get", "source", "-q", "--only-source", "--download-only", *packages], env, cwd=files)
                return _keep(files, cache, "*")
            except PackageError as error:
                reasons.append("Debian %s: %s" % (suite, error))
            finally:
                shutil.rmtree(root, ignore_errors=True)
    raise PackageError("; ".join(reasons))


def _keep(archives: Path, cache: Path, pattern: str = "*.deb") -> list[Path]:
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    sums = {}
    for path in sorted(archives.glob(pattern)):
        # apt writes a version's colon as %3a; the shell likes a plain name better.
        target = cache / path.name.replace("%3a", "_")
        shutil.move(path, target)
        sums[target.name] = _sha256(target)
    (cache / "record.json").write_text(json.dumps(sums, indent=1) + "\n")
    return [cache / name for name in sums]


def installed_packages() -> set[str]:
    """Names of the packages installed on this machine."""
    text = _output(["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package}\\n"])
    return {line.split()[1] for line in text.splitlines() if line.startswith("ii ")}


def unpack(packages: Iterable[Path], root: Path) -> None:
    """Unpack .deb files below `root`, running none of their scripts."""
    root.mkdir(parents=True, exist_ok=True)
    for path in packages:
        _output(["dpkg-deb", "-x", str(path), str(root)])
