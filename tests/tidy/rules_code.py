"""Rules on sources and build files. Each takes a Tree and yields Findings."""

import os
import re
import shutil
import subprocess

from tree import Finding, strip_code

HEADER_LINES = 250
SOURCE_LINES = 400
FUNCTION_LINES = 70
COLUMNS = 120

BANNED = {
    "sprintf": "snprintf or absl::StrFormat", "vsprintf": "vsnprintf", "strcpy": "std::string", "strcat": "std::string",
    "gets": "std::getline", "system": "posix_spawn or fork and exec", "rand": "<random>", "srand": "<random>",
    "atoi": "absl::SimpleAtoi", "atof": "absl::SimpleAtod", "strtok": "absl::StrSplit", "tmpnam": "mkstemp",
    "mktemp": "mkstemp",
}
BANNED_CALL = re.compile(r"(?<![\w.>:])(?:std::|::)?(" + "|".join(BANNED) + r")\s*\(")
SLEEP_CALL = re.compile(r"\b(sleep|usleep|nanosleep|sleep_for|sleep_until|SleepFor)\s*\(")
DEFINITION = re.compile(r"(int|unsigned|unsigned int|void) \w+\(")
ALLOW_SLEEP = re.compile(r"//.*\btidy: sleep\b.{8,}")
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]) + r")\b")


def sources_are_built(tree):
    """A source that no CMakeLists.txt of its folder or one above names is never compiled, a test never run."""
    for path in tree.files:
        if not path.endswith((".cc", ".c", ".cu")):
            continue
        folder = os.path.dirname(path)
        while True:
            lists = os.path.join(folder, "CMakeLists.txt")
            name = os.path.relpath(path, folder or ".")
            named = r"(?<![\w./-])(\S*/)?" + re.escape(name) + r"(?![\w./-])"
            if lists in tree.files and re.search(named, tree.text(lists)):
                break
            if not folder:
                # What cmake/ holds is named by its modules.
                if not any(name in tree.text(f) for f in tree.matching("cmake/*.cmake")):
                    yield Finding(path, 1, "no CMakeLists.txt names this source, so it isn't built")
                break
            folder = os.path.dirname(folder)


def sizes(tree):
    for path in tree.code():
        if path.endswith((".cu", ".cuh")):
            continue
        limit = HEADER_LINES if path.endswith((".h", ".hpp")) else SOURCE_LINES
        count = len(tree.text(path).splitlines())
        if count > limit:
            yield Finding(path, count, f"{count} lines; at most {limit}")
        yield from _functions(tree, path)


def _functions(tree, path):
    """Functions begin and end in column 0, which clang-format sees to."""
    start = None
    for number, line in tree.lines(path):
        if re.match(r"[\w~:<>*&\[\]( ]", line) and not line.startswith((" ", "namespace", "extern", "class", "struct",
                                                                        "enum", "union", "template", "using")):
            if start is None and not line.rstrip().endswith((";", "}")):
                start = number
        if line.startswith("}") or (start and line.rstrip().endswith(";") and not line.startswith(" ")):
            if start and line.startswith("}") and number - start + 1 > FUNCTION_LINES:
                yield Finding(path, start, f"a function of {number - start + 1} lines; at most {FUNCTION_LINES}")
            start = None


def line_lengths(tree):
    build_files = tree.matching("*CMakeLists.txt", "*.cmake", "*.cmake.in")
    for path in tree.code() + tree.scripts() + build_files + tree.matching("*.py", "*.proto"):
        for number, line in tree.lines(path):
            if len(line) > COLUMNS:
                yield Finding(path, number, f"{len(line)} columns; at most {COLUMNS}")
            if line != line.rstrip():
                yield Finding(path, number, "white space at the end of the line")


def banned_calls(tree):
    for path in tree.code():
        original = tree.text(path).splitlines()
        for number, line in enumerate(strip_code(tree.text(path)).splitlines(), 1):
            for match in BANNED_CALL.finditer(line):
                yield Finding(path, number, f"{match[1]}() is banned: use {BANNED[match[1]]}")
            sleeps = SLEEP_CALL.search(line) and not DEFINITION.match(line)
            if path.startswith("tests/") and sleeps and not ALLOW_SLEEP.search(original[number - 1]):
                yield Finding(path, number, "a test that sleeps: wait for what should happen, or say on this line why "
                                            "not (// tidy: sleep, because ...)")


def unfinished(tree):
    for path in tree.files:
        if path == "LICENSE" or path.endswith((".png", ".svg", ".json")):
            continue
        for number, line in tree.lines(path):
            if UNFINISHED.search(line):
                yield Finding(path, number, "unfinished work goes into the issue tracker, not into the sources")


def include_guards(tree):
    for path in tree.code():
        if not path.endswith((".h", ".hpp", ".cuh")):
            continue
        # Two folders are include paths of their own: public headers and the API's.
        name = path.replace("client/include/dak/", "", 1).replace("proto/dak/", "proto/", 1)
        want = "DAK_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper() + "_"
        text = tree.text(path)
        if not re.search(rf"^#ifndef {want}\n#define {want}$", text, re.M):
            yield Finding(path, 1, f"include guard should be {want}")
        elif "#pragma once" in text:
            yield Finding(path, 1, "#pragma once beside an include guard")


def scripts_are_safe(tree):
    for path in tree.scripts():
        text = tree.text(path)
        if not text.startswith("#!"):
            continue
        if not os.access(tree.root / path, os.X_OK):
            yield Finding(path, 1, "a script that isn't executable")
        if "bash" in text.splitlines()[0] and "set -euo pipefail" not in text and "lib.sh" not in text:
            yield Finding(path, 1, "a bash script without 'set -euo pipefail'")


def formatted(tree):
    tool = shutil.which("clang-format-14")
    if tool is None:
        yield Finding("scripts/packages.txt", 1, "clang-format-14 isn't installed: scripts/install-deps test")
        return
    files = tree.code()
    if not files:
        return
    done = subprocess.run([tool, "--dry-run", *files], cwd=tree.root, capture_output=True, text=True, check=False)
    bad = dict.fromkeys(re.findall(r"^(?:\./)?([^\s:]+):(\d+):\d+: warning: code should be clang-formatted",
                                   done.stderr, re.M))
    seen = set()
    for path, line in bad:
        if path not in seen:
            seen.add(path)
            yield Finding(path, int(line), "not formatted: scripts/format")
    if done.returncode != 0:
        yield Finding(".clang-format", 1, f"clang-format failed: {done.stderr[:200]}")


RULES = [sources_are_built, sizes, line_lengths, banned_calls, unfinished, include_guards, scripts_are_safe, formatted]
