"""Find a model on the hub or in its cache."""

import os
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import httpx

from nib.checks import shorten

UNREACHABLE = (ConnectionError, httpx.TransportError, LocalEntryNotFoundError)  # what is raised without a network
SECONDS = 10  # until the hub must have answered


def find_model(name: str | Path) -> str:
    """Return a path that is there, or a hub id as it is, or the folder of the cache where the hub cannot be reached.

    It asks once. The loaders of transformers would ask for each file six times, for two minutes in all.
    """
    if not isinstance(name, (str, Path)):
        raise TypeError(f"a model's name must be a str or a Path, got {type(name).__name__}")
    name = str(name)
    if os.path.exists(path := os.path.expanduser(name)):
        return str(Path(path))
    try:
        HfApi().model_info(name, timeout=SECONDS)
    except UNREACHABLE as error:
        try:
            return snapshot_download(name, local_files_only=True)
        except LocalEntryNotFoundError:
            raise FileNotFoundError(
                f"no model at {name!r}: no file, no folder with a config.json, not in the cache, and the hub cannot be"
                f" reached ({type(error).__name__}): where there is a network, run `hf download {name}`"
            ) from error
    except HFValidationError as error:
        raise FileNotFoundError(
            f"no model at {shorten(name)}: no file, no folder with a config.json, and no hub id (owner/name)"
        ) from error
    except HfHubHTTPError:
        pass  # gated: the loaders say so
    return name
