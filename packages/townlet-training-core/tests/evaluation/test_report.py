"""The report: one file, everything in it, nothing outside it."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from townlet_training_core.cli.app import app
from townlet_training_core.config.models import KpiGuardrail, PromotionConfig, TrainingConfig
from townlet_training_core.dto.evaluation import EvaluationSuite, IntervalDTO
from townlet_training_core.dto.release import LegacyFlags, LookRecord
from townlet_training_core.errors import ArtifactError, ConfigurationError
from townlet_training_core.evaluation import compare_paired, evaluate_policy
from townlet_training_core.evaluation.report import gather, render, write_report
from townlet_training_core.evaluation.report.charts import MAX_POINTS, interval_chart, line_chart, number
from townlet_training_core.promotion.gate import check_forgetting, judge
from townlet_training_core.runs import RunDirectory

MakeRun = Callable[..., RunDirectory]


@pytest.fixture
def make_run(tmp_path: Path, fake_town: Any, dial_policy: Any) -> MakeRun:
    """Make run directories as a training leaves them."""

    def make(name: str = "one", *, epochs: int = 200, seed: int = 0, empty: bool = False) -> RunDirectory:
        run = RunDirectory.create(tmp_path / "runs", run_id=name)
        config = TrainingConfig(seed=seed).model_dump(mode="json")
        described = {"request": {"init_from": None, "mode": "rollout"}, "packages": {"numpy": "2.0"}}
        run.write_manifest({"status": "done", "strategy": "anneal", "seed": seed, "config": config, **described})
        run.close()
        if empty:
            return run
        rng = np.random.default_rng(seed)
        names = ("loss_policy", "loss_value", "loss_entropy", "loss_total", "kl_divergence", "clip_fraction", "lr")
        with run.telemetry.open("w") as log:
            for epoch in range(1, 11):
                numbers = {"loss": 2 / epoch, "val_loss": 2.1 / epoch, "val_accuracy": 1 - 0.5 / epoch}
                log.write(json.dumps({"kind": "bc.epoch", "stage": "00-bc", "epoch": epoch, **numbers}) + "\n")
            for epoch in range(1, epochs + 1):
                numbers = dict(zip(names, rng.random(len(names)).tolist(), strict=True))
                numbers |= {"episode_return": math.log(epoch), "chat_success_events": float(epoch % 9)}
                stage = "01-ppo" if epoch <= epochs // 2 else "02-ppo"
                record: dict[str, Any] = {"kind": "ppo.iteration", "stage": stage, "epoch": epoch, **numbers}
                if epoch == 7:
                    record["episode_return"] = "NaN"  # as the log writes what JSON has no word for
                log.write(json.dumps(record) + "\n")
        suite = EvaluationSuite(simulation="fake", seeds=tuple(range(40, 56)))
        town = fake_town(num_envs=16, noise=1.0)
        played = {
            label: evaluate_policy(town, dial_policy(odds), suite=suite, label=label)
            for label, odds in {"final": [0.1, 0.2, 0.7], "random": [1 / 3] * 3, "expert": [0.2, 0.2, 0.6]}.items()
        }
        for label, result in played.items():
            run.write_result(f"evaluation/{label}", result.model_dump(mode="json"))
        comparisons = [compare_paired(played["final"], played[other]) for other in ("random", "expert")]
        run.write_result("scoreboard", {"comparisons": [item.model_dump(mode="json") for item in comparisons]})
        stages = [
            {"cycle": 0, "mode": "bc", "accuracy": 0.93, "threshold": 0.9, "passed": True, "loss": 0.2},
            {"cycle": 1, "mode": "ppo", "loss_total": 0.1, "bc_weight": 0.5, "anneal_loss_flag": True},
            {"cycle": 2, "mode": "ppo", "loss_total": 0.3, "bc_weight": 0.0, "rolled_back": True},
        ]
        run.write_result(
            "comparisons/01-ppo", comparisons[0].model_copy(update={"baseline": "start"}).model_dump(mode="json")
        )
        (run.results / "anneal_results.json").write_text(json.dumps(stages))
        run.write_result("anneal", {"stages": stages, "status": "HOLD"})
        actions = {name: {"precision": 1.0} for name in ("rest", "work")}
        confusion = {"accuracy": 0.9, "samples": 20, "actions": actions, "confusion": [[9, 0, 1], [0, 0, 0], [1, 0, 9]]}
        run.write_result("bc-report-00-bc", confusion)
        look = LookRecord(look=3, candidate_hash="x", level=0.05, first_seed=40, episodes=16)
        kpis = (KpiGuardrail(kpi="attendance", direction="higher_is_better", margin=0.05),)
        verdict = judge(
            [(played["final"], played["random"])],
            config=PromotionConfig(kpis=kpis),
            look=look,
            legacy=LegacyFlags(loss_flag=True),
            forgetting=check_forgetting([("d" * 64, played["final"], played["expert"])]),
        )
        (tmp_path / f"verdict-{name}.json").write_text(verdict.model_dump_json())
        run.write_result("promotion", json.loads(verdict.model_dump_json()))
        return run

    return make


class Outline(HTMLParser):
    """Checks that tags are balanced and collects what matters."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_everything_is_in_one_file_and_nothing_outside_it(make_run: MakeRun, tmp_path: Path) -> None:
    target = write_report([make_run()], tmp_path / "deep" / "report.html")
    text = target.read_text(encoding="utf-8")
    outline = Outline(text)
    assert target.stat().st_size < 3_000_000
    assert not outline.all("script")
    assert not outline.all("img")
    references = [value for _, attrs in outline.tags for name, value in attrs.items() if name in ("href", "src")]
    assert all(value in ("data:,",) or (value or "").startswith("#") for value in references)
    assert "url(" not in text
    assert "@import" not in text
    for section in ("What was run", "Learning", "Losses", "Health of the training", "Evaluation", "Events",
                    "Behaviour cloning", "Anneal stages", "Promotion", "All numbers"):  # fmt: skip
        assert f">{section}</h2>" in text


