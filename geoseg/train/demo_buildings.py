"""Train the shipped demonstration model: buildings of Banepa, Nepal, from scratch.

    python -m geoseg.train.demo_buildings DATA OUT.safetensors

DATA is the folder with ``train/`` and ``val/``, each with ``images/`` and ``masks/``, of the Banepa
sample in hotosm/fAIr-models (24 and 8 chips of 512 px). The chips are JPEG files whatever their
name, their georeference lies in .aux.xml sidecars alone, and their place in the block is read from
their names OAM-x-y-z, so that crops may cross the borders of chips.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import lightning as L
import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import geoseg
from geoseg.checkpoint import save_model
from geoseg.errors import InputError
from geoseg.models import create_model
from geoseg.predict.memory import keep_freed_memory
from geoseg.raster.gdal import quiet_georeference
from geoseg.segmenter import Segmenter
from geoseg.spec import Architecture, BandSpec, ClassSpec, ModelSpec, PrecisionRecord, TileSpec

CHIP_PX = 512
CHIP_NAME = re.compile(r"OAM-(\d+)-(\d+)-\d+\.tif$")
NAME = "demo-buildings-banepa-segnext_t"
WARNING = (
    "Demonstration model: 24 chips of one town in Nepal, 0.13 m drone RGB; expect failure "
    "elsewhere; fine-tune it."
)
CREDITS = (
    "Imagery: OpenAerialMap contributors, CC-BY-4.0, image 62d85d11d8499800053796c1",
    "Labels: (c) OpenStreetMap contributors, ODbL 1.0, through hotosm/fAIr-models",
)
CLASSES = (ClassSpec(0, "background", "#d9d9d9"), ClassSpec(1, "building", "#d7301f"))


@dataclass(frozen=True)
class Recipe:
    """Every value of the run.

    Attributes:
        steps: optimiser steps.
        batch: crops per step.
        crop_px: side of a crop; as large as fits, since the network looks at its whole input.
        learning_rate: at its peak, after the warm-up, before the cosine.
        warmup_steps: of linear rise.
        weight_decay: of matrices; vectors have none.
        ema_decay: of the averaged weights that are saved.
        scale: range of ground sampling, as a factor on the chips' own.
        seed: of everything random.
    """

    steps: int = 3000
    batch: int = 4
    crop_px: int = 384
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    weight_decay: float = 0.05
    ema_decay: float = 0.998
    scale: tuple[float, float] = (0.6, 1.7)
    seed: int = 0


class RandomCrops(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless crops of a block of chips, rotated by any angle, mirrored, scaled and recoloured.

    Args:
        image: (3, H, W) uint8.
        target: (H, W) uint8.
        recipe: sizes and ranges.
    """

    def __init__(self, image: Tensor, target: Tensor, recipe: Recipe) -> None:
        self.image = image
        self.target = target
        self.recipe = recipe

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield raw values (3, crop, crop) float32 in 0..255 and targets (crop, crop) int64."""
        rng = np.random.default_rng(self.recipe.seed)
        while True:
            crop = self._crop(rng)
            if crop is not None:
                image, target = crop
                yield recolour(image, rng), target

    def _crop(self, rng: np.random.Generator) -> tuple[Tensor, Tensor] | None:
        """Return a crop, or None where the drawn shape does not fit into the block."""
        size, (low, high) = self.recipe.crop_px, self.recipe.scale
        scale = math.exp(rng.uniform(math.log(low), math.log(high)))
        angle, aspect = rng.uniform(0, 2 * math.pi), math.exp(rng.uniform(-0.15, 0.15))
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        matrix = np.array([[cos * aspect, -sin], [sin * aspect, cos]])
        matrix[:, 0] *= rng.choice([-1.0, 1.0])
        half = np.abs(matrix).sum(axis=1) * size / 2  # (x, y) px of the block
        height, width = self.target.shape
        if 2 * half[0] >= width or 2 * half[1] >= height:
            return None
        centre = rng.uniform(half[0], width - half[0]), rng.uniform(half[1], height - half[1])
        return self._sample(matrix, centre, half)

    def _sample(
        self, matrix: np.ndarray, centre: tuple[float, float], half: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        (x, y), size = centre, self.recipe.crop_px
        left, top = max(0, int(x - half[0]) - 2), max(0, int(y - half[1]) - 2)
        image = self.image[:, top : int(y + half[1]) + 3, left : int(x + half[0]) + 3]
        target = self.target[top : int(y + half[1]) + 3, left : int(x + half[0]) + 3]
        steps = torch.arange(size) + 0.5 - size / 2
        at_x = matrix[0, 0] * steps[None] + matrix[0, 1] * steps[:, None] + (x - left)
        at_y = matrix[1, 0] * steps[None] + matrix[1, 1] * steps[:, None] + (y - top)
        grid = torch.stack([2 * at_x / image.shape[2] - 1, 2 * at_y / image.shape[1] - 1], dim=-1)
        grid = grid[None].float()
        values = F.grid_sample(image[None].float(), grid, "bilinear", "border", False)
        labels = F.grid_sample(target[None, None].float(), grid, "nearest", "border", False)
        return values[0], labels[0, 0].long()


class Chips(Dataset[tuple[Tensor, Tensor]]):
    """The chips of a block one by one, as they are."""

    def __init__(self, image: Tensor, target: Tensor) -> None:
        self.images = image.unfold(1, CHIP_PX, CHIP_PX).unfold(2, CHIP_PX, CHIP_PX)
        self.images = self.images.permute(1, 2, 0, 3, 4).reshape(-1, 3, CHIP_PX, CHIP_PX)
        self.targets = target.unfold(0, CHIP_PX, CHIP_PX).unfold(1, CHIP_PX, CHIP_PX)
        self.targets = self.targets.reshape(-1, CHIP_PX, CHIP_PX)

    def __len__(self) -> int:
        """Return the number of chips."""
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return raw values (3, 512, 512) and target (512, 512)."""
        return self.images[i].float(), self.targets[i].long()


