"""What ``geoseg describe`` prints of a data set."""

from pathlib import Path
from typing import Any

from geoseg.errors import InputError, InterruptedRunError
from geoseg.listener import Listener


def describe_dataset(
    name: str, *, workers: int = 0, listener: Listener | None = None
) -> dict[str, Any]:
    """Return what a data set holds, as JSON values.

    Args:
        name: of a run file, of a file with a data section alone, or of a folder.
        workers: processes that read.
        listener: hears of each sample and may stop the run.

    Raises:
        InputError: no split of it can be read at all.
    """
    from geoseg.data import describe_data
    from geoseg.data.find import find_data, name_classes

    data = find_data(name) if Path(name).is_dir() else name_classes(_read_data(name))
    try:
        report = describe_data(data, workers=workers, listener=listener)
    except InterruptedRunError as error:
        raise InterruptedRunError(
            "stopped. A data set is described once all of it is read: run it again for that."
        ) from error
    if not report.splits:
        raise InputError(report.problems[0])
    return {"kind": "data", "name": name, **report.to_json()}


def dataset_lines(record: dict[str, Any]) -> list[str]:
    """Return the text of a data set's record."""
    splits = record["splits"]
    lines = [
        f"{record['name']} ({record['data_kind']})",
        f"  images    {len(record['bands'])} band(s) ({', '.join(record['bands'])}), "
        f"{record['dtype']}",
        "  split      samples       Mpx   ignored  GSD              size",
    ]
    lines += [f"  {_split_line(split)}" for split in splits]
    lines += _statistics_lines(record)
    width = max(len(c["name"]) for c in record["classes"])
    head = "".join(f"{split['name']:>9}" for split in splits)
    lines.append(f"  {'class':{width + 15}}{head}")
    for k, c in enumerate(record["classes"]):
        shares = "".join(f"{_share(split['counts'], k):>7} %" for split in splits)
        lines.append(f"  {c['id']:5d}  {c['color']} {c['name']:{width}} {shares}")
    lines += [f"  note: {split['name']}: {text}" for split in splits for text in split["notes"]]
    lines += [
        f"  note: {split['name']}: {split['single_class']} samples hold a single class"
        for split in splits
        if split["single_class"]
    ]
    lines += [f"  problem: {text}" for text in record["problems"]]
    return lines if record["problems"] else [*lines, "  no problems found"]


def _read_data(name: str) -> Any:
    """Return the data section of a run file, or of a file that holds nothing else."""
    from geoseg.config.parse import parse_config
    from geoseg.config.run import DataConfig
    from geoseg.extras import require_extra

    require_extra("train", "jsonargparse", "yaml", purpose="reading a run file")
    import yaml

    try:
        values = yaml.safe_load(Path(name).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        values = None  # what is wrong is said by the parser of run files
    is_section = isinstance(values, dict) and "kind" in values and "data" not in values
    return parse_config(name, (), DataConfig) if is_section else parse_config(name).data


def _split_line(split: dict[str, Any]) -> str:
    pixels = sum(split["counts"]) + split["ignored_px"]
    gsd = split["gsd_m"]
    small, large = split["smallest_px"], split["largest_px"]
    size = f"{small[0]} x {small[1]}"
    if small != large:
        size += f" to {large[0]} x {large[1]}"
    ignored = 100 * split["ignored_px"] / max(1, pixels)
    return (
        f"{split['name']:8} {split['samples']:9d} {pixels / 1e6:9.1f} {ignored:7.1f} %  "
        f"{f'{gsd[0]:.4g} to {gsd[1]:.4g} m' if gsd else 'unknown':16} {size} px"
    )


def _statistics_lines(record: dict[str, Any]) -> list[str]:
    """Return means and deviations of the first split, which is the training split if there is one.

    As a run file has them, so that no run needs to compute them again.
    """
    split = record["splits"][0]
    return [
        f"  {key + ':':9} [{', '.join(f'{value:.4f}' for value in split[key])}]  ({split['name']})"
        for key in ("mean", "std")
        if split[key]
    ]


def _share(counts: list[int], k: int) -> str:
    """Return the percentage of labelled pixels that are of class k."""
    return f"{100 * counts[k] / max(1, sum(counts)):.2f}"
