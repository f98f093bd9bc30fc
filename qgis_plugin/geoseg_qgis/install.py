"""Makes the engine's environment in the QGIS profile, with uv: planned, shown, then done.

The new environment lies beside the old one, is checked with ``geoseg doctor``, and only then takes
its place: an installation that fails or is cancelled changes nothing. No QGIS is needed here.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from geoseg_qgis import child, uv_binary
from geoseg_qgis.client import Cancelled, EngineError
from geoseg_qgis.engine import CURRENT, Engine, check_engine, python_in
from geoseg_qgis.install_plan import InstallPlan, dotted, plan_install
from geoseg_qgis.pythons import NEWEST, OLDEST
from geoseg_qgis.runner import Feedback, run_tool

__all__ = ["InstallPlan", "install_engine", "plan_install"]

# uv's own variables that say where packages come from, on machines with a mirror.
UV_VARIABLES = (
    *("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX_STRATEGY"),
    *("UV_CACHE_DIR", "UV_LINK_MODE", "UV_HTTP_TIMEOUT", "UV_INSECURE_HOST", "UV_CONFIG_FILE"),
    *("UV_KEYRING_PROVIDER", "UV_PYTHON_INSTALL_MIRROR"),
)
ENVIRONMENT = "engine-"


def install_engine(plan: InstallPlan, feedback: Feedback) -> Engine:
    """Install what was planned and return the engine, which has answered ``doctor``.

    Raises:
        Cancelled: the user stopped it; the engine that was there before stays.
        EngineError: what failed, with the last lines of uv.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(plan.folder, error) from error
    name = f"{ENVIRONMENT}{time.strftime('%Y%m%d')}-{uuid.uuid4().hex[:8]}"
    made = plan.folder / name
    try:
        uv = plan.uv or _get_uv(plan, feedback)
        engine = _fill(uv, made, plan, feedback)
        feedback.log("info", "Checking it: geoseg doctor ...")
        feedback.set_progress(92.0, None)
        record = check_engine(engine, fresh=True)
        _refuse_cancelled(feedback)
        _make_current(plan.folder, name)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    feedback.log("info", f"geoseg {record['geoseg']} is ready.")
    feedback.set_progress(100.0, None)
    _remove_others(plan.folder, name)
    return engine


def _fill(uv: str, made: Path, plan: InstallPlan, feedback: Feedback) -> Engine:
    """Make an environment, and install into it."""
    extra = _uv_environment(plan)
    offline = ["--offline"] if plan.is_offline else []
    # A range for uv's own search: it takes a Python of the machine, or fetches one.
    python = plan.python or f">={dotted(OLDEST)},<={dotted(NEWEST)}.99"
    feedback.set_progress(5.0, None)
    _uv(
        [uv, "venv", "--no-project", "--python", python, *offline, str(made)],
        feedback,
        _Teller(feedback, 5.0, 8.0),
        extra,
    )
    engine = Engine(python_in(made) or str(made / "bin" / "python"), "managed")
    command = [uv, "pip", "install", "--python", engine.python, *offline]
    if plan.is_offline:
        command.append("--no-index")
    for folder in plan.wheel_folders:
        command += ["--find-links", folder]
    if plan.has_torch_index:
        command += ["--torch-backend", plan.backend]
    _uv([*command, plan.requirement], feedback, _Teller(feedback, 8.0, 90.0), extra)
    return engine


def _uv(
    command: list[str], feedback: Feedback, on_line: Callable[[str], None], extra: dict[str, str]
) -> None:
    try:
        run_tool(command, feedback, on_line, extra=extra)
    except Cancelled:
        raise Cancelled("The installation was cancelled; nothing was changed.") from None
    except EngineError as error:
        if error.kind != "ToolFailed":
            raise
        raise EngineError(
            "InstallFailed",
            "The engine was not installed; what was there before stays. Check network, proxy and "
            f"source under Settings ▸ Options ▸ geoseg. uv said:\n{error.message}",
            error.exit_code,
        ) from None


class _Teller:
    """Turns uv's lines into log lines and progress: downloads weigh by their size."""

    _UNITS: ClassVar = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    _BEGUN = re.compile(r"^\s*Downloading (\S+) \(([\d.]+)([KMG]iB)\)")
    _DONE = re.compile(r"^\s*Downloaded (\S+)")

    def __init__(self, feedback: Feedback, first: float, last: float) -> None:
        self.feedback = feedback
        self.first, self.last = first, last
        self.sizes: dict[str, float] = {}
        self.done_bytes = 0.0

    def __call__(self, line: str) -> None:
        """Take in one line."""
        if not line.strip():
            return
        self.feedback.log("info", line.rstrip())
        if begun := self._BEGUN.match(line):
            self.sizes[begun[1]] = float(begun[2]) * self._UNITS[begun[3]]
        elif done := self._DONE.match(line):
            self.done_bytes += self.sizes.get(done[1], 0.0)
        total = sum(self.sizes.values())
        if total:
            share = self.done_bytes / total
            self.feedback.set_progress(self.first + share * (self.last - self.first), None)


def _get_uv(plan: InstallPlan, feedback: Feedback) -> str:
    wheel: Path | bytes | None = None
    if plan.is_offline:
        wheel = uv_binary.wheel_in(Path(plan.wheel_folders[-1]))
    if wheel is None:
        feedback.log("info", f"Fetching uv from {uv_binary.INDEX} ...")
        wheel = uv_binary.fetch_wheel(
            feedback.is_cancelled,
            lambda done, total: feedback.set_progress(5.0 * done / max(done, total), None),
            proxy=plan.proxy,
        )
    return uv_binary.unpack(wheel, plan.folder / "tools")


def _uv_environment(plan: InstallPlan) -> dict[str, str]:
    extra = {name: os.environ[name] for name in UV_VARIABLES if name in os.environ}
    # Companies' certificates lie in the system's store; two uv versions' names for taking it.
    extra |= {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", "UV_NO_PROGRESS": "1"}
    extra["UV_PYTHON_INSTALL_DIR"] = str(plan.folder / "python")
    if plan.proxy:
        extra |= dict.fromkeys(
            ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), plan.proxy
        )
    return extra


def _make_current(folder: Path, name: str) -> None:
    part = folder / (CURRENT + ".part")
    try:
        part.write_text(name + "\n", "utf-8")
        part.replace(folder / CURRENT)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _remove_others(folder: Path, name: str) -> None:
    """Remove environments that are no longer used; one that is at work stays until next time."""
    if child.is_any_running():
        return
    for other in folder.glob(f"{ENVIRONMENT}*"):
        if other.name != name:
            with contextlib.suppress(OSError):
                shutil.rmtree(other)


def _refuse_cancelled(feedback: Feedback) -> None:
    if feedback.is_cancelled():
        raise Cancelled("The installation was cancelled; nothing was changed.")


def _cannot_write(folder: Path, error: OSError) -> EngineError:
    return EngineError(
        "NoFolder",
        f"The engine's folder {str(folder)!r} cannot be written: {error.strerror or error}. It "
        "lies in the QGIS profile, which must be writable.",
    )
