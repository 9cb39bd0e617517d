"""The report's files: whole, self-contained, linked, escaped."""

import re
import resource
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import msgspec
import pytest
from click.testing import CliRunner
from PIL import Image

from bench.analysis.cells import measured
from bench.cli import main
from bench.config.facts import SUITE_FACTS
from bench.errors import UsageError
from bench.records import Record, Run, load_runs
from bench.records.samples import read_samples
from bench.report import attacks, charts, gallery
from bench.report.chapters import columns
from bench.report.pages import write_report
from bench.verify import models_of
from tests.bench.report.site import SCRIPT, Page, make_site
from tests.bench.runs import make_header, make_record, make_run


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def pages(site):
    return {path.resolve(): Page(path) for path in [site, *sorted((site.parent / "runs").glob("*.html"))]}


def test_there_is_a_page_per_run(pages):
    assert len(pages) == 1 + 5


def test_every_link_leads_somewhere_inside_the_report(pages):
    for path, page in pages.items():
        assert len(set(page.ids)) == len(page.ids)
        for link in page.links:
            parts = urlsplit(link)
            assert (parts.scheme, parts.netloc) == ("", ""), link
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target in pages, link
            if parts.fragment:
                assert unquote(parts.fragment) in pages[target].ids, link


def test_nothing_is_fetched_from_elsewhere(site, pages):
    for path, page in pages.items():
        for source in page.sources:
            assert Image.open(path.parent / source).size == (48, 48)
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", text)
        assert "@import" not in text
        assert "default-src 'none'" in text


def test_every_number_of_a_table_links_to_its_records(pages, site):
    numbers = pages[site.resolve()].numbers
    assert len(numbers) > 20
    tables = site.read_text().split('<table class="runs">')[0]
    cells = re.findall(r'<td class="number(?! absent)[^"]*"[^>]*>(.*?)</td>', tables, flags=re.DOTALL)
    without = [cell for cell in cells if "<a href=" not in cell]
    assert all(re.fullmatch(r"\d+(-\d+)?", cell.strip()) for cell in without)  # only sample counts


def test_texts_are_escaped(site, pages):
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert text.count("<script>") == 1  # the page's own
        assert "<img src=x" not in text
    assert SCRIPT.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in site.read_text()


def test_the_gallery_holds_what_was_kept(site):
    text = site.read_text()
    assert text.count('class="card"') == 12
    (run,) = [r for r in load_runs([site.parent.parent / "runs"]) if gallery.has_images(r)]
    chosen = gallery.choose(run, 12)
    assert {one.outcome for one in chosen} >= {"broken at 2/255", "robust"}
    first = [one for one in gallery.choose(run, 100) if one.outcome == "broken at 2/255"]
    broken = [one for one in chosen if one.outcome == "broken at 2/255"]
    assert broken == first[: len(broken)]
    assert len(list((site.parent / "images").glob("*.png"))) == sum(3 if one.kept else 1 for one in chosen)


def test_the_perturbation_is_magnified_to_the_full_range(site):
    changed = list((site.parent / "images").glob("*-perturbation.png"))
    assert changed
    for path in changed:
        low, high = zip(*Image.open(path).getextrema(), strict=True)
        assert min(low) == 0 or max(high) == 255
        clean, moved = (Image.open(str(path).replace("perturbation", kind)) for kind in ("clean", "adversarial"))
        differences = [abs(a - b) for a, b in zip(clean.tobytes(), moved.tobytes(), strict=True)]
        assert 0 < max(differences) <= 5  # 4/255, and rounding to 8 bits


def test_provenance_is_at_the_foot(site):
    (run,) = [r for r in load_runs([site.parent.parent / "runs"]) if gallery.has_images(r)]
    page = next((site.parent / "runs").glob("clip_mini-sketch*")).read_text()
    foot = page[page.index("<footer>") :]
    header = run.header
    for fact in (header.dataset_fingerprint, header.weights["encoder"], header.packages["torch"], header.started):
        assert fact in foot
    assert "Partial: --limit 14" in page


