"""Read a YAML file so that every complaint can name its line.

Exports `Source`.
"""

import re
from pathlib import Path

import yaml


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number: PyYAML follows YAML 1.1, which takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class Source:
    """A YAML file of a mapping: its `values`, and the line of each key.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no YAML, no mapping, or gives a key twice, of which PyYAML silently takes the last.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"no grid at {path}")
        self.path = path
        self.lines: dict[tuple, int] = {}
        try:
            self._find_lines(yaml.compose(path.read_text(), _Loader))
            self.values = yaml.load(path.read_text(), _Loader)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from error
        if not isinstance(self.values, dict):
            raise ValueError(f"{path} must be a mapping, got {self.values!r}")

    def error(self, keys: tuple, text: str) -> ValueError:
        """Make the error that names a key and its line."""
        line = f", line {self.lines[keys]}" if keys in self.lines else ""
        return ValueError(f"{self.path}{line}, {'.'.join(map(str, keys))}: {text}")

    def get_mapping(self, key: str) -> dict:
        """Give the mapping under a key of the top, empty where there is none."""
        mapping = self.values.get(key)
        if mapping is not None and not isinstance(mapping, dict):
            raise self.error((key,), f"must be a mapping, got {mapping!r}")
        return mapping or {}

    def _find_lines(self, node: yaml.Node | None, keys: tuple = ()) -> None:
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._find_lines(item, (*keys, index))
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            here, line = (*keys, key.value), key.start_mark.line + 1
            if here in self.lines:
                raise self.error(here, f"is given again in line {line}")
            self.lines[here] = line
            self._find_lines(value, here)
