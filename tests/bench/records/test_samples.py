"""What a run asked, as it lies on disk."""

import pytest

from bench.records import RecordsError
from bench.records.samples import FILE, Asked, read_samples, write_samples

ASKED = [
    Asked("q1", "What is\u2028it?", ("a bar", "a b\u00e4r"), captions=("a b\u00e4r here",)),
    Asked("caf\udce9", "", ()),
]


def test_what_is_written_is_read_and_never_replaced(tmp_path):
    assert read_samples(tmp_path) == {}
    write_samples(tmp_path, ASKED)
    assert read_samples(tmp_path) == {asked.id: asked for asked in ASKED}
    write_samples(tmp_path, ASKED[:1])
    assert len(read_samples(tmp_path)) == 2


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"id": 1, "prompt": "", "references": []}', b'{"id": "a", "prompt": ""}', b"\xff"]
)
def test_a_damaged_line_is_named(tmp_path, line):
    write_samples(tmp_path, ASKED)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes() + line + b"\n")
    with pytest.raises(RecordsError, match=rf"{FILE}, line 3: .*delete the file"):
        read_samples(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_no_link_is_followed(tmp_path, there):
    run, target = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    if there:
        target.write_text("")
    (run / FILE).symlink_to(target)
    with pytest.raises(RecordsError, match=f"{FILE} is a link"):
        write_samples(run, ASKED)
    assert target.exists() == there
    if there:
        with pytest.raises(RecordsError, match=f"{FILE}.*link"):
            read_samples(run)
