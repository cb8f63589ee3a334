"""`make figures PROFILE=paper_trial` runs from the ids in the profile to the figures, on a hub of this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_config, randomise
from hub import client_environment, serve
from hub_data import write_all
from transformers import CLIPImageProcessorPil, CLIPModel, SiglipConfig, SiglipImageProcessorPil, SiglipModel

ROOT = Path(__file__).parents[1]
MODEL = "openai/clip-vit-base-patch32"
SIGLIP = "google/siglip-base-patch32-224"
PATHS = sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory, tokenizer):
    """A narrow random model with the depth and the pictures of ViT-B/32, and all data sets in small."""
    folder = tmp_path_factory.mktemp("paper")
    config = make_config(eos_token_id=2, image_size=224, patch_size=32)
    for part in (config.text_config, config.vision_config):
        part.num_hidden_layers = 12
    randomise(CLIPModel(config)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    CLIPImageProcessorPil().save_pretrained(folder / "model")
    narrow = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=12, num_attention_heads=4)
    sides = dict(
        text_config=narrow | dict(vocab_size=len(tokenizer), max_position_embeddings=32, pad_token_id=1330),
        vision_config=narrow | dict(image_size=224, patch_size=32),
    )
    randomise(SiglipModel(SiglipConfig(**sides))).save_pretrained(folder / "siglip")
    tokenizer.save_pretrained(folder / "siglip")
    SiglipImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder / "siglip")
    models = {MODEL: folder / "model", SIGLIP: folder / "siglip"}
    with serve(models, write_all(folder / "data")) as url:
        yield url


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, so that nothing is written into it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("nib", "data", "studies"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("notebooks", "runs"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def make_figure(stem: str, url: str, project: Path) -> Path:
    environment = os.environ | client_environment(url, project / "hf")
    settings = ["PROFILE=paper_trial", f"NOTEBOOKS=notebooks/{stem}.ipynb", f"PYTHON={sys.executable}"]
    command = ["make", "-C", project, "figures", *settings]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return project / "figures" / "paper_trial" / f"{stem}.png"


def test_the_table_of_all_methods_and_its_published_values(hub, project):
    figure = make_figure("04_quantitative", hub, project)
    assert figure.stat().st_size > 0
    summary = pd.read_csv(figure.with_suffix(".csv"))
    assert set(summary.dataset) == {"conceptual_captions", "tiny_imagenet", "flickr8k"}
    absolute = summary[~summary.metric.str.endswith("relative")]  # a random model has similarities below 0
    assert set(absolute.n) == {3}
    published = pd.read_csv(figure.with_name("04_quantitative_published.csv"))
    row = published[(published.dataset == "flickr8k") & (published.method == "nib") & (published.metric == "text_drop")]
    assert set(row.published) == {0.4562}  # Table 2 of the paper
    assert set(published.dataset) == set(summary.dataset)


def test_a_siglip_runs_in_the_place_of_the_papers_clip(hub, project):
    environment = os.environ | client_environment(hub, project / "hf") | {"PYTHONPATH": str(project)}
    command = [sys.executable, "-m", "runs", "notebooks/04_quantitative.ipynb", "--profile", "paper_trial"]
    chosen = ["-p", "model", SIGLIP, "-p", "protocols", "[paper]", "-p", "methods", "[nib, chefer, legrad, random]"]
    command += [*chosen, "--figures", "figures/siglip"]
    done = subprocess.run(command, env=environment, cwd=project, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    summary = pd.read_csv(project / "figures/siglip/04_quantitative.csv")
    assert set(summary.method) == {"nib", "chefer", "legrad", "random"}
    assert set(summary.protocol) == {"paper"}
    assert summary[~summary.metric.str.endswith("relative")]["mean"].notna().all()


@pytest.mark.slow
@pytest.mark.parametrize("stem", [path.stem for path in PATHS if path.stem != "04_quantitative"])
def test_every_notebook(stem, hub, project):
    assert make_figure(stem, hub, project).stat().st_size > 0
