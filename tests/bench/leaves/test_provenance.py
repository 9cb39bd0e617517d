"""The state of the code: what its digest sees, and what makes it dirty."""

import pathlib
import subprocess

from bench.provenance import SOURCES, code_state, source_digest

ROOT = pathlib.Path(__file__).parents[3]


def test_the_code_digest_sees_contents_names_and_new_files_and_nothing_else(tmp_path):
    for package in SOURCES:
        (tmp_path / package / "deep").mkdir(parents=True)
        (tmp_path / package / "deep" / "a.py").write_text("1")
    digests = [source_digest(tmp_path)]
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "bench" / "data.bin").write_text("x")
    assert source_digest(tmp_path) == digests[0]
    for path, text in (("tasks/deep/a.py", "2"), ("bench/b.py", ""), ("bench/suite.toml", "x = 1")):
        (tmp_path / path).write_text(text)
        digests.append(source_digest(tmp_path))
    (tmp_path / "bench/b.py").rename(tmp_path / "bench/c.py")
    digests.append(source_digest(tmp_path))
    assert len(set(digests)) == len(digests)
    assert code_state()["source"] == source_digest(ROOT)


def test_results_in_a_checkout_do_not_make_its_code_dirty(tmp_path, monkeypatch):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "a.py").write_text("")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr("bench.provenance.ROOT", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "records.jsonl").write_text("{}")
    assert code_state.__wrapped__()["dirty"] is False
    (tmp_path / "bench" / "b.py").write_text("")
    assert code_state.__wrapped__()["dirty"] is True
