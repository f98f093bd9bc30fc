"""A STAC item as input: which of its assets hold the model's bands."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from geoseg.errors import BackendUnavailableError, BandMismatchError, InputError
from geoseg.raster.reader import ANY_DTYPE
from geoseg.spec import ModelSpec

PREVIEW_ROLES = {"overview", "thumbnail", "metadata"}
NETWORK_TIMEOUT_S = 60


def is_item(name: str) -> bool:
    """Return whether a raster's name is that of a JSON file or address."""
    return PurePosixPath(urlparse(name).path).suffix.lower() in {".json", ".geojson"}


def item_assets(name: str, spec: ModelSpec) -> list[str]:
    """Return the files of an item that hold the model's bands, in the model's order.

    An asset with exactly the model's bands is taken alone, else one asset per band. Bands are known
    by their common name, their name, or the key of an asset of one band.

    Args:
        name: path or address of a STAC item, 1.0 or 1.1.
        spec: the model's record.

    Raises:
        BandMismatchError: a band is missing.
        InputError: no STAC item.
        BackendUnavailableError: the extra ``stac`` is not installed.
    """
    item = _read_item(name)
    wanted = [band.name.lower() for band in spec.bands]
    found: dict[str, str] = {}
    for key, asset in item.assets.items():
        if not _is_image(asset, spec):
            continue
        href = asset.get_absolute_href() or asset.href
        bands = list(_bands(asset.extra_fields))
        if len(bands) == len(wanted) and all(w in b for w, b in zip(wanted, bands, strict=True)):
            return [href]
        if len(bands) <= 1:
            for label in {key.lower(), *(bands[0] if bands else ())}:
                found.setdefault(label, href)
    missing = [band for band in wanted if band not in found]
    if missing:
        raise BandMismatchError(
            f"model {spec.name!r} expects the bands {', '.join(wanted)}; STAC item {name!r} has no "
            f"asset for {', '.join(missing)} (it has {', '.join(sorted(found)) or 'no bands'}). "
            "Give the files themselves, in order, with --stack, or one file with --bands."
        )
    return [found[band] for band in wanted]


def _read_item(name: str) -> Any:
    try:
        import pystac
    except ImportError as error:
        raise BackendUnavailableError(
            f"{name!r}: STAC items need the extra 'stac'. Install it: pip install 'geoseg[stac]', "
            "or give the item's files themselves."
        ) from error
    try:
        if "://" in name:
            with urllib.request.urlopen(name, timeout=NETWORK_TIMEOUT_S) as answer:
                record = json.load(answer)
        else:
            record = json.loads(Path(name).read_text("utf-8"))
        return pystac.Item.from_dict(record, href=name)
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError),
        *(pystac.STACError, pystac.STACTypeError),
    ) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer, too
        raise InputError(
            f"{name!r}: expected a raster or a STAC item; got neither ({_reason(error)}). "
            "Give an item, or a raster."
        ) from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:120]


def _is_image(asset: Any, spec: ModelSpec) -> bool:
    """Return whether an asset can hold the model's bands: no preview, and no other data type."""
    roles = {role.lower() for role in asset.roles or ()}
    if roles & PREVIEW_ROLES or ("visual" in roles and spec.dtype not in {"uint8", ANY_DTYPE}):
        return False
    fields = asset.extra_fields
    records = [fields, *(fields.get("bands") or ()), *(fields.get("raster:bands") or ())]
    types = {record["data_type"] for record in records if "data_type" in record}
    return not types or spec.dtype == ANY_DTYPE or spec.dtype in types


def _bands(fields: dict[str, Any]) -> Iterator[set[str]]:
    """Yield the names of each band of an asset, lower case."""
    for band in fields.get("bands") or fields.get("eo:bands") or ():
        names = (band.get(key) for key in ("eo:common_name", "common_name", "name"))
        yield {name.lower() for name in names if name}
