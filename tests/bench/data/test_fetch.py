"""`bench data check` and `bench data fetch`, against a server on this machine."""

import hashlib
import io
import json
import shutil
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import main
from bench.config import load_suite
from bench.data import shards
from bench.data.fetch import fetch
from bench.data.presence import files_needed, presence
from bench.errors import UsageError
from tests.bench.official import SIZE, write_official

CONTENT = bytes(range(256)) * 40


class _Handler(BaseHTTPRequestHandler):
    """Serves `files`; goes on where a client stopped, unless `whole`; promises more than it sends if `cut`."""

    files: dict[str, bytes]
    asked: list[tuple[str, str | None]]
    whole = False
    cut = 0
    length = ""

    def do_GET(self):
        kind = type(self)
        kind.asked.append((self.path, self.headers["Range"]))
        if self.path not in kind.files:
            return self.send_error(404)
        content, begin = kind.files[self.path], 0
        if self.headers["Range"] and not kind.whole:
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                return self.send_error(416)
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", kind.length or str(len(content) - begin))
        self.end_headers()
        return self.wfile.write(content[begin : len(content) - kind.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (_Handler,), {"files": {}, "asked": []})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    handler.url = f"http://127.0.0.1:{running.server_port}"
    yield handler
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(autouse=True)
def online(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def refused(action, *words) -> None:
    with pytest.raises(UsageError) as caught:
        action()
    for word in words:
        assert str(word) in str(caught.value)


def get(server, target: Path, name="/f.bin", **options) -> None:
    fetch(server.url + name, target, progress=False, **options)


def test_a_file_comes_whole_and_leaves_nothing_beside_it(server, tmp_path):
    server.files["/f.bin"] = CONTENT
    target = tmp_path / "deep" / "f.bin"
    get(server, target, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_what_was_cut_short_goes_on_where_it_stopped(server, tmp_path):
    server.files["/f.bin"], server.cut = CONTENT, 3000
    target = tmp_path / "f.bin"
    refused(lambda: get(server, target), server.url, "fetch again")
    assert not target.exists()
    kept = (tmp_path / "f.bin.part").stat().st_size
    assert kept == len(CONTENT) - 3000
    server.cut = 0
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [("/f.bin", None), ("/f.bin", f"bytes={kept}-")]


@pytest.mark.parametrize("part", [CONTENT[:100], CONTENT])
def test_a_server_that_cannot_go_on_and_a_part_that_is_whole(server, tmp_path, part):
    server.files["/f.bin"] = CONTENT
    server.whole = len(part) == 100
    (tmp_path / "f.bin.part").write_bytes(part)
    get(server, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == CONTENT


def test_another_digest_is_refused_and_not_kept(server, tmp_path):
    server.files["/f.bin"] = CONTENT
    refused(lambda: get(server, tmp_path / "f.bin", sha256="0" * 64), "SHA-256", "0" * 64, "fetch again")
    assert list(tmp_path.iterdir()) == []


def test_a_web_page_is_refused(server, tmp_path):
    server.files["/f.bin"] = b"<!DOCTYPE html><html>sign in</html>"
    refused(lambda: get(server, tmp_path / "f.bin"), "web page", "by hand")
    assert list(tmp_path.iterdir()) == []


def archive(**members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in members.items():
            packed.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def test_a_folder_and_a_file_come_out_of_an_archive(server, tmp_path):
    server.files["/i.zip"] = archive(val__1="one", val__2="two", readme="?")
    get(server, tmp_path / "set" / "val", "/i.zip")
    assert sorted(p.name for p in (tmp_path / "set" / "val").iterdir()) == ["1", "2"]
    server.files["/q.zip"] = archive(release__q="{}")
    get(server, tmp_path / "set" / "q", "/q.zip")
    assert (tmp_path / "set" / "q").read_text() == "{}"
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["q", "val"]


def test_archives_that_are_none_or_hold_other_things_are_named(server, tmp_path):
    server.files["/i.zip"] = b"PK but no archive"
    refused(lambda: get(server, tmp_path / "val", "/i.zip"), "not a whole zip archive", "fetch again")
    server.files["/i.zip"] = archive(other="1")
    refused(lambda: get(server, tmp_path / "val", "/i.zip"), "holds no val", "move what is right")


def test_an_archive_that_cannot_be_unpacked_is_named(server, tmp_path):
    locked = bytearray(archive(val__1="one"))
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(sign) + at] |= 1  # the flag that says: encrypted
    unknown = bytearray(archive(val__1="one"))
    for sign, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        unknown[unknown.index(sign) + at] = 77  # a way of packing that there is not
    for content in (locked, unknown):
        server.files["/i.zip"] = bytes(content)
        refused(lambda: get(server, tmp_path / "val", "/i.zip"), "/i.zip cannot be unpacked", "load it by hand")
        (tmp_path / "val.zip.part").unlink()


def test_nothing_leaves_the_folder_of_an_archive(server, tmp_path):
    server.files["/i.zip"] = archive(**{"..__..__secret": "1", "__etc__x": "1", "val__1": "one"})
    get(server, tmp_path / "set" / "val", "/i.zip")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert found == ["set", "set/val", "set/val/1"]


def test_a_length_that_is_no_number_is_left_alone(server, tmp_path):
    server.length = "many"
    server.files["/f.bin"] = b"content"
    get(server, tmp_path / "f.bin")
    assert (tmp_path / "f.bin").read_bytes() == b"content"


def test_a_server_that_refuses_or_is_not_there_is_named(server, tmp_path):
    refused(lambda: get(server, tmp_path / "f.bin"), "127.0.0.1", "404", "by hand")
    url = "http://127.0.0.1:9/f.bin"
    refused(lambda: fetch(url, tmp_path / "f.bin", progress=False), url, "needs the network", "copy the file")


@pytest.mark.parametrize("setting", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_mode_is_respected(server, tmp_path, monkeypatch, setting):
    server.files["/f.bin"] = CONTENT
    monkeypatch.setenv(setting, "1")
    refused(lambda: get(server, tmp_path / "f.bin"), setting, "unset it, or copy the file")
    assert server.asked == []


# What is there.


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("official") / "data")


def cli(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def test_what_is_there_is_ready(root):
    done = cli("check", "--data-root", root, "--dataset", "textvqa,coco,flickr30k,cifar10,coco-stealth")
    assert done.exit_code == 0
    for words in (
        f"textvqa: ready, {SIZE} samples",
        "present  flickr30k/dataset_flickr30k.json",
        "present  wds_vtab-cifar10/test/0.tar",
        "coco-stealth: ready, 150 samples",
    ):
        assert words in done.output


def test_what_is_missing_is_named_with_its_page(tmp_path):
    done = cli("check", "--data-root", tmp_path, "--dataset", "vizwiz,cars", "--json")
    assert done.exit_code == 1
    vizwiz, cars = json.loads(done.output)
    assert not vizwiz["ready"]
    assert [(one["place"], one["present"]) for one in vizwiz["needed"]] == [
        ("vizwiz/val_annotations_vqa_format.json", False),
        ("vizwiz/val_questions_vqa_format.json", False),
        ("vizwiz/val", False),
    ]
    assert {one["place"] for one in cars["needed"]} == {
        "wds_cars/classnames.txt",
        "wds_cars/test/nshards.txt",
        "wds_cars/test/0.tar",
    }
    assert all(one["page"].startswith("https://") for one in [*vizwiz["needed"], *cars["needed"]])


def test_every_file_of_the_paper_has_a_page(tmp_path):
    for name, row in load_suite("paper").datasets.items():
        for one in files_needed(name, row, tmp_path):
            assert one.page.startswith("https://"), f"{name}: {one.place}"
            assert one.url is None or one.url.startswith(("https://", "http://"))


def test_missing_images_and_damaged_files_are_faults(root, tmp_path):
    shutil.copytree(root / "vizwiz", tmp_path / "vizwiz")
    gone = next((tmp_path / "vizwiz" / "val").iterdir())
    gone.unlink()
    done = cli("check", "--data-root", tmp_path, "--dataset", "vizwiz")
    assert done.exit_code == 1
    assert f"1 of {SIZE} image files are missing, such as {gone}" in done.output
    (tmp_path / "vizwiz" / "val_questions_vqa_format.json").write_text("<html>")
    found = presence("vizwiz", load_suite("paper").datasets["vizwiz"], tmp_path)
    assert not found.ready
    assert "HTML" in found.faults[0]


def test_a_place_can_be_checked_and_an_unknown_name_is_refused(root):
    done = cli("check", "--data-root", root, "--dataset", "webdataset:wds_cars")
    assert (done.exit_code, "wds_cars: ready" in done.output) == (0, True)
    done = cli("check", "--data-root", root, "--dataset", "karpathy:flickr30k")
    assert (done.exit_code, f"flickr30k: ready, {SIZE} samples" in done.output) == (0, True), done.output
    done = cli("check", "--data-root", root, "--dataset", "vqa:textvqa")
    assert (done.exit_code, f"textvqa: ready, {SIZE} samples" in done.output) == (0, True), done.output
    done = cli("check", "--data-root", root, "--dataset", "textvqaa")
    assert (done.exit_code, "did you mean 'textvqa'?" in done.output) == (2, True)


def test_a_place_is_checked_without_a_data_root_and_a_name_is_not(root):
    done = cli("check", "--dataset", f"vqa:{root / 'textvqa'}")
    assert (done.exit_code, f"textvqa: ready, {SIZE} samples" in done.output) == (0, True), done.output
    done = cli("check", "--dataset", "textvqa")
    assert (done.exit_code, "say where the files of 'textvqa' lie: --data-root DIR" in done.output) == (2, True)


def test_a_check_says_what_to_know_of_a_dataset(root, tmp_path):
    shutil.copytree(root / "textvqa", tmp_path / "few")
    path = tmp_path / "few" / "val_annotations_vqa_format.json"
    content = json.loads(path.read_text())
    content["annotations"] = [{**entry, "answers": entry["answers"][:2]} for entry in content["annotations"]]
    path.write_text(json.dumps(content))
    done = cli("check", "--dataset", f"vqa:{tmp_path / 'few'}")
    assert (done.exit_code, "cannot exceed 33.3 %" in done.output) == (0, True), done.output


def test_a_table_that_is_neither_here_nor_in_the_cache_is_a_fault(tmp_path):
    done = cli("check", "--data-root", tmp_path, "--dataset", "hf:someone/absent")
    assert done.exit_code == 1
    assert "hf download --repo-type dataset" in done.output


def test_fetching_puts_every_file_where_the_suite_looks(root, server, tmp_path, monkeypatch):
    """A tar set, whose number of shards is known only once its first files are there."""
    folder = root / "wds_vtab-cifar10"
    monkeypatch.setattr(shards, "_HUB", server.url)
    for file in folder.rglob("*"):
        if file.is_file():
            name = file.relative_to(folder).as_posix()
            server.files[f"/wds_vtab-cifar10/resolve/main/{name}"] = file.read_bytes()
    server.files["/wds_vtab-cifar10/resolve/main/test/nshards.txt"] = b"2\n"
    server.files["/wds_vtab-cifar10/resolve/main/test/1.tar"] = bytes(1024)
    done = cli("fetch", "--data-root", tmp_path, "--dataset", "cifar10", "--quiet")
    assert done.exit_code == 0
    found = presence("cifar10", load_suite("paper").datasets["cifar10"], tmp_path)
    assert (found.ready, found.samples) == (True, SIZE)
    asked = len(server.asked)
    assert cli("fetch", "--data-root", tmp_path, "--dataset", "cifar10", "--quiet").output == ""
    assert len(server.asked) == asked


def test_what_cannot_be_fetched_is_left_to_hands(root, tmp_path):
    shutil.copytree(root / "flickr30k", tmp_path / "flickr30k")
    shutil.rmtree(tmp_path / "flickr30k" / "flickr30k-images")
    done = cli("fetch", "--data-root", tmp_path, "--dataset", "flickr30k", "--quiet")
    assert done.exit_code == 1
    assert "flickr30k-images there by hand; https://" in done.output
