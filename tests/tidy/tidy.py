#!/usr/bin/env python3
"""tidy.py [ROOT]: checks the repository against its own rules (CONTRIBUTING.md, "Style"); exit code 1 on findings."""

import pathlib
import sys

import rules_code
import rules_docs
from tree import Tree

RULES = rules_code.RULES + rules_docs.RULES


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    tree = Tree(root)
    count = 0
    for rule in RULES:
        for finding in rule(tree):
            print(f"{finding} [{rule.__name__}]")
            count += 1
    print(f"tidy: {len(RULES)} rules, {len(tree.files)} files, {count} findings")
    return 1 if count or not tree.files else 0


if __name__ == "__main__":
    sys.exit(main())
