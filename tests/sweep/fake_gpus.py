"""`python -m sweep` on a cluster of two CPUs and of one GPU that is not there: Ray takes its owner's word for it."""

from __future__ import annotations

import tempfile

from sweep import cli, engine

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        engine._stay_on_loopback()
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        engine.ray.init(address="local", num_cpus=2, num_gpus=1, _temp_dir=scratch, **quiet)
        cli.main()
