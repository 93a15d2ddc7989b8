"""What lies where a file should be: whatever download tools, file systems and version control leave, each by name.

Recognised by content, or by a neighbour that says a file is not finished; never by guessing. Each sentence ends in what
to do about it.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

DOWNLOAD_AGAIN = "Delete it and download it again"
BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"GGUF", "a GGUF file", "Load it with a GGUF loader and put 'MOVA Attach Sound' behind it"),
    (b"\x00\x05\x16\x07", "a macOS sidecar (AppleDouble), not the file", "Choose the file without ._ before its name"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it, or download the file itself"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it, or download the file itself"),
    (b"Rar!\x1a\x07", "a RAR archive", "Unpack it, or download the file itself"),
    (b"\xfd7zXZ\x00", "an xz archive", "Unpack it, or download the file itself"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "Unpack it, or download the file itself"),
    (b"BZh", "a bzip2 archive", "Unpack it, or download the file itself"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "Download the safetensors version"),
    (b"\x93NUMPY", "a NumPy file", "Download the safetensors version"),
    (b"L\x00\x00\x00\x01\x14\x02\x00", "a Windows shortcut", "Move the file itself there, or download it again"),
    (b"book\x00\x00\x00\x00mark", "a macOS alias", "Move the file itself there, or download it again"),
    (b"bplist00", "a macOS property list: a shortcut, or what iCloud leaves of a file", "Download the file itself"),
    (b"!<symlink>", "a link in a form that only Cygwin reads", "Move the file itself there, or download it again"),
    (b"%PDF", "a PDF document", DOWNLOAD_AGAIN),
    (b"\x89PNG", "a picture", DOWNLOAD_AGAIN),
    (b"\xff\xd8\xff", "a picture", DOWNLOAD_AGAIN),
)
TEXTS: tuple[tuple[str, str, str], ...] = (
    (
        r"(version https?://(git-lfs|hawser|git-media)\.|oid sha256:)",
        "a Git LFS pointer, which stands for the file",
        "Run 'git lfs pull' in that folder, or download the file itself",
    ),
    (
        r"(\S*/)?\.?(git/)?annex/objects/",
        "a git-annex pointer, which stands for the file",
        "Run 'git annex get' on it, or download the file itself",
    ),
    (r"# xet version", "a Xet pointer, which stands for the file", "Download the file itself"),
    (
        r"(outs|md5|deps|stages):",
        "a DVC pointer, which stands for the file",
        "Run 'dvc pull' on it, or download the file itself",
    ),
    (
        r"(<\?xml[^>]*>\s*)?(<!doctype plist[^>]*>\s*)?<plist",
        "a macOS shortcut, which only names the address",
        "Download the file from that address",
    ),
    (
        r"(magnet:\?|d\d+:announce|(<\?xml[^>]*>\s*)?<metalink)",
        "a torrent or metalink, which only names the file",
        "Open it in a download tool that knows it, or download the file itself",
    ),
    (
        r"[0-9a-f]{32,128} [ *]\S",
        "a checksum of the file, not the file",
        "Download the file itself",
    ),
    (
        r"(<!doctype|<html|<head|<!--|<body)",
        "a web page saved in place of the file: of a login, a licence or an error",
        "Log in or accept the licence there, delete it and download the file itself",
    ),
    (
        r"(<\?xml|<error|<listbucketresult)",
        "a server's error message (XML) saved in place of the file",
        f"{DOWNLOAD_AGAIN}; the link may have run out",
    ),
    (
        r"\[(internetshortcut|desktop entry)\]",
        "an internet shortcut, which only names the address",
        "Download the file from that address",
    ),
    (r"\.\.?[/\\][^\n]{1,300}$", "a link that was copied as text", "Copy what it points to, or download it again"),
)
REFUSED = re.compile(
    r"gated|restricted|authoriz|authoris|authenticat|log ?in|sign in|token|password|forbidden|401|403", re.IGNORECASE
)
TOO_OFTEN = re.compile(r"rate.?limit|too many requests|429|quota", re.IGNORECASE)
PARTIAL = re.compile(
    r"\.(part|partial|incomplete|crdownload|opdownload|download|aria2|aria2__temp|filepart|unfinished|unconfirmed|tmp|temp|"
    r"td|td\.cfg|xltd|xltd\.cfg|!qb|!ut|bc!|!ut|ytdl|st|wget|axel|thunder|dltemp|jc!|!sync|icloud|[\w\-.]*download(ing)?)$",
    re.IGNORECASE,
)
"""Ends of names under which browsers and download tools keep what is not finished."""
COPIED = re.compile(
    r"(.*?) ?(\(\d+\)|- [^.]{1,20}|copy|~|\.(bak|old|orig|txt|bin|lock|tmp|zone\.identifier))", re.IGNORECASE
)
"""A name, and what copying or keeping puts behind it."""


def is_hidden(name: str) -> bool:
    """Names that no download gives a weight file: sidecars (._x), temporary files of rsync and editors, dot files."""
    return name.startswith((".", "~"))


def content(start: bytes, size: int) -> str:
    """What a file of `size` bytes that begins with `start` is, and what to do; empty where nothing tells.

    `start` should be some hundred bytes, or the whole of a smaller file.
    """
    if size == 0:
        return f"is empty (0 bytes): a download that never began, or a full disk. {DOWNLOAD_AGAIN}"
    if not any(start):
        again = DOWNLOAD_AGAIN.lower()
        return f"begins with zeros: room was made for it and nothing written. Resume the download, or {again}"
    for magic, what, remedy in BINARY:
        if start.startswith(magic):
            return f"is {what}. {remedy}"
    if start[257:262] == b"ustar":
        return "is a tar archive. Unpack it, or download the file itself"
    return _text(start, size)


def _text(start: bytes, size: int) -> str:
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = start.decode("utf-16" if wide else "utf-8-sig", errors="replace").lstrip()
    for pattern, what, remedy in TEXTS:
        if re.match(pattern, text, re.IGNORECASE):
            return f"is {what}. {remedy}"
    if "\ufffd" in text or (not text.isprintable() and not set(text) <= set(map(chr, range(9, 127)))):
        return ""
    shown = " ".join(text.split())[:80]
    if TOO_OFTEN.search(shown):
        return f"is a server's refusal saved in place of the file: {shown!r}. Wait, delete it and download it again"
    if size < 2000 and REFUSED.search(text):
        return (
            f"is a server's refusal saved in place of the file: {shown!r}. Log in or accept the licence there, delete "
            "it and download the file itself"
        )
    if text.startswith("{") and re.search(r'"(error|message|detail|code|msg)"', text[:300], re.IGNORECASE):
        return f"is a server's error message saved in place of the file: {shown!r}. {DOWNLOAD_AGAIN}"
    return f"is text, not weights: {shown!r}. {DOWNLOAD_AGAIN}" if size < 100_000 else ""


def absent(path: Path) -> str:
    """Why a path that is named cannot be opened, and what to do; empty where it can, or nothing tells."""
    if os.path.isdir(path):  # noqa: PTH112, Path.is_dir raises where the path is too long or forbidden
        return "is a folder, not a file. Choose the file in it, or delete it and download the file itself"
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114, as above
        target = os.readlink(path)  # noqa: PTH115, as above
        if "annex" in target:
            return (
                "is git-annex's link to a file that is not here. Run 'git annex get' on it, or download the file itself"
            )
        return (
            f"is a link to {target:.200}, which is not there: the cache it came from was emptied or moved, or the link "
            "was copied without the file. Download it again"
        )
    return ""


def unfinished(path: Path) -> str:
    """The neighbour of `path` that says a download of it is going on or was cut off; empty where there is none."""
    for name in _names(path.parent):
        beside = name.lower().startswith(path.name.lower()) and PARTIAL.search(name) and name != path.name
        if beside and not PARTIAL.search(path.name):
            return name
    return ""


def reserved(path: Path) -> str:
    """The control file of a download tool that writes a file under its own name from the beginning (aria2, Xunlei)."""
    name = unfinished(path)
    return name if name.lower().endswith((".aria2", ".td.cfg", ".xltd.cfg", ".st")) else ""


def leftovers(folder: Path) -> str:
    """What a folder without weights holds instead, and what to do; empty where nothing tells."""
    names = _names(folder)
    partial = [name for name in names if PARTIAL.search(name)]
    hub = folder.parent / ".cache" / "huggingface" / "download" / folder.name
    partial += [f".cache/.../{name}" for name in _names(hub) if PARTIAL.search(name)]
    if partial:
        return f"a download that is not finished ({_few(partial)}). Resume it with the tool that began it"
    tracked = [
        name for name in names if name.endswith((".safetensors.dvc", ".safetensors.lfs", ".safetensors.torrent"))
    ]
    if tracked:
        return f"only {_few(tracked)}, which names the file. Fetch the file ('dvc pull' and the like), or download it"
    archives = [name for name in names if name.lower().endswith((".zip", ".7z", ".rar", ".tar", ".tar.gz", ".tgz"))]
    if archives:
        return f"only an archive ({_few(archives)}). Unpack it there"
    pickled = [name for name in names if name.lower().endswith((".bin", ".pt", ".pth", ".ckpt"))]
    if pickled:
        return f"only pickled weights ({_few(pickled)}), which are not read. Download the .safetensors files"
    renamed = [name for name in names if not is_hidden(name) and is_safetensors(folder / name)]
    if renamed:
        return f"weights under a name that does not end in .safetensors ({_few(renamed)}). Rename it"
    deeper = [name for name in names if any(n.endswith(".safetensors") for n in _names(folder / name))]
    if deeper:
        return f"its weights one folder deeper, in {_few(deeper)}. Move them up"
    hidden = [name for name in names if is_hidden(name) and name.endswith((".safetensors", ".json"))]
    if hidden:
        return f"only sidecars ({_few(hidden)}) of files that were not copied. Download it again"
    return ""


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever it is called."""
    try:
        if not path.is_file():
            return False
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
    except (OSError, ValueError):
        return False
    return len(start) == 9 and start[8:] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= size - 8


def copies(folder: Path, wanted: Iterable[str]) -> list[str]:
    """Files of a folder that may be those wanted, under another name: `x (1).safetensors`, `x - Copy.safetensors`."""
    ends = {name.removesuffix(".safetensors").lower() for name in wanted}
    found = []
    for name in _names(folder):
        stem = name.lower().replace(".safetensors", "")
        match = COPIED.fullmatch(stem)
        if match and match[1].strip() in ends and is_safetensors(folder / name):
            found.append(name)
    return found


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208, Path.iterdir raises later
    except OSError:
        return []


def _few(names: list[str]) -> str:
    return ", ".join(name[:100] for name in names[:3]) + (", ..." if len(names) > 3 else "")
