"""The Lightning module: one training step, one validation, the optimiser."""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from geoseg.config.run import EvaluationConfig, OptimConfig, TrainerConfig
from geoseg.data.sample import Batch
from geoseg.evaluate.metrics import ConfusionMatrix, scores
from geoseg.evaluate.protocol import infer_benchmark
from geoseg.segmenter import Segmenter
from geoseg.train.averaging import AveragedTask
from geoseg.train.schedule import build_optimizer, freeze_encoder, lr_factor, parameter_groups


class SegmentationTask(AveragedTask):
    """Raw values in, loss out; validates as the papers do.

    Args:
        segmenter: network and record.
        loss: maps logits (N, K, H, W) and target (N, H, W) to a scalar.
        optim: optimiser and schedule.
        trainer: steps, averaging and what is frozen.
        evaluation: how validation images are predicted.
        seed: of dropout and the like.

    Attributes:
        confusion: of the last validation.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        loss: nn.Module,
        *,
        optim: OptimConfig,
        trainer: TrainerConfig,
        evaluation: EvaluationConfig,
        seed: int = 0,
    ) -> None:
        super().__init__(segmenter, segmenter.spec, ema_decay=trainer.ema_decay, seed=seed)
        self.loss = loss
        self.optim = optim
        self.options = trainer
        self.evaluation = evaluation
        if optim.encoder_lr_factor == 0:
            freeze_encoder(segmenter.network)
        self.confusion = ConfusionMatrix(segmenter.spec.num_classes)
        # Lightning trains a module in the mode that it finds.
        self.train()

    @property
    def segmenter(self) -> Segmenter:
        """The segmenter that is trained."""
        assert isinstance(self.trained, Segmenter)
        return self.trained

    @property
    def best(self) -> Segmenter:
        """The segmenter that is validated and saved."""
        best = super().best
        assert isinstance(best, Segmenter)
        return best

    def kept_network(self) -> nn.Module:
        """Return the network that goes into the model file."""
        return self.best.network

    def train(self, mode: bool = True) -> Self:
        """Switch to training, except for what is frozen or an average."""
        super().train(mode)
        if not mode:
            return self
        if self.optim.encoder_lr_factor == 0:
            self.segmenter.network.get_submodule("encoder").eval()
        if self.options.freeze_batch_norm:
            for module in self.segmenter.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Return the loss of a batch."""
        logits = self.segmenter(batch["image"], batch["valid"])  # (N, K, H, W)
        loss: Tensor = self.loss(logits, batch["mask"])
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start a new confusion matrix."""
        self.confusion.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Count pixels by target and prediction."""
        for image, valid, target in zip(batch["image"], batch["valid"], batch["mask"], strict=True):
            probs = infer_benchmark(self.best, image, valid, self.evaluation)  # (K, H, W)
            self.confusion.update(target, probs.argmax(dim=0))

    def on_validation_epoch_end(self) -> None:
        """Add up the processes' counts and take the scores."""
        counts = self.confusion.counts.to(self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(counts)
        self.confusion.counts = counts
        self.val_scores = scores(counts, [c.name for c in self.segmenter.spec.classes])

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, before the factors of encoder and decoder."""
        return self.optim.lr * lr_factor(step, self.options.steps, self.optim)

    def on_train_start(self) -> None:
        """Take rates and decay from the run file: on resuming, the checkpoint's are in place."""
        schedule = self.trainer.lr_scheduler_configs[0].scheduler
        groups = self.trainer.optimizers[0].param_groups
        for group, fresh in zip(groups, self._groups(), strict=True):
            factor = lr_factor(self.global_step, self.options.steps, self.optim)
            group |= {
                "initial_lr": fresh["lr"],
                "lr": fresh["lr"] * factor,
                "weight_decay": fresh["weight_decay"],
                "betas": self.optim.betas,
            }
        schedule.base_lrs = [group["initial_lr"] for group in groups]

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule by step."""
        optimizer, schedule = build_optimizer(
            self._groups(),
            self.optim,
            self.options.steps,
            fused=self.options.precision != "fp16",
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self.segmenter.network, self.optim)
