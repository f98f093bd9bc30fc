"""Which Python is taken for the engine, and which geoseg is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from geoseg_qgis import engine as engines
from geoseg_qgis.client import EngineError
from geoseg_qgis.doctor import doctor_lines
from geoseg_qgis.engine import Engine, ask_engine, check_engine, find_engine, python_in

from tests.qgis.engines import fake_engine, make_environment


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    monkeypatch.setattr(engines, "_checked", {})


@pytest.fixture
def settings(tmp_path):
    return SimpleNamespace(python_path="", managed_folder=lambda: tmp_path / "profile" / "geoseg")


def a_python(folder):
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("")
    return python


def manage(settings, name="engine-1"):
    folder = settings.managed_folder()
    python = a_python(folder / name)
    (folder / "current").write_text(name + "\n")
    return python


def doctor_of(tmp_path, record):
    python = fake_engine(tmp_path / "fake", f"print({record!r})")
    return Engine(str(python), "setting")


def test_the_setting_comes_before_the_variable_and_the_managed_one(settings, monkeypatch, tmp_path):
    managed = manage(settings)
    assert find_engine(settings) == Engine(str(managed), "managed")
    variable = a_python(tmp_path / "variable")
    monkeypatch.setenv(engines.VARIABLE, str(variable))
    assert find_engine(settings) == Engine(str(variable), "GEOSEG_PYTHON")
    given = a_python(tmp_path / "given ü")
    settings.python_path = str(given)
    assert find_engine(settings) == Engine(str(given), "setting")


def test_without_an_engine_the_sentence_says_what_to_do(settings):
    with pytest.raises(EngineError, match='Settings ▸ Options ▸ geoseg and press "Install engine"'):
        find_engine(settings)


def test_a_wrong_path_is_refused_and_nothing_else_is_tried(settings, tmp_path):
    manage(settings)
    settings.python_path = str(tmp_path / "gone")
    with pytest.raises(EngineError, match="gone.*the engine path of the options") as caught:
        find_engine(settings)
    assert caught.value.kind == "NoEngine"


def test_a_wrong_variable_is_refused_by_its_name(settings, monkeypatch, tmp_path):
    manage(settings)
    monkeypatch.setenv(engines.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(EngineError, match="the variable GEOSEG_PYTHON"):
        find_engine(settings)


@pytest.mark.parametrize("given", [".", "bin", "bin/python", "bin/geoseg"])
def test_an_environment_may_be_given_by_any_of_its_paths(tmp_path, given):
    python = a_python(tmp_path)
    (tmp_path / "bin" / "geoseg").write_text("")
    assert Path(python_in(tmp_path / given)).resolve() == python.resolve()


@pytest.mark.parametrize("content", ["", "../elsewhere", "engine-2", "\xff\xfe"])
def test_a_damaged_note_of_the_managed_engine_is_no_engine(settings, content):
    manage(settings)
    (settings.managed_folder() / "current").write_text(content, "latin-1")
    with pytest.raises(EngineError, match="in none of them"):
        find_engine(settings)


@pytest.mark.parametrize(
    ("record", "kind", "said"),
    [
        ('{"geoseg": "0.0.9", "protocol": 1}', "TooOld", "has 0.0.9 with protocol 1"),
        ('{"geoseg": "0.1.0"}', "TooOld", "has 0.1.0 with protocol None"),
        ('{"geoseg": "0.1.0", "protocol": 0}', "TooOld", "protocol 0"),
        ('{"geoseg": "9.0.0", "protocol": 2}', "Protocol", "geoseg 9.0.0 speaks 2"),
        ('{"hello": 1}', "NotGeoseg", "was expected to hold geoseg"),
        ("[1]", "NotGeoseg", "was expected to hold geoseg"),
        ("hello", "Protocol", "JSON was expected from geoseg doctor; got 'hello"),
    ],
)
def test_an_engine_this_plugin_cannot_talk_to_is_named(tmp_path, record, kind, said):
    with pytest.raises(EngineError, match=said) as caught:
        check_engine(doctor_of(tmp_path, record))
    assert caught.value.kind == kind


def test_a_python_without_geoseg_is_named(tmp_path):
    with pytest.raises(EngineError, match="No module named geoseg.*Install engine") as caught:
        check_engine(Engine(str(make_environment(tmp_path / "bare")), "setting"))
    assert caught.value.kind == "NotGeoseg"


def test_a_file_that_is_no_program_is_named(tmp_path):
    with pytest.raises(EngineError, match="cannot be started: Permission denied"):
        check_engine(Engine(str(a_python(tmp_path)), "setting"))
    with pytest.raises(EngineError, match="cannot be started: No such file"):
        check_engine(Engine(str(tmp_path / "none"), "setting"))


def test_the_engine_is_asked_once_until_its_python_changes(tmp_path):
    asked = tmp_path / "asked"
    main = f"""
        open({str(asked)!r}, "a").write("x")
        print('{{"geoseg": "0.1.0", "protocol": 1}}')
    """
    python = fake_engine(tmp_path / "fake", main)
    engine = Engine(str(python), "setting")
    assert check_engine(engine) == check_engine(engine)
    assert asked.read_text() == "x"
    check_engine(engine, fresh=True)
    assert asked.read_text() == "xx"
    other = python.with_name("other")
    other.write_bytes(python.read_bytes())
    other.chmod(0o755)
    other.replace(python)
    check_engine(engine)
    assert asked.read_text() == "xxx"


def test_a_later_version_of_the_same_protocol_is_taken(tmp_path):
    engine = doctor_of(tmp_path, '{"geoseg": "0.2.0rc1", "protocol": 1, "new": {}}')
    assert check_engine(engine)["geoseg"] == "0.2.0rc1"


def test_a_silent_engine_is_named(tmp_path):
    python = fake_engine(tmp_path / "fake", "import time; time.sleep(60)")
    with pytest.raises(EngineError, match="within 1 s and did not") as caught:
        ask_engine(Engine(str(python), "setting"), "models", ["--json"], timeout_s=1.0)
    assert caught.value.kind == "Silent"


def test_a_refusal_of_a_question_is_the_engines_sentence(tmp_path):
    main = "import sys; sys.exit(print('geoseg: expects 4 bands.', file=sys.stderr) or 3)"
    python = fake_engine(tmp_path / "fake", main)
    with pytest.raises(EngineError, match=r"^expects 4 bands\.$") as caught:
        ask_engine(Engine(str(python), "setting"), "describe", ["a.tif", "--json"])
    assert caught.value.exit_code == 3


def test_doctor_is_told_in_words():
    record = {
        "geoseg": "0.1.0",
        "python": "3.12.1",
        "packages": {"torch": "2.15.0", "lightning": None, "onnxruntime": "1.22"},
        "gdal": "3.12.2",
        "proj": "9.8.1",
        "devices": {
            "cpu": {"name": "EPYC", "threads": 2},
            "cuda": {"usable": True, "reason": None, "names": ["H200"]},
            "mps": {"usable": False, "reason": "this machine has no MPS"},
        },
        "kernels": {"cpu": {"usable": True, "instruction_set": "x86-64-v4"}},
    }
    assert doctor_lines(record, "/x/python") == [
        "geoseg 0.1.0, Python 3.12.1: /x/python",
        "PyTorch 2.15.0, GDAL 3.12.2, PROJ 9.8.1",
        "CPU: EPYC, 2 threads",
        "CUDA: H200",
        "MPS: no (this machine has no MPS)",
        "Kernels: compiled, x86-64-v4",
        "Not possible with this engine: Teach a model (lightning is not installed)",
    ]


@pytest.mark.parametrize("record", [{}, {"devices": None, "packages": [], "kernels": 3}])
def test_a_doctor_that_says_little_is_told_too(record):
    assert len(doctor_lines(record, "/x/python")) == 8