class BuildingTask(L.LightningModule):
    """Cross-entropy plus dice loss, AdamW with warm-up and cosine, IoU on the validation chips.

    Args:
        spec: record of the model.
        recipe: of the run.
    """

    def __init__(self, spec: ModelSpec, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        network = create_model(spec.architecture.name, num_classes=spec.num_classes)
        self.segmenter = Segmenter(network, spec)
        self.confusion = torch.zeros(2, 2, dtype=torch.int64)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        values, target = batch
        logits = self.segmenter(values)  # (N, 2, H, W)
        loss = F.cross_entropy(logits, target) + dice_loss(logits, target)
        self.log("train_loss", loss)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start a new confusion matrix."""
        self.confusion = torch.zeros(2, 2, dtype=torch.int64)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Count pixels by target and prediction."""
        values, target = batch
        predicted = self.segmenter(values).argmax(dim=1)
        self.confusion += count_pairs(target, predicted)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        for name, value in scores(self.confusion).items():
            self.log(name, value, prog_bar=name == "iou_building")

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule by step."""
        recipe = self.recipe
        matrices = [p for p in self.parameters() if p.ndim > 1]
        vectors = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)

        def factor(step: int) -> float:
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))
            return min(1.0, (step + 1) / recipe.warmup_steps) * cosine

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return one minus the soft dice of class 1 over the batch."""
    probs = logits.softmax(dim=1)[:, 1]
    overlap = (probs * target).sum()
    return 1 - (2 * overlap + 1) / (probs.sum() + target.sum() + 1)


def count_pairs(target: Tensor, predicted: Tensor) -> Tensor:
    """Return the confusion matrix (target, predicted) of maps of classes 0 and 1, on the CPU."""
    pairs = (2 * target + predicted).flatten()
    return torch.bincount(pairs, minlength=4).view(2, 2).cpu()


def scores(confusion: Tensor) -> dict[str, float]:
    """Return per-class IoU, their mean, and accuracy from a confusion matrix."""
    hits = confusion.diag().double()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - confusion.diag()
    iou = hits / union.clamp(min=1)
    return {
        "iou_background": float(iou[0]),
        "iou_building": float(iou[1]),
        "miou": float(iou.mean()),
        "accuracy": float(hits.sum() / confusion.sum().clamp(min=1)),
    }


def recolour(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the image (3, H, W) in 0..255 under other light, another camera, sometimes grey."""
    image = (image - 128) * float(rng.uniform(0.7, 1.35)) + 128 + float(rng.uniform(-30, 30))
    image = image * torch.from_numpy(rng.uniform(0.88, 1.12, (3, 1, 1))).float()
    if rng.random() < 0.15:
        image = image.mean(dim=0, keepdim=True).expand(3, -1, -1)
    if rng.random() < 0.2:
        noise = torch.from_numpy(rng.standard_normal(tuple(image.shape))).float()
        image = image + noise * float(rng.uniform(0, 10))
    if rng.random() < 0.2:
        image = F.avg_pool2d(image[None], 3, stride=1, padding=1)[0]
    return image.clamp(0, 255)


def load_block(folder: Path) -> tuple[Tensor, Tensor]:
    """Return image (3, H, W) and mask (H, W), uint8, of a block of chips joined by their names."""
    paths = sorted((folder / "images").glob("*.tif"))
    places = {p: CHIP_NAME.search(p.name) for p in paths}
    found = {p: (int(m[1]), int(m[2])) for p, m in places.items() if m}
    if not found:
        raise InputError(
            f"expected chips named OAM-x-y-z.tif in {str(folder / 'images')!r}; found none. "
            "Give the folder of the Banepa sample, see the module's description."
        )
    xs, ys = zip(*found.values(), strict=True)
    rows, cols = max(ys) - min(ys) + 1, max(xs) - min(xs) + 1
    image = np.zeros((3, rows * CHIP_PX, cols * CHIP_PX), np.uint8)
    mask = np.zeros(image.shape[1:], np.uint8)
    with quiet_georeference():
        for path, (x, y) in found.items():
            row, col = (y - min(ys)) * CHIP_PX, (x - min(xs)) * CHIP_PX
            box = slice(row, row + CHIP_PX), slice(col, col + CHIP_PX)
            with rasterio.open(path) as dataset:
                image[:, *box] = dataset.read()
            with rasterio.open(folder / "masks" / path.name) as dataset:
                mask[box] = dataset.read(1)
    return torch.from_numpy(image), torch.from_numpy(mask)


def make_spec(image: Tensor) -> ModelSpec:
    """Return the record of the model, with statistics of the training image."""
    values = image.double().flatten(1)
    means, stds = values.mean(dim=1).tolist(), values.std(dim=1).tolist()
    names = ("red", "green", "blue")
    return ModelSpec(
        name=NAME,
        architecture=Architecture("segnext_t"),
        bands=tuple(
            BandSpec(n, mean=round(m, 3), std=round(s, 3))
            for n, m, s in zip(names, means, stds, strict=True)
        ),
        dtype="uint8",
        classes=CLASSES,
        # The augmentation covers 0.6 to 1.7 times 0.132 m; its ends are seen rarely.
        gsd_m=(0.09, 0.2),
        tile=TileSpec(size_px=1024, overlap_px=128),
        description="Buildings in 0.13 m drone imagery of Banepa, Nepal.",
        warning=WARNING,
        licence="Apache-2.0 for the weights; their status under the labels' ODbL is unsettled",
        credits=CREDITS,
        data=(
            "24 chips of 512 px (6.3 Mpx) of Banepa, Nepal; validation: the 8 chips of the "
            "column east of them. Random initial weights, no pre-training."
        ),
    )


def train(data: Path, recipe: Recipe, log_folder: Path) -> BuildingTask:
    """Train on ``data`` and return the task with averaged weights."""
    L.seed_everything(recipe.seed, workers=True)
    keep_freed_memory()
    image, target = load_block(data / "train")
    task = BuildingTask(make_spec(image), recipe)
    # One worker: the crops are the recipe's, in its order, on every machine.
    crops = DataLoader(RandomCrops(image, target, recipe), batch_size=recipe.batch)
    chips = DataLoader(Chips(*load_block(data / "val")), batch_size=1)
    trainer = L.Trainer(
        max_steps=recipe.steps,
        val_check_interval=min(250, recipe.steps),
        check_val_every_n_epoch=None,
        gradient_clip_val=5.0,
        callbacks=[EMAWeightAveraging(decay=recipe.ema_decay)],
        logger=CSVLogger(log_folder, name=None, version=""),
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
    )
    trainer.fit(task, crops, chips)
    return task


@torch.inference_mode()
def evaluate(segmenter: Segmenter, chips: Chips) -> tuple[dict[str, float], list[Tensor]]:
    """Return scores over all chips, and the predicted maps (512, 512)."""
    confusion = torch.zeros(2, 2, dtype=torch.int64)
    maps = []
    for i in range(len(chips)):
        values, target = chips[i]
        predicted = segmenter(values[None])[0].argmax(dim=0)
        confusion += count_pairs(target, predicted)
        maps.append(predicted)
    return scores(confusion), maps


def precision_record(network: nn.Module, spec: ModelSpec, chips: Chips) -> PrecisionRecord:
    """Return how far bfloat16 moves the map on the validation chips, on the CPU."""
    exact, exact_maps = evaluate(Segmenter(network, spec).eval(), chips)
    reduced = Segmenter(network, spec).eval().to_precision("bf16")
    rough, rough_maps = evaluate(reduced, chips)
    network.float()
    agree = [(a == b).double().mean() for a, b in zip(exact_maps, rough_maps, strict=True)]
    same = torch.stack(agree)
    delta = 100 * (rough["miou"] - exact["miou"])
    return PrecisionRecord(round(float(same.mean()), 5), round(delta, 4), "cpu")


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--steps", type=click.IntRange(1), default=Recipe.steps, show_default=True)
@click.option("--seed", type=int, default=Recipe.seed, show_default=True)
@click.option(
    "--logs", type=click.Path(path_type=Path), default="demo-logs", help="Folder for the metrics."
)
def main(data: Path, out: Path, steps: int, seed: int, logs: Path) -> None:
    """Train on DATA and write the model OUT (.safetensors, half precision)."""
    recipe = Recipe(steps=steps, seed=seed)
    task = train(data, recipe, logs)
    network, spec = task.segmenter.network.cpu().eval(), task.segmenter.spec
    chips = Chips(*load_block(data / "val"))
    found, _ = evaluate(Segmenter(network, spec).eval(), chips)
    spec = replace(
        spec,
        precision={"bf16": precision_record(network, spec, chips)},
        recipe=f"python -m geoseg.train.demo_buildings DATA OUT; {recipe}",
        metrics={f"val_{name}": round(value, 4) for name, value in found.items()},
        versions={"geoseg": geoseg.__version__, "torch": str(torch.__version__)},
    )
    save_model(out, network, spec, half=True)
    click.echo(f"{out}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items()))


if __name__ == "__main__":
    main()
