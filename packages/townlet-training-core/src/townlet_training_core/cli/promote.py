"""``townlet promote``: decide on a candidate, put it in place, take it back.

Exit codes: 0 the candidate is to be promoted (or the change was made), 1 the verdict is negative, 2 bad input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from townlet_training_core.cli.options import ConfigOption, JsonOption, SetOption
from townlet_training_core.cli.outputs import require_file
from townlet_training_core.config.loader import load_config
from townlet_training_core.dto.evaluation import EvaluationResult, EvaluationSuite
from townlet_training_core.dto.release import AuditEntry, LegacyFlags, PromotionVerdict
from townlet_training_core.errors import ArtifactError, ConfigurationError, InterruptedRunError
from townlet_training_core.evaluation import suite_from_config
from townlet_training_core.evaluation.scenarios import load_suites
from townlet_training_core.files import atomic_write_text
from townlet_training_core.policy.port import Policy
from townlet_training_core.promotion import PromotionGate, ReleaseRegistry

__all__ = ["app"]

POLICY_FILES = ("policy.*",)
"""What of a checkpoint or export is released: what runs without torch."""

app = typer.Typer(no_args_is_help=True, help="Decide on releases, put them in place, take them back.")

ReleasesOption = Annotated[Path, typer.Option("--releases", help="Folder of the release registry.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why; kept in the audit log.")]


@app.command(epilog="Example: townlet promote evaluate runs --releases releases --output verdict.json")
def evaluate(
    candidate: Annotated[str, typer.Argument(help="Exported policy, checkpoint, run, or registered policy.")],
    releases: ReleasesOption = Path("releases"),
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="Compare with this policy instead of the current release.")
    ] = None,
    suites: Annotated[
        Path | None,
        typer.Option("--suites", help="YAML list of suites, one per scenario, judged together."),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    looks: Annotated[
        int | None,
        typer.Option("--looks", min=1, help="Looks at most; a failed one ends it. Default: promotion.required_passes."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that play.")] = 1,
    forgetting_margin: Annotated[
        float, typer.Option("--forgetting-margin", min=0.0, help="Tolerated loss against earlier releases.")
    ] = 0.0,
    legacy: Annotated[
        Path | None, typer.Option("--legacy-results", help="anneal_results.json whose flags are to be reported.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the last verdict to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a candidate to the test against the release; exit code 0 says promote, 1 says hold."""
    from townlet_training_core.evaluation.parallel import evaluate_spec, simulation_maker
    from townlet_training_core.registry import make_policy

    require_file(output, "--output")
    loaded = load_config(config, overrides=overrides or ())
    registry = ReleaseRegistry(releases)
    if baseline is None:
        current = registry.current()
        if current is None:
            msg = (
                f"registry {str(releases)!r} has no release to compare with; name a --baseline, or put the first "
                "release in place with: townlet promote apply CANDIDATE --initial"
            )
            raise ConfigurationError(msg)
        baseline, release_label = str(registry.path_of(current.release)), f"release {current.release[:12]}"
    else:
        release_label = baseline
    new, old = make_policy(candidate), make_policy(baseline)
    envs = loaded.evaluation.num_envs

    def over_processes(policy: Policy, suite: EvaluationSuite, label: str) -> EvaluationResult:
        spec = candidate if policy is new else str(baseline)
        return evaluate_spec(spec, suite=suite, label=label, num_envs=envs, workers=workers)

    gate = PromotionGate(
        simulation_maker,
        load_suites(suites, loaded),
        config=loaded.promotion,
        book=registry.look_book(),
        num_envs=envs,
        play=over_processes if workers > 1 else None,
    )
    flags = None if legacy is None else _legacy_flags(legacy)
    golden = registry.golden()
    try:
        for _ in range(looks or loaded.promotion.required_passes):
            verdict = gate.ask(
                new,
                old,
                label=candidate,
                release_label=release_label,
                golden=golden,
                forgetting_margin=forgetting_margin,
                legacy=flags,
            )
            if not as_json:
                typer.echo(verdict.summary)
            if not verdict.passed or verdict.decision == "promote":
                break
    except KeyboardInterrupt:
        msg = "the gate was stopped; the look that was being played counts as spent, and as not passed"
        raise InterruptedRunError(msg) from None
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(output, verdict.model_dump_json(indent=2) + "\n")
    if as_json:
        typer.echo(verdict.model_dump_json(indent=2))
    else:
        _print_guardrails(verdict)
    if verdict.decision != "promote":
        raise typer.Exit(1)


