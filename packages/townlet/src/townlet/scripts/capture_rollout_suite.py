"""Capture a rollout of several scenarios, each in a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from townlet_training_core.cli.flags import say, script

__all__ = ["main", "run_capture"]


def run_capture(
    config: Path,
    ticks: int | None,
    output: Path,
    auto_seed: bool = False,
    agent_filter: str | None = None,
    compress: bool = False,
    retries: int = 1,
) -> None:
    """Capture one scenario into ``output``; a failure is tried again ``retries`` times.

    Raises
    ------
    RuntimeError
        When every attempt failed.
    """
    command = [sys.executable, "-m", "townlet.scripts.capture_rollout", str(config), "--output", str(output)]
    command += [] if ticks is None else ["--ticks", str(ticks)]
    command += ["--auto-seed-agents"] if auto_seed else []
    command += ["--agent-id", agent_filter] if agent_filter else []
    command += ["--compress"] if compress else []
    for _ in range(1 + max(0, retries)):
        code = subprocess.run(command, check=False).returncode
        if code == 0:
            return
    msg = f"capture of {config} failed with exit code {code}"
    raise RuntimeError(msg)


@script("""configs:path+ --ticks:int --output-root:path=captures --auto-seed-agents --agent-filter:str --compress
    --retries:int=1""")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    for config in args.configs:
        target = args.output_root / config.stem
        run_capture(config, args.ticks, target, args.auto_seed_agents, args.agent_filter, args.compress, args.retries)
        say(f"{config.stem}: {target}")
    return 0
