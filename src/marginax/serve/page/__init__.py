"""The page: a few files, sent as they are. Whatever is not in this folder cannot be asked for."""

from __future__ import annotations

from importlib import resources

PAGE = "/"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def files() -> dict[str, tuple[bytes, str]]:
    """What is at which path: its content, and its kind."""
    found = {}
    for file in resources.files(__name__).iterdir():
        kind = KINDS.get("." + file.name.rpartition(".")[2])
        if kind is not None:
            path = PAGE if file.name == "index.html" else f"/page/{file.name}"
            found[path] = file.read_bytes(), kind
    return found
