"""Speed of the town: agent-steps per second for batches, threads and sizes; growth with N; start-up.

Run: ``python benchmarks/bench_town.py [--quick]``; writes ``benchmarks/results/town.json``.

Every number is the median of five. On a machine that others use too, the steps per second of processor time say what a
quiet machine would do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _results import Report

from townlet_sim import make_simulation, parallel_env

FASTEST = 4e6
"""Agent-steps per second that 256 towns of eight must reach on two threads."""

PEERS = Path(__file__).parent / "peers"


def steps_per_second(towns: int, threads: int, seconds: float, **options: Any) -> tuple[float, float]:
    """Replay the expert's actions over real play; return agent-steps per second of wall and of processor time."""
    town = make_simulation(towns, options, threads=threads)
    rows = town.allocate()
    town.reset(seed=0, out=rows)
    recorded = []
    for _ in range(40):
        recorded.append(town.expert_actions())
        town.step(recorded[-1], rows)
    agents = town.spec.agents_per_env
    wall, processor = [], []
    for _ in range(5):
        count, begin, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < seconds / 5:
            for actions in recorded:
                town.step(actions, rows)
            count += len(recorded) * towns * agents
        wall.append(count / (time.perf_counter() - begin))
        processor.append(count / (time.process_time() - used))
    town.close()
    return statistics.median(wall), statistics.median(processor)


def pettingzoo_per_second(seconds: float) -> float:
    """Agent-steps per second through dictionaries."""
    env = parallel_env()
    env.reset(seed=0)
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        env.step(dict.fromkeys(env.agents, 0))
        count += len(env.possible_agents)
        if not env.agents:
            env.reset()
    return count / (time.perf_counter() - begin)


def process_seconds(code: str, **environment: str) -> float:
    """Wall seconds of a fresh interpreter, median of five."""
    found = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **environment})
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


FIRST_STEP = """
import numpy as np
from townlet_sim import make_simulation
town = make_simulation(1, {})
rows = town.allocate()
town.reset(seed=0, out=rows)
town.step(np.zeros(8, np.int64), rows)
"""


def compare_with_peers(report: Report, value: float) -> None:
    """Run other environments in their own Pythons (``make peers``); the bound is on the fastest that is there."""
    found = []
    for line in (PEERS / "environments.txt").read_text().splitlines():
        name = line.split()[0]
        python = PEERS / f".venv-{name}" / "bin" / "python"
        if not python.exists():
            print(f"town: peer {name} is not installed (make peers): skipped")
            continue
        told = subprocess.run(
            [str(python), "town_peers.py", name], cwd=PEERS, capture_output=True, text=True, check=False
        )
        if told.returncode != 0:
            print(f"town: peer {name} fails: {told.stderr.strip().splitlines()[-1:]}")
            continue
        found.append(json.loads(told.stdout.strip().splitlines()[-1]))
    for peer in sorted(found, key=lambda row: -float(row["value"])):
        report.add(
            f"against {peer['name']}",
            value=value,
            unit="agent-steps/s",
            peer=f"{peer['name']} {peer['version']}, two cores",
            peer_value=peer["value"],
            bound=2.5,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, without the cold compile")
    arguments = parser.parse_args()
    seconds = 0.5 if arguments.quick else 5.0
    report = Report("town", threads=2)
    unit = "agent-steps/s"
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"

    def both(name: str, towns: int, threads: int, *, bound: float | None = None, **options: Any) -> float:
        wall, processor = steps_per_second(towns, threads, seconds, **options)
        report.add(name, value=wall, unit=unit, bound=bound, note=load)
        report.add(f"{name}, processor time", value=processor, unit="agent-steps per processor second")
        if bound == FASTEST:
            compare_with_peers(report, wall)
        return processor

    both("hybrid, B=256, N=8, two threads", 256, 2, bound=FASTEST)
    both("hybrid, B=256, N=8, one thread", 256, 1)
    both("hybrid, B=1, N=8, one thread", 1, 1, bound=0.6e6)
    both("full, B=256, N=8, two threads", 256, 2, observation="full")
    both("compact, B=256, N=8, two threads", 256, 2, observation="compact")
    report.add("PettingZoo, N=8", value=pettingzoo_per_second(seconds), unit=unit, bound=20_000)
    costs = {
        agents: 1 / both(f"growth, N={agents}, map {size}", towns, 1, agents=agents, map_size=size)
        for agents, size, towns in ((8, 24, 64), (32, 48, 16), (128, 96, 4), (512, 192, 1))
    }
    report.add("cost of an agent, N=512 over N=8", value=costs[512] / costs[8], unit="ratio", bound=3.0, better="lower")
    alone = process_seconds("import townlet_sim") - process_seconds("pass")
    report.add("import townlet_sim", value=alone, unit="s", bound=0.3, better="lower", note=load)
    warm = process_seconds(FIRST_STEP)
    report.add("import and first step, warm cache", value=warm, unit="s", bound=2.5, better="lower", note=load)
    if not arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", FIRST_STEP], check=True, env={**os.environ, "NUMBA_CACHE_DIR": folder}
            )
            cold = time.perf_counter() - begin
        report.add("cold compile and first step", value=cold, unit="s", bound=60.0, better="lower", note=load)
    report.write()


if __name__ == "__main__":
    main()
