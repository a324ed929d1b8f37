"""Runs a module as ``openmaas.placement.sandbox`` does, but for the confinement: what a test or a
figure compares with."""

from __future__ import annotations

import argparse
import runpy
import sys


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--write", "--read", "--limits"):
        parser.add_argument(name, action="append")
    for name in ("--unix", "--devices"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--module", required=True)
    parser.add_argument("arguments", nargs="*")
    asked = parser.parse_args()
    sys.argv = [asked.module, *asked.arguments]
    runpy.run_module(asked.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
