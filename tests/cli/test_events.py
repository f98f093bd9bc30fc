"""What commands say while they work, apart from any one command."""

import pytest

from geoseg.cli.events import one_voice
from geoseg.errors import InputError, InterruptedRunError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("no labels"), 1, "geoseg: no labels (said by one of several processes)\n"),
        (InterruptedRunError("stopped"), 130, ""),
    ],
)
def test_of_several_processes_the_first_alone_sends_events(capsys, error, code, said):
    with pytest.raises(type(error)), one_voice(first=True):
        raise error
    with pytest.raises(SystemExit) as ended, one_voice(first=False):
        raise error
    assert ended.value.code == code
    heard = capsys.readouterr()
    assert (heard.out, heard.err) == ("", said)
