#!/usr/bin/env python3
"""Runs the system tests: all of them, or those named: all.py [test_serve …] [-k PATTERN] [-v].

Exits non-zero where they cannot run. Nothing is skipped.
"""

import argparse
import sys
import unittest
from pathlib import Path

import boot

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="test_NAME; default: all")
    parser.add_argument("-k", dest="pattern", action="append", help="only tests of this name")
    parser.add_argument("--prepare", action="store_true", help="only make the clean root")
    parser.add_argument("-q", dest="quiet", action="store_true")
    asked = parser.parse_args()
    try:
        boot.need_machine()
        boot.root_tree()
    except boot.CannotRun as why:
        sys.exit(f"test-system: {why}")
    if asked.prepare:
        return
    loader = unittest.TestLoader()
    if asked.pattern:
        loader.testNamePatterns = [f"*{pattern}*" for pattern in asked.pattern]
    names = asked.modules or sorted(path.stem for path in HERE.glob("test_*.py"))
    suite = loader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(verbosity=1 if asked.quiet else 2).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed")
    # A test that is skipped has shown nothing; none at all, neither.
    sys.exit(0 if result.testsRun and not failed and not skipped else 1)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
