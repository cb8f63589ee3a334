"""Name what results depend on by hashes."""

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


def hash_all(*values: str | bytes) -> str:
    """Return one hash of several values, in order: where one ends and the next begins counts."""
    digest = hashlib.blake2b(digest_size=12)
    for value in values:
        data = value.encode() if isinstance(value, str) else value
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def hash_code(paths: Iterable[Path]) -> str:
    """Hash what modules do: neither comments nor docstrings nor layout count."""
    return hash_all(*(part for path in sorted(paths) for part in (path.name, _strip(path.read_text()))))[:12]


@lru_cache(maxsize=1000)
def _strip(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree)
