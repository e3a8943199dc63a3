"""Check cloning datasets against their checksums."""

from townlet_training_core.cli.flags import run
from townlet_training_core.cli.old_scripts import audit_bc_datasets as main

__all__ = ["main"]

if __name__ == "__main__":
    run(main)
