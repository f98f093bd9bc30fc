"""The environment variables that geoseg's process gets: those on a list, nothing else.

QGIS sets variables for its own Python, GDAL and PROJ (PYTHONHOME, GDAL_DATA, PROJ_LIB, ...). In a
process with another Python, GDAL and PROJ each of them does harm. So does PATH, through which
Windows finds libraries. Standard library only.
"""

from __future__ import annotations

import os
import subprocess  # nosec B404  # the plugin's purpose: geoseg runs in its own process
from collections.abc import Mapping
from typing import Any

WHO_AND_WHERE = (
    "HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR TEMP TMP XDG_CACHE_HOME XDG_CONFIG_HOME "
    "XDG_DATA_HOME XDG_RUNTIME_DIR"
)
# Without these no Windows program starts.
WINDOWS = (
    "SYSTEMROOT SYSTEMDRIVE WINDIR COMSPEC PATHEXT USERNAME USERPROFILE USERDOMAIN HOMEDRIVE "
    "HOMEPATH APPDATA LOCALAPPDATA PROGRAMDATA PROGRAMFILES ALLUSERSPROFILE NUMBER_OF_PROCESSORS "
    "PROCESSOR_ARCHITECTURE"
)
NETWORK = (
    "HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy "
    "SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE REQUESTS_CA_BUNDLE"
)
# How much of the machine may be used.
SHARE = (
    "CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES "
    "OMP_NUM_THREADS MKL_NUM_THREADS"
)
# Rasters in object stores: those that QGIS's GDAL opens, geoseg's opens too.
STORES = (
    "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_REGION "
    "AWS_DEFAULT_REGION AWS_S3_ENDPOINT AWS_NO_SIGN_REQUEST AWS_REQUEST_PAYER AWS_HTTPS "
    "AWS_VIRTUAL_HOSTING AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE GS_NO_SIGN_REQUEST "
    "GOOGLE_APPLICATION_CREDENTIALS AZURE_STORAGE_ACCOUNT AZURE_STORAGE_ACCESS_KEY "
    "AZURE_STORAGE_CONNECTION_STRING AZURE_STORAGE_SAS_TOKEN AZURE_NO_SIGN_REQUEST"
)
ALLOWED = frozenset(" ".join((WHO_AND_WHERE, WINDOWS, NETWORK, SHARE, STORES)).split())
ALLOWED_PREFIXES = ("LC_",)
POSIX_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def child_environment(
    environ: Mapping[str, str], *, windows: bool = os.name == "nt"
) -> dict[str, str]:
    """Return the environment of geoseg's process, made from QGIS's own.

    PATH is that of a plain machine. PYTHONSAFEPATH keeps a ``geoseg`` or ``torch`` that lies in the
    current folder from being imported.
    """
    kept = {name: value for name, value in environ.items() if _is_allowed(name, windows)}
    kept["PATH"] = _windows_path(kept) if windows else POSIX_PATH
    return {**kept, "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}


def process_options() -> dict[str, Any]:
    """Return what every process of the plugin is started with: environment, and no window."""
    options: dict[str, Any] = {"env": child_environment(os.environ), "close_fds": True}
    if os.name == "nt":
        options["creationflags"] = getattr(subprocess, "CREATE_NO_WINDOW", 0)
    return options


def _is_allowed(name: str, windows: bool) -> bool:
    name = name.upper() if windows else name  # Windows does not tell cases apart
    return name in ALLOWED or name.startswith(ALLOWED_PREFIXES)


def _windows_path(environ: Mapping[str, str]) -> str:
    by_name = {name.upper(): value for name, value in environ.items()}
    root = by_name.get("SYSTEMROOT") or by_name.get("WINDIR") or "C:\\Windows"
    return ";".join([root + "\\System32", root, root + "\\System32\\Wbem"])
