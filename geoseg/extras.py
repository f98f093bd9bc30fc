"""Optional packages: says which extra brings one that is missing."""

import importlib.util

from geoseg.errors import BackendUnavailableError

TRAIN_PACKAGES = ("jsonargparse", "lightning", "torchgeo", "torchmetrics", "timm", "matplotlib")


def require_extra(extra: str, *packages: str, purpose: str) -> None:
    """Raise a BackendUnavailableError if one of the packages cannot be imported.

    Args:
        extra: name in ``pip install 'geoseg[extra]'``.
        packages: to import.
        purpose: what they are needed for, the subject of the sentence.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendUnavailableError(
            f"{purpose} needs the extra {extra!r}; not installed: {', '.join(missing)}. "
            f"Install it with: pip install 'geoseg[{extra}]'."
        )
