"""What a wrong file is refused with: one line, without NumPy's advice to unpickle it."""

import pytest

from fisherexp.data.errors import DataError
from fisherexp.data.tracks import read_tracks
from fisherexp.data.transport import read_instance
from fisherexp.data.unpaired import read_unpaired
from fisherexp.problems.directions import DirectionFile


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_instance(path, 1.0),
        read_tracks,
        read_unpaired,
        lambda path: DirectionFile(str(path)).load(0),
    ],
)
def test_a_file_of_another_kind_is_no_reason_to_unpickle_it(read, tmp_path):
    (tmp_path / "wrong.npz").write_bytes(b"neither zip nor array")
    with pytest.raises(DataError, match="it holds no plain arrays") as refused:
        read(tmp_path / "wrong.npz")
    assert "pickle" not in str(refused.value)
    assert "\n" not in str(refused.value)