def test_a_report_without_images_says_how_to_get_them(tmp_path):
    run = make_run(tmp_path / "run", {0: [100.0], 4: [0.0]})
    text = write_report([run], tmp_path / "report", facts=SUITE_FACTS, progress=False).read_text()
    assert "bench run … --save-adversarial" in text
    assert 'class="card"' not in text


def test_runs_without_clean_images_are_shown_and_said_so(site, tmp_path):
    source = next(run.directory for run in load_runs([site.parent.parent / "runs"]) if gallery.has_images(run))
    run = shutil.copytree(source, tmp_path / "run")
    shutil.rmtree(run / "adversarial" / "0")
    text = write_report(load_runs([run]), tmp_path / "report", facts=SUITE_FACTS, progress=False).read_text()
    assert "kept no clean images" in text
    assert text.count('class="card"') == 12
    assert "-adversarial.png" in text
    assert "-clean.png" not in text


def test_a_damaged_image_is_named_and_the_rest_is_shown(site, tmp_path):
    source = next(run.directory for run in load_runs([site.parent.parent / "runs"]) if gallery.has_images(run))
    run = shutil.copytree(source, tmp_path / "run")
    damaged = next((run / "adversarial" / "2").glob("*.safetensors"))
    damaged.write_bytes(b"no tensor")
    whole = make_run(tmp_path / "whole", {0: [100.0], 4: [0.0]})
    text = write_report([*load_runs([run]), whole], tmp_path / "report", facts=SUITE_FACTS, progress=False).read_text()
    assert f"{damaged} is no image that a run saved" in text
    assert "fare4" in text


def test_no_dataset_model_or_torch_is_needed(site, tmp_path):
    """The report of a copied run, in a process that cannot import them."""
    source = next(run.directory for run in load_runs([site.parent.parent / "runs"]) if gallery.has_images(run))
    shutil.copytree(source, tmp_path / "run")
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'bench.running', 'bench.verify'):\n"
        "    sys.modules[name] = None\n"
        "from bench.cli import main\n"
        f"main(['report', {str(tmp_path / 'run')!r}, '-o', {str(tmp_path / 'report')!r}, '--quiet'])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "report" / "index.html").read_text().count('class="card"') == 12


def test_the_run_page_shows_what_was_asked_and_expected(site):
    page = next((site.parent / "runs").glob("clip_mini-sketch*")).read_text()
    (run,) = [r for r in load_runs([site.parent.parent / "runs"]) if gallery.has_images(r)]
    asked = read_samples(run.directory)
    assert len(asked) == 14
    assert page.count('class="asked"') == 14
    for one in asked.values():
        assert f"expected: {one.references[0]}" in page


def test_distances_have_their_unit(tmp_path):
    runs = [
        make_run(tmp_path / "linf", {0: [100.0], 4: [0.0]}),
        make_run(tmp_path / "l2", {0: [1.0], 0.5: [0.0]}, norm="l2"),
    ]
    write_report(runs, tmp_path / "report", facts=SUITE_FACTS, progress=False)
    pages = {path.name.split("-")[0]: path.read_text() for path in (tmp_path / "report" / "runs").iterdir()}
    assert "distance 4/255" in pages["linf"]
    assert "distance 0.5 (l2)" in pages["l2"]


@pytest.mark.parametrize("name", [r"$\frac$ $x^$", "caf\udce9", "\x1b]0;title\x07", "a/b#c?d", "\u202egnp"])
def test_any_sample_id_and_encoder_can_be_reported(tmp_path, name):
    """A file's name need not be UTF-8: a byte that is not stands as a lone surrogate."""
    run = make_run(tmp_path / "run", {0: [100.0], 4: [0.0]})
    records = [Record(**{**msgspec.structs.asdict(r), "sample_id": name, "prediction": name}) for r in run.records]
    checks = [{"name": name, "ok": False, "detail": name}]
    header = replace(run.header, encoder=name, dataset=name, metric=name, checks=checks)
    run = Run(run.directory, header, records)
    first = write_report([run], tmp_path / "report", facts=SUITE_FACTS, progress=False)
    for path in (first, *(first.parent / "runs").iterdir()):
        text = path.read_bytes().decode("utf-8")
        assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"]