def test_the_document_can_be_read_by_keyboard_and_by_ear(make_run: MakeRun) -> None:
    outline = Outline(render([gather(make_run())], written="today"))
    assert outline.all("html") == [{"lang": "en"}]
    assert len(outline.ids) == len(set(outline.ids))
    assert {(attrs["href"] or "")[1:] for attrs in outline.all("a")} <= set(outline.ids)
    drawings = [attrs for attrs in outline.all("svg") if attrs.get("aria-hidden") != "true"]
    assert len(drawings) > 10
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    assert len(outline.all("caption")) == len(outline.all("table"))
    scrolling = [attrs for attrs in outline.all("div") if attrs.get("class") == "scroll"]
    assert all(attrs["tabindex"] == "0" and attrs["role"] == "group" for attrs in scrolling)
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert all(attrs.get("scope") in ("col", "row") for attrs in outline.all("th"))


def test_the_numbers_are_those_of_the_run(make_run: MakeRun) -> None:
    record = gather(make_run())
    text = render([record], written="today")
    final = next(result for result in record.evaluations if result.label == "final")
    assert [result.label for result in record.evaluations] == ["random", "expert", "final"]
    assert f'<td class="n">{number(final.summary.mean.estimate)}</td>' in text
    assert "final minus random" in text
    assert "final minus start" in text
    assert '<th scope="row">request.mode</th><td>rollout</td>' in text
    assert '<th scope="row">numpy</th><td>2.0</td>' in text
    assert "request.init_from" not in text
    assert "anneal: HOLD" not in text
    assert "one: HOLD" in text
    assert "rolled back" in text
    assert "0.93 of 0.9" in text
    assert '<td class="heat" style="--share:0.900">9</td>' in text
    assert "Held-out accuracy 90.00% of 20 decisions." in text
    assert "legacy flags alone would have said HOLD" in text
    assert '<th scope="col">work</th>' in text
    assert len(record.series["ppo.iteration"]) == 200
    assert math.isnan(record.series["ppo.iteration"].columns["episode_return"][6])


def test_equal_runs_give_equal_bytes(make_run: MakeRun) -> None:
    record = gather(make_run())
    assert render([record], written="today") == render([record], written="today")


def test_runs_stand_side_by_side(make_run: MakeRun) -> None:
    text = render([gather(make_run("one")), gather(make_run("two", seed=5))], written="today")
    Outline(text)
    assert "final (one)" in text
    assert "final (two)" in text
    assert "Where the configurations differ" in text
    assert '<ul class="legend"' in text
    same = render([gather(make_run("three")), gather(make_run("four"))], written="today")
    assert "The configurations are the same." in same


