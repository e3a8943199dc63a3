"""Show or draw the losses of a PPO log."""

from __future__ import annotations

import argparse

from townlet.scripts._arguments import say, script
from townlet_training_core.telemetry.jsonl import read_jsonl

__all__ = ["main"]


@script("log:path?=docs/samples/ppo_epoch_log.jsonl --show --output:path")
def main(args: argparse.Namespace) -> int:
    """Run the script."""
    records = list(read_jsonl(args.log))
    for record in records:
        losses = f"loss_total {record['loss_total']:.6f}, kl_divergence {record['kl_divergence']:.6f}"
        say(f"epoch {record['epoch']}: {losses}")
    if args.show or args.output:
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(2, 1, sharex=True)
        for axis, key in zip(axes, ("loss_total", "kl_divergence"), strict=True):
            axis.plot([record[key] for record in records])
            axis.set_ylabel(key)
        axes[-1].set_xlabel("logged epoch")
        if args.output:
            figure.savefig(args.output)
        if args.show:
            plt.show()
    return 0