def test_a_chart_by_itself_has_its_numbers_beside_it(tmp_path):
    run = make_run(tmp_path / "run", {0: [100.0], 4: [0.0]})
    text = write_report([run], tmp_path / "report", facts=SUITE_FACTS, progress=False).read_text()
    assert text.count("--columns: 1") == text.count('class="panel said"') > 1
    assert "100.0 clean, 0.0 at 4/255" in text


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (7, 4), (8, 4), (9, 3)])
def test_rows_of_charts_leave_little_empty(count, wanted):
    assert columns(count) == wanted


def test_two_runs_of_one_encoder_have_a_chart_each(tmp_path):
    runs = [make_run(tmp_path / str(seed), {0: [100.0], 4: [0.0]}, seed=seed) for seed in (0, 1)]
    text = write_report(runs, tmp_path / "report", facts=SUITE_FACTS, progress=False).read_text()
    assert "<strong>vqa, mini-vqa, 0</strong>" in text
    assert "<strong>vqa, mini-vqa, 1</strong>" in text


def test_a_failed_sanity_check_is_marked_on_both_pages(tmp_path):
    doubt = {"name": "attack_moves_images", "ok": False, "detail": "0 of 1"}
    run = make_run(tmp_path / "run", {0: [100.0], 4: [0.0]}, checks=[doubt])
    first = write_report([run], tmp_path / "report", facts=SUITE_FACTS, progress=False)
    for path in (first, *(first.parent / "runs").iterdir()):
        text = path.read_text()
        assert "!: not credible, these sanity checks failed: attack_moves_images" in text
        assert "100.0!" in text


def test_runs_of_two_protocols_stand_apart(tmp_path):
    runs = [
        make_run(tmp_path / name, {0: [100.0] * 4, 4: [value] * 4}, protocol={"name": name})
        for name, value in (("strict", 25.0), ("paper", 75.0))
    ]
    text = write_report(runs, tmp_path / "report", facts=SUITE_FACTS, progress=False).read_text()
    assert "protocol strict, linf" in text
    assert "protocol paper, linf" in text


def test_an_unattacked_run_can_be_reported(tmp_path):
    run = make_run(tmp_path / "run", {0: [100.0, 0.0]}, attack="none")
    text = write_report([run], tmp_path / "report", facts=SUITE_FACTS, progress=False).read_text()
    assert "These runs hold no attacks" in text


def test_only_a_report_is_written_over(tmp_path):
    run = make_run(tmp_path / "run", {0: [100.0], 4: [0.0]})
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="something other than a report"):
        write_report([run], tmp_path / "report", facts=SUITE_FACTS, progress=False)
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["thesis.tex"]
    first = write_report([run], tmp_path / "again", facts=SUITE_FACTS, progress=False).read_text()
    assert (
        write_report([run], tmp_path / "again", facts=SUITE_FACTS, progress=False).read_text() == first
    )  # equal bytes, too
    result = CliRunner().invoke(main, ["report", str(run.directory), "-o", str(tmp_path / "report")])
    assert result.exit_code == 2
    assert "something other than a report" in result.output