def test_a_run_that_only_began_has_a_short_report(make_run: MakeRun) -> None:
    text = render([gather(make_run(empty=True))], written="today")
    Outline(text)
    assert "What was run" in text
    assert ">Evaluation</h2>" not in text


def test_a_folder_of_results_has_a_report(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run().results / "evaluation"
    verdict = tmp_path / "verdict-one.json"
    done = CliRunner().invoke(app, ["report", str(folder), "--verdict", str(verdict)])
    assert done.exit_code == 0, done.output
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert ">Evaluation</h2>" in text
    assert ">Promotion</h2>" in text
    assert ">What was run</h2>" not in text
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.json").write_text("{}")
    refused = CliRunner().invoke(app, ["report", str(tmp_path / "other")])
    assert refused.exit_code == 2
    assert "neither a run directory nor a folder" in refused.output


def test_names_cannot_inject_anything(make_run: MakeRun) -> None:
    run = make_run(empty=True)
    run.write_manifest({"strategy": "<script>alert(1)</script>", "config": {"x": "</pre><img src=x>"}})
    text = render([gather(run)], written="<b>")
    assert not {"script", "img", "b"} & {tag for tag, _ in Outline(text).tags}


def test_a_resumed_epoch_counts_once(make_run: MakeRun) -> None:
    run = make_run(epochs=4)
    with run.telemetry.open("a") as log:
        log.write(json.dumps({"kind": "ppo.iteration", "stage": "02-ppo", "epoch": 4, "loss_total": 77.0}) + "\n")
    series = gather(run).series["ppo.iteration"]
    assert len(series) == 4
    assert series.columns["loss_total"][-1] == 77.0


@pytest.mark.parametrize("name", ["broken", "evaluation/broken"])
@pytest.mark.parametrize("text", ["{", "3", '{"confusion": [[1]]}', '{"policy_hash": "", "returns": []}'])
def test_corrupt_results_are_named(make_run: MakeRun, name: str, text: str) -> None:
    run = make_run(epochs=2)
    (run.results / f"{name}.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"broken\.json"):
        gather(run)


def test_the_command(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(epochs=5)
    runner = CliRunner()
    done = runner.invoke(app, ["report", str(run.path), "--verdict", str(tmp_path / "verdict-one.json")])
    assert done.exit_code == 0, done.output
    assert (run.path / "report.html").is_file()
    assert runner.invoke(app, ["report", str(tmp_path / "nowhere")]).exit_code == 2
    assert runner.invoke(app, ["report", str(run.path), "--verdict", str(tmp_path / "absent")]).exit_code == 2
    assert runner.invoke(app, ["report", str(run.path), "-o", "/dev/null/report.html"]).exit_code == 2
    (tmp_path / "wrong.json").write_text("{}")
    assert runner.invoke(app, ["report", str(run.path), "--verdict", str(tmp_path / "wrong.json")]).exit_code == 2
    with pytest.raises(ConfigurationError, match="at least one run"):
        write_report([], tmp_path / "x.html")


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_have_contrast(mode: str) -> None:
    style = (resources.files("townlet_training_core.evaluation.report") / "style.css").read_text("utf-8")
    block = style.split("prefers-color-scheme: dark")[mode == "dark"]
    colours = {
        name: tuple(int(text[i : i + 2], 16) for i in (0, 2, 4))
        for name, text in re.findall(r"--(\w+): #([0-9a-f]{6})", block)
    }
    heat = tuple(map(int, re.findall(r"--heat: (\d+) (\d+) (\d+)", block)[0]))
    for ground in (colours["ground"], colours["panel"]):
        for name in ("ink", "soft", "link", "good", "bad"):
            assert contrast(colours[name], ground) >= 4.5, name
        for series in range(6):
            assert contrast(colours[f"s{series}"], ground) >= 3.0, series
    for share in (0.0, 0.5, 1.0):
        cell = tuple(h * 0.45 * share + g * (1 - 0.45 * share) for h, g in zip(heat, colours["ground"], strict=True))
        assert contrast(colours["ink"], cell) >= 4.5


# -- charts ---------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.just(math.nan), st.floats(-1e12, 1e12)), min_size=1, max_size=60))
def test_lines_stay_inside_their_frame(values: list[float]) -> None:
    chart = line_chart("t", [("a", values)], axis="epochs")
    if all(math.isnan(value) for value in values):
        assert chart == ""
        return
    Outline(chart)
    for points in re.findall(r'points="([^"]+)"', chart):
        for x, y in (map(float, pair.split(",")) for pair in points.split()):
            assert 51.9 <= x <= 352.1
            assert 7.9 <= y <= 164.1


def test_long_lines_are_averaged_and_gaps_are_kept() -> None:
    chart = line_chart("t", [("a", [float(i) for i in range(10_000)])], axis="epochs")
    (points,) = re.findall(r'points="([^"]+)"', chart)
    assert len(points.split()) == MAX_POINTS
    gap = line_chart("t", [("a", [1.0, 2.0, math.nan, 3.0])], axis="epochs", breaks=[2])
    assert gap.count("<polyline") == 1
    assert gap.count("<circle") == 1
    assert gap.count('class="break"') == 1
    assert "from 1 to 3" in gap


def test_intervals_mark_zero_for_differences() -> None:
    interval = IntervalDTO(estimate=1.0, low=0.5, high=1.5, confidence=0.95)
    chart = interval_chart("t", [("a & b", interval, [0.4, 1.6])], zero=True)
    Outline(chart)
    assert "grid zero" in chart
    assert "a &amp; b: 1, from 0.5 to 1.5" in chart
    assert chart.count('class="rug"') == 2
    assert interval_chart("t", []) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.23456, "1.235"),
        (12345.6, "12346"),
        (1e-5, "1e-05"),
        (math.nan, "no value"),
        (-math.inf, "infinite"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


# -- in a browser ---------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[4]
AXE = ROOT / ".axe/node_modules/axe-core/axe.min.js"
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs a Chromium on PATH")


def look_at(page: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Open a page in every view, in a process of its own; return exit code and what was found."""
    command = [sys.executable, str(ROOT / "tests/check_report.py"), str(page), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.deep
@needs_browser
def test_a_browser_opens_it_without_a_word_and_without_a_request(make_run: MakeRun, tmp_path: Path) -> None:
    target = write_report([make_run("one"), make_run("two", seed=1)], tmp_path / "report.html")
    assert target.stat().st_size < 3_000_000  # 200 epochs each
    code, found = look_at(target, "--pictures", str(tmp_path / "pictures"))
    assert found["faults"] == []
    assert code == 0
    assert sorted(found["views"]) == ["dark", "light", "phone", "phone dark"]
    keyboard = found["views"]["light"]["keyboard"]
    assert keyboard["first"] == "Skip to the content"
    assert keyboard["stops"] > 20
    assert keyboard["opened"] == 1
    pictures = {path.stem: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert len(set(pictures.values())) == 4
    assert all(picture[:4] == b"\x89PNG" for picture in pictures.values())


@pytest.mark.deep
@needs_browser
@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core; `make axe` installs it where npm is")
def test_axe_finds_no_serious_fault(make_run: MakeRun, tmp_path: Path) -> None:
    target = write_report([make_run("one"), make_run("two", seed=1)], tmp_path / "report.html")
    code, found = look_at(target, "--axe", str(AXE))
    assert [view["violations"] for view in found["views"].values()] == [[]] * 4  # not even a minor one
    assert code == 0


@pytest.mark.deep
@needs_browser
def test_the_browser_check_would_notice(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<html><body><img src="http://127.0.0.1:9/x.png"><p style="width: 3000px">wide</p>'
        '<details><summary>fold</summary><p style="color: #bbb; background: #fff">pale</p></details>'
        '<a href="#" style="outline: none">mute</a>'
        '<script>console.error("loud")</script></body></html>'
    )
    code, found = look_at(page, *(("--axe", str(AXE)) if AXE.is_file() else ()))
    assert code == 1
    text = "\n".join(found["faults"])
    for fault in ("loud", "http://127.0.0.1:9/x.png", "px too wide", "'mute', 'seen': True, 'marked': False"):
        assert fault in text
    if AXE.is_file():
        assert "phone: serious color-contrast" in text
        assert "phone: critical image-alt" in text
