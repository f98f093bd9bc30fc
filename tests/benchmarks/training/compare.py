"""SegNeXt-T and SegMAN-T beside U-Net and DeepLabV3+ on Dubai or Banepa, from the same start.

    python -m tests.benchmarks.training.compare OUT [--data dubai] [--models NAME ...] \
        [key.sub=value ...]

Every network is trained as `geoseg train configs/segnext_t_dubai.yaml` does it: data, augmentation,
batches, steps and optimiser are the same, and so are random weights to start from, with
model.weights=null; peers have no other start. The learning rate is the one value
that is chosen per network, on the validation images, among the same few for all (``--rates``).
Runs that are finished in OUT are not repeated, so the comparison can be made in pieces;
``curves.png`` in OUT is drawn last. Run it where ``data/`` holds the sets.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geoseg.checkpoint import load_network, read_spec
from geoseg.config.parse import parse_config
from geoseg.config.run import RunConfig
from geoseg.data.build import build_split
from geoseg.evaluate.curves import Curve, read_curves
from geoseg.evaluate.metrics import ConfusionMatrix
from geoseg.evaluate.plots import save_learning_curves
from geoseg.evaluate.protocol import infer_benchmark
from geoseg.segmenter import Segmenter
from geoseg.train.run import train

CONFIGS = Path(__file__).parents[3] / "configs"
PEERS = ("Unet-resnet18", "Unet-resnet34", "DeepLabV3Plus-resnet18", "DeepLabV3Plus-resnet34")
OWN = ("segnext_t", "segman_t")
RESAMPLES = 2000


class Peer(nn.Module):
    """A network of segmentation_models_pytorch for images of any size."""

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        decoder, encoder = name.split("-")
        self.network = getattr(smp, decoder)(encoder, encoder_weights=None, classes=num_classes)
        self.to(memory_format=torch.channels_last)  # as ours, and faster on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """Return logits at the input's size; sides are padded to a multiple of 32."""
        height, width = x.shape[-2:]
        x = nn.functional.pad(x, (0, -width % 32, 0, -height % 32), mode="replicate")
        return self.network(x)[..., :height, :width]


def run_one(config: RunConfig, name: str) -> Path:
    """Train a network and return the file of its confusion matrices per validation image."""
    out = Path(config.out)
    counts = out / "counts.json"
    if counts.exists():
        return counts
    torch.manual_seed(config.seed)
    peer = Peer(name, config.model.num_classes) if name in PEERS else None
    resume = (out / "last.ckpt").exists()
    result = train(config, network=peer, resume=resume, overwrite=not resume and out.exists())
    if peer is None:
        segmenter = Segmenter(*load_network(result.model))
    else:
        peer.load_state_dict(load_file(result.model))
        segmenter = Segmenter(peer.float(), read_spec(result.model))
    counts.write_text(json.dumps(count_images(segmenter.eval(), config)))
    return counts


@torch.inference_mode()
def count_images(segmenter: Segmenter, config: RunConfig) -> dict[str, list[list[int]]]:
    """Return the confusion matrix of each validation image."""
    split = build_split(config.data, "val")
    found = {}
    for i, name in enumerate(split.names):
        sample = split.dataset[i]
        probs = infer_benchmark(segmenter, sample["image"], sample["valid"], config.evaluation)
        matrix = ConfusionMatrix(len(split.classes))
        matrix.update(sample["mask"], probs.argmax(dim=0))
        found[name] = matrix.counts.tolist()
    return found


def miou(counts: np.ndarray) -> float:
    """Return the mean IoU of summed matrices (K, K)."""
    hits = np.diag(counts).astype(float)
    union = counts.sum(0) + counts.sum(1) - hits
    return float(np.mean(hits[union > 0] / union[union > 0]))


def compare(files: dict[str, list[Path]]) -> list[str]:
    """Return the lines of the table: mean and spread over seeds, and the bootstrap of the wins."""
    stacks = {}
    for name, paths in files.items():
        read = [json.loads(p.read_text()) for p in paths]
        images = sorted(read[0])
        stacks[name] = np.array([[r[i] for i in images] for r in read])  # (seeds, images, K, K)
    lines = ["| network | mIoU per seed | mean |", "|---|---|---|"]
    for name, stack in stacks.items():
        each = [miou(seed.sum(0)) for seed in stack]
        lines.append(f"| {name} | {', '.join(f'{m:.3f}' for m in each)} | {np.mean(each):.3f} |")
    rng = np.random.default_rng(0)
    lines += ["", "| ours | peer | difference of means | 95 % interval, images resampled |"]
    lines.append("|---|---|---|---|")
    for own in (n for n in OWN if n in stacks):
        for peer in (n for n in PEERS if n in stacks):
            lines.append(difference(own, peer, stacks, rng))
    return lines


def difference(own: str, peer: str, stacks: dict[str, np.ndarray], rng: np.random.Generator) -> str:
    """Return the line of one pair: the same images are drawn for both."""
    a, b = stacks[own], stacks[peer]

    def gap(rows: np.ndarray) -> float:
        ours = np.mean([miou(seed[rows].sum(0)) for seed in a])
        return float(ours - np.mean([miou(seed[rows].sum(0)) for seed in b]))

    images = a.shape[1]
    drawn = [gap(rng.integers(0, images, images)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    verdict = "better" if low > 0 else "worse" if high < 0 else "no claim"
    whole = gap(np.arange(images))
    return f"| {own} | {peer} | {whole:+.3f} | {low:+.3f} to {high:+.3f}: {verdict} |"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*", help="key.sub=value of the run file")
    parser.add_argument("--data", choices=["dubai", "banepa"], default="dubai")
    parser.add_argument("--models", nargs="+", default=[*OWN, *PEERS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rates", nargs="+", type=float, default=[3e-4, 1e-3])
    given = parser.parse_args()
    files = {}
    for name in given.models:
        scored = {}
        for rate in given.rates:
            config = configure(given, name, given.seeds[0], rate)
            counts = json.loads(run_one(config, name).read_text())
            scored[rate] = miou(np.array(list(counts.values())).sum(0))
            print(f"{name} rate {rate:g}: mIoU {scored[rate]:.4f}", flush=True)
        best = max(scored, key=scored.__getitem__)
        files[name] = [run_one(configure(given, name, s, best), name) for s in given.seeds]
        print("\n".join(compare(files)), flush=True)
    picture = save_learning_curves(given.out / "curves.png", read_all_curves(files), "val_miou")
    print(f"learning curves: {picture}")


def read_all_curves(files: dict[str, list[Path]]) -> dict[str, Mapping[str, Curve]]:
    """Return the curves of each network's runs, by network and seed."""
    return {
        f"{name}, run {i + 1}": read_curves(counts.parent / "metrics.csv")
        for name, paths in files.items()
        for i, counts in enumerate(paths)
    }


def configure(given: argparse.Namespace, name: str, seed: int, rate: float) -> RunConfig:
    """Return the run of a network, a seed and a learning rate."""
    own = name if name in OWN else OWN[0]
    config = parse_config(CONFIGS / f"{own}_{given.data}.yaml", given.overrides)
    optim = replace(config.optim, lr=rate)
    model = config.model if name in OWN else replace(config.model, weights=None)
    out = given.out / f"{name}-{rate:g}-{seed}"
    return replace(config, out=str(out), seed=seed, optim=optim, model=model)


if __name__ == "__main__":
    main()
