#!/usr/bin/python3
"""Stands in for an engine's Python: `stand_in.py -X utf8 -m geoseg COMMAND ARGUMENT...`.

Writes its arguments to calls.jsonl beside this file (copied to a folder by the tests), looks at
the files that it is given, and answers as geoseg does. The real engine is run by real_runs.py.
"""

import json
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
command, arguments = sys.argv[5], sys.argv[6:]


def value(option):
    """Return what `--option=value` says."""
    found = [a.split("=", 1)[1] for a in arguments if a.startswith(option + "=")]
    return found[0] if found else None


def seen(path):
    """Return what of a file matters here: whether it is there, and its first bytes."""
    file = Path(path)
    return [path, file.read_bytes()[:300].decode("latin-1")] if file.is_file() else [path, None]


call = {"command": command, "arguments": arguments}
words = [a for a in arguments if not a.startswith("--") and a != "json"]
call["words"] = words
call["files"] = [seen(w) for w in [*words, value("--aoi") or "", value("--labels") or ""] if w]
raster = next((w for w in words if w.endswith((".tif", ".vrt"))), None)
# What the engine would open: copied, since a temporary file is gone after the run.
if raster and "geoseg_" in raster and command == "predict":
    kept = here / f"exported_{len(list(here.glob('exported_*')))}"
    kept.mkdir()
    for file in Path(raster).parent.iterdir():
        if file.is_file():
            (kept / file.name).write_bytes(file.read_bytes())
    call["exported"] = str(kept / Path(raster).name)
aoi = value("--aoi")
if aoi and Path(aoi).is_file():
    (here / "aoi.gpkg").write_bytes(Path(aoi).read_bytes())
with (here / "calls.jsonl").open("a", encoding="utf-8") as log:
    log.write(json.dumps(call) + "\n")

if command == "describe":
    record = {"kind": "model", "name": "stand-in", "gsd_m": [0.1, 0.4], "classes": [], "bands": []}
    print(json.dumps(record))
    sys.exit(0)
if command == "models":
    print(json.dumps({"shipped": []}))
    sys.exit(0)
print(json.dumps({"event": "start", "protocol": 1, "command": command, "plan": {}}))
print(json.dumps({"event": "progress", "done": 1, "total": 2, "unit": "tiles", "eta_s": 200.0}))
out = words[-1]
if "refuse" in out:
    message = "model 'x' expects 3 bands; 'y.tif' has 1. Give --bands, or use a 1-band model."
    print(json.dumps({"event": "error", "kind": "BandMismatchError", "message": message}))
    sys.exit(3)
if command in ("predict", "vectorize"):
    template = here / ("map.tif" if command == "predict" else "map.gpkg")
    Path(out).write_bytes(template.read_bytes() if template.exists() else b"")
print(json.dumps({"event": "result", "outputs": {"class_map": out}, "seconds": 1.0, "pixels": 1}))
