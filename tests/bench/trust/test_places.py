"""No name that is read leaves its folder, no link inside a run is followed, and every text has a safe name."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.trust import places


@pytest.mark.parametrize("name", ["a.jpg", "val2014/a.jpg", "./a.jpg", "a..b/..c", "C:\\x", "é/ü.png", "a//b"])
def test_a_name_inside_is_joined_to_its_folder(tmp_path, name):
    found = places.inside(tmp_path, name, "captions.json, row 7: filename")
    assert found == tmp_path / name
    assert tmp_path in found.resolve().parents


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("../a.jpg", "leaves"),
        ("a/../../b.jpg", "leaves"),
        ("a/..", "leaves"),
        ("", "no file's name"),
        (".", "no file's name"),
        ("a\0b", "no file's name"),
        ("x" * 256, "no file's name"),
        ("a/" + "é" * 128, "no file's name"),
        ("\ud800", "no file's name"),
    ],
)
def test_a_name_that_leads_outside_or_to_no_file_is_refused_naming_where_it_was_read(tmp_path, name, reason):
    with pytest.raises(UsageError, match=f"captions.json, row 7: filename .*{reason}"):
        places.inside(tmp_path, name, "captions.json, row 7: filename")


@given(st.text(max_size=40))
def test_whatever_the_name_it_is_inside_or_refused(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp()
    try:
        found = places.inside(root, name, "name")
    except UsageError:
        return
    assert root.resolve() in found.resolve().parents
    found.exists()  # raises for no name at all


def test_links_of_the_owner_on_the_way_to_a_folder_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "elsewhere")
    assert places.inside(tmp_path / "data", "a.jpg", "name") == tmp_path / "data" / "a.jpg"
    run = tmp_path / "data"
    assert places.no_links(run / "adversarial" / "2" / "a.png", run) == run / "adversarial" / "2" / "a.png"


@pytest.mark.parametrize("place", ["adversarial", "adversarial/2", "adversarial/2/a.png"])
def test_a_link_anywhere_inside_a_run_is_named_and_refused(tmp_path, place):
    run = tmp_path / "run"
    (run / place).parent.mkdir(parents=True)
    (run / place).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=f"{run / place} is a link to .*nowhere"):
        places.no_links(run / "adversarial" / "2" / "a.png", run)


def test_a_link_outside_what_is_looked_at_is_none_of_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert places.no_links(tmp_path / "link" / "lock") == tmp_path / "link" / "lock"
    with pytest.raises(UsageError, match="is a link"):
        places.no_links(tmp_path / "link")


@given(st.text(max_size=300))
def test_any_text_has_a_safe_name(tmp_path_factory, text):
    name = places.safe_name(text)
    assert places.inside(tmp_path_factory.getbasetemp(), name, "name").parent == tmp_path_factory.getbasetemp()
    assert name.replace("-", "").replace("_", "").isalnum()
    assert len(f"{name}.safetensors".encode()) <= 255


def test_the_digest_of_another_text_is_not_taken_for_a_name():
    digest = sha256(b"a/b").hexdigest()
    assert places.safe_name("a/b") == digest
    assert places.safe_name(digest) != digest
    assert places.safe_name("s0000003") == "s0000003"
