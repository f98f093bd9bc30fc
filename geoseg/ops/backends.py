"""Which backend runs an operation: what there is, and why not the others."""

import functools
import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch

from geoseg.errors import BackendUnavailableError, UsageError

logger = logging.getLogger(__name__)

# The first that can run on the tensors' device is taken; natten only if it is asked for by name.
BACKENDS = {
    "ss2d": ("cuda", "cpu", "torch", "reference"),
    "selective_scan": ("cuda", "cpu", "torch", "reference"),
    "neighborhood_attention": ("cuda", "cpu", "torch", "natten", "reference"),
}
CHOSEN_BY_NAME_ONLY = ("natten",)
# Named as the devices that they are for.
COMPILED = ("cuda", "cpu")

# In place of a backend's name: whatever an exporter has put there.
STAND_IN = "stand-in"
_stand_in: ContextVar[Any] = ContextVar("stand_in", default=None)


@contextmanager
def standing_in(operations: Any) -> Iterator[None]:
    """Let methods ``ss2d_scan`` and ``na2d`` of an object run what asks for no backend by name.

    For exporters, which want to see one operation and not how a backend of this machine does it.
    """
    token = _stand_in.set(operations)
    try:
        yield
    finally:
        _stand_in.reset(token)


def stand_in() -> Any:
    """Return the object that stands in for the backends, or None."""
    return _stand_in.get()


def available_backends(op: str) -> dict[str, str | None]:
    """Return the backends of an operation: None where it runs here, else the reason why not.

    Args:
        op: ``ss2d``, ``selective_scan`` or ``neighborhood_attention``.

    Raises:
        UsageError: no such operation.
    """
    if op not in BACKENDS:
        raise UsageError(f"expected an operation of {', '.join(BACKENDS)}; got {op!r}.")
    return {name: unavailable_reason(name) for name in BACKENDS[op]}


def unavailable_reason(backend: str) -> str | None:
    """Return why a backend cannot run on this machine, or None."""
    if backend == "reference":
        return None
    return implementation(backend).unavailable_reason()


def constant_in_graphs[F: Callable[..., object]](function: F) -> F:
    """Mark a function whose answer a compiled graph may hold.

    What torch.compiler.assume_constant_result does, without loading the compiler at import.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_in_graphs
def choose_backend(op: str, device: str, backend: str | None) -> str:
    """Return the backend that runs ``op`` on tensors of a device kind.

    Args:
        op: key of `BACKENDS`.
        device: ``cpu``, ``cuda``, ``mps``, ...
        backend: a name, which runs or raises; None takes the first that can run.

    Raises:
        BackendUnavailableError: the named backend cannot run here; the message says why.
        UsageError: no such backend.
    """
    if backend is None:
        return first_backend(op, device) if stand_in() is None else STAND_IN
    known = BACKENDS[op]
    if backend not in known:
        raise UsageError(f"{op}: expected a backend of {', '.join(known)}; got {backend!r}.")
    reason = refusal(backend, device)
    if reason is not None:
        raise BackendUnavailableError(
            f"{op}: backend {backend!r} was asked for, but {reason}. Leave backend away to take "
            "the best that runs, or see `geoseg doctor`."
        )
    return backend


@functools.cache
def first_backend(op: str, device: str) -> str:
    """Return the first backend of an operation that can run on tensors of a device kind.

    Kept: what is installed does not change while a process runs.
    """
    return next(
        name
        for name in BACKENDS[op]
        if name not in CHOSEN_BY_NAME_ONLY and refusal(name, device) is None
    )


def refusal(backend: str, device: str) -> str | None:
    """Return why a backend cannot run on tensors of a device kind, or None."""
    if backend in COMPILED and backend != device:
        return f"the tensors are on {device}"
    return unavailable_reason(backend)


@functools.cache
def implementation(backend: str) -> ModuleType:
    """Return the module that implements a backend, loaded when it is first needed."""
    return importlib.import_module(f"geoseg.ops._{backend}")


def compiled(name: str, device: str) -> Callable[..., Any]:
    """Return a function of the compiled backend of a device."""
    return getattr(implementation(device), name)


# torch.amp.is_autocast_available says so too, but torch 2.10 cannot compile it.
AUTOCAST_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})


def without_autocast(device: str) -> AbstractContextManager[None]:
    """Return a context without autocast, or an empty one where there is none to end."""
    if device in AUTOCAST_DEVICES and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