@app.command(epilog="Example: townlet promote apply runs --verdict verdict.json")
def apply(
    candidate: Annotated[Path, typer.Argument(help="Exported policy, checkpoint or run.")],
    releases: ReleasesOption = Path("releases"),
    verdict: Annotated[Path | None, typer.Option("--verdict", help="What `promote evaluate` wrote.")] = None,
    initial: Annotated[bool, typer.Option("--initial", help="The first release: there is nothing to beat.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Swap by hand, without a verdict; needs --reason.")] = False,
    reason: ReasonOption = None,
    golden: Annotated[
        bool, typer.Option("--golden/--no-golden", help="Record what it reaches, for later candidates to keep up.")
    ] = True,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a candidate in place; exit code 1 when its verdict does not allow it."""
    from townlet_training_core.evaluation.parallel import evaluate_spec
    from townlet_training_core.policy.exported import find_policy
    from townlet_training_core.registry import make_policy

    if [verdict is not None, initial, force].count(True) != 1:
        msg = "say why the candidate may go in: give one of --verdict FILE, --initial or --force"
        raise ConfigurationError(msg)
    if force and not reason:
        msg = "--force swaps a release without a verdict; give a --reason for the audit log"
        raise ConfigurationError(msg)
    registry = ReleaseRegistry(releases)
    source = find_policy(candidate)
    policy_hash = make_policy(str(source)).content_hash()
    metadata: dict[str, Any] = {"source": str(candidate), "policy_hash": policy_hash}
    if reason:
        metadata["reason"] = reason
    if initial and registry.current() is not None:
        msg = f"registry {str(releases)!r} has a release already; --initial is for the first"
        raise ConfigurationError(msg)
    if verdict is not None:
        judged = read_verdict(verdict)
        _require_match(judged, registry, policy_hash=policy_hash, path=verdict)
        if judged.decision != "promote":
            typer.echo(f"not applied: {judged.summary}", err=True)
            raise typer.Exit(1)
        metadata["verdict"] = judged.summary
    reached = []
    if golden and not force:
        loaded = load_config(config, overrides=overrides or ())
        suite = suite_from_config(loaded.simulation, loaded.evaluation, name="golden")
        envs = loaded.evaluation.num_envs
        reached.append(evaluate_spec(str(source), suite=suite, label=str(candidate), num_envs=envs))
    if force:
        entry = registry.swap(source, metadata=metadata, patterns=POLICY_FILES)
    else:
        entry = registry.promote(source, metadata=metadata, golden=reached, patterns=POLICY_FILES)
    _print_entry(entry, as_json=as_json)


@app.command(epilog="Example: townlet promote rollback --reason 'queues got worse'")
def rollback(
    releases: ReleasesOption = Path("releases"),
    to: Annotated[
        str | None, typer.Option("--to", help="Beginning of a digest; the release before when absent.")
    ] = None,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put an earlier release in place again, byte for byte."""
    registry = ReleaseRegistry(releases)
    digest = None if to is None else registry.resolve(to)
    entry = registry.rollback(to=digest, metadata={"reason": reason} if reason else None)
    _print_entry(entry, as_json=as_json)


@app.command(epilog="Example: townlet promote status --json")
def status(releases: ReleasesOption = Path("releases"), as_json: JsonOption = False) -> None:
    """Say which release is in place."""
    registry = ReleaseRegistry(releases)
    current = registry.current()
    if current is None:
        typer.echo("null" if as_json else f"no release in {releases}")
        return
    entry = registry.history()[current.sequence - 1]
    path = registry.path_of(current.release)
    if as_json:
        typer.echo(json.dumps({**entry.model_dump(mode="json"), "path": str(path)}, indent=2))
        return
    for key, value in {"release": entry.release, "since": entry.time, "by": entry.event, "path": path}.items():
        typer.echo(f"{key:8} {value}")
    for key, value in entry.metadata.items():
        typer.echo(f"{key:8} {value}")


@app.command(epilog="Example: townlet promote history --json")
def history(
    releases: ReleasesOption = Path("releases"),
    repair: Annotated[
        bool, typer.Option("--repair", help="Finish what a killed writer began and check every policy.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List promotions, rollbacks and swaps, oldest first."""
    registry = ReleaseRegistry(releases)
    entries = registry.repair() if repair and registry.root.exists() else registry.history()
    if as_json:
        typer.echo(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=2))
        return
    if not entries:
        typer.echo(f"no releases in {releases}")
        return
    table = Table("#", "time", "event", "release", "before", "reason")
    for entry in entries:
        why = str(entry.metadata.get("reason") or entry.metadata.get("verdict") or "")
        before = (entry.previous or "")[:12]
        table.add_row(str(entry.sequence), entry.time[:19], entry.event, entry.release[:12], before, why)
    Console().print(table)


def read_verdict(path: Path) -> PromotionVerdict:
    """Read a verdict that ``promote evaluate`` wrote."""
    try:
        return PromotionVerdict.model_validate_json(path.read_bytes())
    except OSError as error:
        msg = f"cannot read verdict {str(path)!r}: {error.strerror}"
        raise ConfigurationError(msg) from error
    except ValidationError as error:
        msg = f"{str(path)!r} is not a verdict of the gate: {error.errors()[0]['msg']}; run `townlet promote evaluate`"
        raise ArtifactError(msg) from error


def _require_match(judged: PromotionVerdict, registry: ReleaseRegistry, *, policy_hash: str, path: Path) -> None:
    from townlet_training_core.registry import make_policy

    if judged.candidate_hash != policy_hash:
        msg = f"verdict {str(path)!r} is about another policy ({judged.candidate!r}); evaluate this one"
        raise ConfigurationError(msg)
    current = registry.current()
    if current is not None:
        standing = make_policy(str(registry.path_of(current.release))).content_hash()
        if standing != judged.baseline_hash:
            msg = f"verdict {str(path)!r} was not taken against the current release; evaluate again"
            raise ConfigurationError(msg)


def _legacy_flags(path: Path) -> LegacyFlags:
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"cannot read {str(path)!r}: {error}"
        raise ConfigurationError(msg) from error
    stages = payload.get("stages", payload.get("results")) if isinstance(payload, dict) else payload
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        msg = f"{str(path)!r}: expected a list of anneal stages, or a mapping with 'stages' or 'results'"
        raise ConfigurationError(msg)

    def raised(flag: str) -> bool:
        return any(bool(stage.get(flag)) for stage in stages)

    return LegacyFlags(
        loss_flag=raised("anneal_loss_flag"),
        queue_flag=raised("anneal_queue_flag"),
        intensity_flag=raised("anneal_intensity_flag"),
        bc_failed=any(stage.get("mode") == "bc" and stage.get("passed") is False for stage in stages),
    )


def _print_guardrails(verdict: PromotionVerdict) -> None:
    if not verdict.guardrails and verdict.legacy_status is None:
        return
    for rail in verdict.guardrails:
        value = "" if rail.difference is None else f" {rail.difference.estimate:+.4g} (margin {rail.margin:g})"
        typer.echo(f"  {rail.kpi}: {rail.status}{value}")
    if verdict.legacy_status is not None:
        typer.echo(f"  legacy flags would have said {verdict.legacy_status}")


def _print_entry(entry: AuditEntry, *, as_json: bool) -> None:
    if as_json:
        typer.echo(entry.model_dump_json(indent=2))
    else:
        before = f", before it {entry.previous[:12]}" if entry.previous else ""
        typer.echo(f"{entry.event}: {entry.release} is in place{before}")
