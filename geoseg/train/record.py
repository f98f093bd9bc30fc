"""``metrics.csv``: one row for every few steps and for every validation."""

import csv
import importlib.util
import io
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from geoseg.errors import BackendUnavailableError
from geoseg.extras import require_extra
from geoseg.train.checkpoints import disk_errors

METRICS = "metrics.csv"
LoggerName = Literal["csv", "tensorboard", "wandb"]


def build_loggers(
    out: Path, names: Sequence[LoggerName], *, resume_at: int | None = None
) -> list[Logger]:
    """Return the metrics file, always, and what else is asked for.

    Args:
        out: folder of the run, in which all of them write.
        names: ``tensorboard`` and ``wandb`` count.
        resume_at: step at which the run goes on.

    Raises:
        BackendUnavailableError: a package is not installed.
    """
    loggers: list[Logger] = [CsvRows(out / METRICS, resume_at=resume_at)]
    if "tensorboard" in names:
        require_extra("train", "tensorboard", purpose="trainer.loggers: tensorboard")
        loggers.append(TensorBoardLogger(out, name="", version="tensorboard"))
    if "wandb" in names:
        # Not in the extra: it is for those who have an account.
        if importlib.util.find_spec("wandb") is None:
            raise BackendUnavailableError(
                "trainer.loggers: wandb needs the package wandb, which is not installed. Install "
                "it with: pip install wandb."
            )
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(project="geoseg", name=out.resolve().name, save_dir=out))
    return loggers


class CsvRows(Logger):
    """Rows of metrics by step, written whole at each validation and at the end.

    Lightning's own logger throws away the rows of the run that is resumed.

    Args:
        path: of the file.
        resume_at: rows up to this step are kept; None: the file is begun anew.
    """

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume_at is not None and path.exists():
            self.rows = [row for row in read_rows(path) if int(row["step"]) <= resume_at]

    @property
    def name(self) -> str:
        """Name among the loggers."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row; numbers of the same step share it."""
        rounded = {key: f"{value:.6g}" for key, value in metrics.items()}
        if self.rows and int(self.rows[-1]["step"]) == step:
            self.rows[-1].update(rounded)
        else:
            self.rows.append({"step": step, **rounded})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """Leave them to config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        """Write all rows."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with disk_errors(self.path.parent):
            temporary = self.path.with_name(f".{self.path.name}.part")
            temporary.write_text(text.getvalue(), "utf-8")
            temporary.replace(self.path)

    def finalize(self, status: str) -> None:  # noqa: ARG002
        """Write what is left."""
        if self.rows:
            self.save()


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics file, empty cells left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]
