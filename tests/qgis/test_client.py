"""Recorded and hostile lines, and what is made of them."""

import json

import pytest
from geoseg_qgis import client
from geoseg_qgis.client import EngineError, build_command, parse_event
from geoseg_qgis.engine import Engine

ENGINE = Engine("/opt/a b/ü/python", "setting")

# As `geoseg predict --progress json` printed them.
RECORDED = [
    '{"event": "start", "protocol": 1, "command": "predict", "plan": {"tiles": 4}}',
    '{"event": "progress", "done": 1, "total": 4, "unit": "tiles", "eta_s": 12.5}',
    '{"event": "log", "level": "warning", "message": "Demonstration model: \\u00fc"}',
    '{"event": "result", "outputs": {"class_map": "map.tif", "vector": null}, "seconds": 3.1}',
    '{"event": "error", "kind": "BandMismatchError", "message": "expects 3 bands; has 1."}',
]


@pytest.mark.parametrize("line", RECORDED)
def test_a_recorded_line_is_its_event(line):
    event = parse_event(line.encode() + b"\r\n")
    assert event.kind == json.loads(line)["event"]
    assert event.data == json.loads(line)
    assert parse_event(line) == event


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"Downloading weights: 12 %",
        b"{",
        b'{"event": "progress", "done": 1, "to',
        b'{"event": "pro\xff\xfe',
        b"\xff\xfe\x00{",
        b'[{"event": "result"}]',
        b'"result"',
        b"null",
        b'{"event": 1}',
        b'{"event": null}',
        b'{"event": ["result"]}',
        b'{"event": "telemetry", "done": 1}',
        b'{"kind": "result"}',
        b'{"event": "result"} {"event": "result"}',
        b'{"event": "log", "message": ' + b"[" * 200_000,
        b'{"event": "progress", "done": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda line: repr(line[:24]),
)
def test_whatever_is_no_known_event_is_passed_over(line):
    assert parse_event(line) is None


def test_unknown_keys_are_kept_and_do_no_harm():
    event = parse_event('{"event": "progress", "done": 1, "total": 2, "colour": {"a": 1}}')
    assert event.data["colour"] == {"a": 1}


def test_invalid_utf8_inside_of_a_message_is_shown_as_such():
    event = parse_event(b'{"event": "log", "level": "info", "message": "caf\xe9"}')
    assert event.data["message"] == "caf\ufffd"


@pytest.mark.parametrize(
    ("data", "percent"),
    [
        ({"done": 1, "total": 4}, 25.0),
        ({"done": 9, "total": 4}, 100.0),
        ({"done": -1, "total": 4}, 0.0),
        ({"done": 0, "total": 0}, None),
        ({"done": 1, "total": -4}, None),
        ({"done": "1", "total": 4}, None),
        ({"done": True, "total": 4}, None),
        ({"done": float("nan"), "total": 4}, None),
        ({"done": 1, "total": float("inf")}, None),
        ({"done": 10**400, "total": 4}, None),
        ({}, None),
    ],
)
def test_progress_is_a_percentage_or_nothing(data, percent):
    assert client.progress_percent(data) == percent


@pytest.mark.parametrize("command", sorted(client.STREAMING))
def test_long_commands_stream_and_watch_their_stdin(command):
    line = build_command(ENGINE, command, ["a b.tif", "--", "-ü.tif"])
    assert line[:6] == [ENGINE.python, "-X", "utf8", "-m", "geoseg", command]
    assert line[6:] == ["--progress", "json", "--watch-stdin", "a b.tif", "--", "-ü.tif"]


def test_short_commands_get_no_options():
    assert build_command(ENGINE, "doctor", ["--json"])[5:] == ["doctor", "--json"]


def test_an_error_event_is_its_sentence():
    error = client.error_of_event(json.loads(RECORDED[-1]), 3)
    assert (error.kind, str(error), error.exit_code) == (
        "BandMismatchError",
        "expects 3 bands; has 1.",
        3,
    )


def test_an_error_event_without_words_still_gives_a_sentence():
    assert str(client.error_of_event({"kind": 3}, None)).endswith("did not say why.")


@pytest.mark.parametrize(
    ("exit_code", "stderr", "kind", "said"),
    [
        (2, "Usage: geoseg predict ...\n\nError: Missing argument 'MODEL'.\n", "Usage", "Missing"),
        (3, "geoseg: 'a.tif' cannot be opened.\n", "Error", "'a.tif' cannot be opened."),
        (1, "/usr/bin/python3: No module named geoseg\n", "NotGeoseg", "Install engine"),
        (1, "Traceback ...\nKeyError: 'x'\n", "Crash", "KeyError: 'x'"),
        (-11, "", "Crash", "signal 11. It said nothing."),
        (-9, "", "Crash", "not enough memory"),
        (0, "", "Crash", "ended with code 0"),
        (130, "", "Interrupted", "interrupted"),
    ],
)
def test_an_end_without_a_result_is_a_sentence(exit_code, stderr, kind, said):
    error = client.error_of_exit(exit_code, stderr)
    assert isinstance(error, EngineError)
    assert (error.kind, error.exit_code) == (kind, exit_code)
    assert said in str(error)


def test_only_the_last_lines_of_a_crash_are_shown():
    error = client.error_of_exit(1, "\n".join(f"line {i}" for i in range(100)))
    assert "line 99" in str(error)
    assert "line 80\n" not in str(error)