def test_a_full_disk_is_named(tmp_path):
    run = make_run(tmp_path / "run", {0: [100.0], 4: [0.0]})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # bytes of a file
    try:
        result = CliRunner().invoke(main, ["report", str(run.directory), "-o", str(tmp_path / "report")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 2
    assert f"cannot write {tmp_path / 'report' / 'runs' / 'run-'}" in result.output
    assert "File too large" in result.output


def test_charts_take_their_colours_from_the_page_and_link_their_points(tmp_path):
    run = make_run(tmp_path / "run", {0: [100.0] * 4, 4: [100.0, 0.0, 0.0, 0.0]})
    found = measured([run])
    svg = charts.curves(found, {"fare4": 3}, lambda m: f"there#{m.radius:g}", "one")
    assert "var(--series-3)" in svg
    assert not re.search(r"#fe0[0-9a-f]{3}", svg)
    assert re.findall(r'<a href="([^"]+)" tabindex="-1"><title>([^<]+)', svg) == [
        ("there#0", "fare4, clean: 100.0 [51.0, 100.0], n = 4"),
        ("there#4", "fare4, 4/255: 25.0 [4.6, 69.9], n = 4"),
    ]
    assert "http" not in svg
    other = charts.curves(found, {"fare4": 3}, lambda m: "x", "two")
    ids = [set(re.findall(r'\bid="([^"]+)"', drawn)) for drawn in (svg, other)]
    assert not ids[0] & ids[1]


def test_the_loss_curve_of_attacks_is_what_is_recorded(tmp_path):
    records = [make_record(f"s{i}") for i in range(3)]
    records += [make_record("s0", "a", 4.0, 0.0, evaluations=7), make_record("s1", "a", 4.0, 100.0, evaluations=100)]
    records += [make_record("s2", "a", 2.0, 0.0, evaluations=1), make_record("s1", "b", 4.0, 0.0, evaluations=5)]
    run = Run(tmp_path, make_header(), [*records, make_record("s3", "a", 4.0, None, error="no", evaluations=9)])
    summaries = {run.directory: attacks.summary(run)}
    spent, most = attacks.spent_gradients(summaries, measured([run]), {"fare4": 4})
    assert spent == {"fare4": [7, 105]}
    assert most == {"fare4": 105}
    svg = charts.robust_share({"fare4": [7, 105, float("inf")]}, most, {"fare4": 4}, "n")
    assert "var(--series-4)" in svg


def test_loss_curves_hold_the_loss_of_who_has_left_and_end_at_the_last_image(tmp_path):
    records = [make_record(f"s{i}") for i in range(4)] + [
        make_record("s0", "a", 4.0, 0.0, evaluations=1, loss=3.0, loss_curve=(1.0, 3.0)),
        make_record("s1", "a", 4.0, 100.0, evaluations=6, loss=5.0, loss_curve=(1.0, 1.0, 4.0)),
        make_record("s2", "a", 4.0, 0.0, evaluations=0, loss=0.5, loss_curve=(2.0,)),  # fooled by a start of lower loss
        make_record("s3", "a", 4.0, None, error="no", evaluations=9),
        make_record("s1", "b", 4.0, 0.0, evaluations=50, loss=9.0, loss_curve=(9.0,)),  # another step
        make_record("s1", "a", 2.0, 100.0, evaluations=6, loss=8.0, loss_curve=(8.0,)),  # a smaller radius
    ]
    run = Run(tmp_path, make_header(), records)
    found = attacks.loss_curves({run.directory: attacks.summary(run)}, measured([run]), {"fare4": 4})
    assert found == {"fare4": ([1, 2, 4, 7], [4 / 3, 2, 3, 10 / 3])}
    unwatched = attacks.summary(Run(tmp_path, make_header(), records[:4]))
    assert attacks.loss_curves({run.directory: unwatched}, measured([run]), {"fare4": 4}) == {}
    assert "var(--series-4)" in charts.loss_curves(found, {"fare4": 4}, "n")


def test_a_report_shows_loss_curves_where_runs_recorded_them(site, tmp_path):
    assert "first step at 4/255" in site.read_text()
    run = make_run(tmp_path / "run", {0: [100.0], 4: [0.0]})
    text = write_report([run], tmp_path / "report", facts=SUITE_FACTS, progress=False).read_text()
    assert "before loss curves were recorded" in text


def test_where_the_data_lay_is_taken_from_the_run(tmp_path):
    header = make_header(config={"data_root": str(tmp_path), "arch": "ViT-L-14"}, limit=30, n_samples=30)
    config = models_of(header)
    assert (config.data_root, config.arch, config.n_samples, config.attack) == (tmp_path, "ViT-L-14", 30, "none")
    assert models_of(header, data_root=tmp_path / "moved").data_root == tmp_path / "moved"
    assert models_of(make_header()).data_root is None
