"""Load data sets and a model in a process of its own: one JSON line in for each, one out.

`huggingface_hub` reads HF_ENDPOINT when it is imported, so each hub needs a new process.
"""

import json
import sys
import time
import warnings

import torch

import nib


def load(options: dict) -> dict:
    """Load a data set, and say what came or what was raised."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data = nib.datasets.load(**options, progress=False)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {"error": type(error).__name__, "message": str(error)}
    columns = [name for name in data.column_names if name != "image"]
    rows = data.select_columns(columns).to_list()
    sizes = [image.size for image in data["image"]]
    messages = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
    return {"rows": rows, "sizes": sizes, "skipped": data.skipped, "warnings": messages, "columns": data.column_names}


def embed(options: dict) -> dict:
    """Load a model and embed a plain picture and a caption."""
    load = nib.load  # imports what it needs, which is no waiting
    start = time.monotonic()
    try:
        clip = load(options["model"])
    except FileNotFoundError as error:
        return {"message": str(error), "seconds": time.monotonic() - start}
    seconds = time.monotonic() - start
    pixel_values = torch.full((1, 3, clip.image.image_size, clip.image.image_size), 0.5)
    input_ids = clip.tokenizer("a dog", return_tensors="pt")["input_ids"]
    image, text = clip.image.embed(pixel_values), clip.text.embed(input_ids)
    processor = clip.image_processor is not None
    return {"image": image[0].tolist(), "text": text[0].tolist(), "processor": processor, "seconds": seconds}


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(embed(request) if "model" in request else load(request)), flush=True)
