"""Rules on prose: what docs name must exist. Each takes a Tree and yields Findings."""

import os
import re

from tree import Finding

PROGRAMS = ("dakd", "dakctl", "dak-demo", "dak-bench")
FLAG = re.compile(r"--[a-z][a-z0-9-]*")
# Suffixes that a scrape adds to a histogram's name.
SERIES_SUFFIX = re.compile(r"_(bucket|sum|count)$")
IDENTIFIER = re.compile(r"\bdak_[a-z0-9_]+\b(?![/.*-])")


def code_spans(text):
    """Yields (line number, text) of inline code and of each line of fenced code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*(```|~~~)", line):
            fenced = not fenced
        elif fenced:
            yield number, line
        else:
            for match in re.finditer(r"(`+)(.+?)\1", line):
                yield number, match[2]


def unfenced(text):
    """The lines of a document outside fenced code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*(```|~~~)", line):
            fenced = not fenced
        elif not fenced:
            yield number, line


def _sources(tree):
    """All that may define a flag or a name: sources and scripts, but no tests of theirs and no prose."""
    files = [f for f in tree.code() if not f.startswith("tests/") or f.startswith(("tests/bench/", "tests/gpu/"))]
    return files + tree.scripts() + tree.matching("*.proto")


def defined_flags(tree):
    found = set()
    for path in _sources(tree):
        text = tree.text(path)
        found.update(FLAG.findall(text))
        if path.endswith((".cc", ".h", ".cu")):
            # Tables of flags name them without dashes, ABSL_FLAG with underscores.
            found.update("--" + name.replace("_", "-") for name in re.findall(r'"([a-z][a-z0-9_-]*)"', text))
            found.update("--" + name.replace("_", "-") for name in re.findall(r"ABSL_FLAG\([^,]+,\s*(\w+)", text))
    return found


def _is_ours(word, tree):
    name = word.rsplit("/", 1)[-1]
    return name in PROGRAMS or word.removeprefix("./") in tree.scripts()


def _commands(span):
    """The commands of a line, each as a list of words, without prompts, variables and sudo."""
    for command in re.split(r"\|\||&&|[|;]", span.split(" #")[0]):
        words = command.strip().removeprefix("$ ").split()
        while words and (re.match(r"\w+=", words[0]) or words[0] in ("sudo", "exec", "env", "-i")):
            words.pop(0)
        if words:
            yield words


def flags_exist(tree):
    """Flags in code font, alone or after one of our programs. What other programs take isn't looked at."""
    known = defined_flags(tree)
    for path in tree.docs():
        for number, span in code_spans(tree.text(path)):
            for words in _commands(span):
                if not words[0].startswith("--") and not _is_ours(words[0], tree):
                    continue
                for word in words:
                    flag = FLAG.match(word.lstrip("["))
                    if flag and flag[0] not in known:
                        yield Finding(path, number, f"no program or script here defines {flag[0]}")


def paths_exist(tree):
    """Paths in code font that begin with a folder of the repository's top level."""
    folders = {f.split("/", 1)[0] for f in tree.files if "/" in f}
    for path in tree.docs():
        for number, span in code_spans(tree.text(path)):
            for word in re.split(r"[\s,;|()\[\]'\"=]+", span):
                word = word.removeprefix("./").rstrip(".:")
                if "/" not in word or word.split("/", 1)[0] not in folders or re.search(r"[<>${}]", word):
                    continue
                if not tree.exists(re.sub(r":\d+$", "", word)):
                    yield Finding(path, number, f"there is no {word}")


def _anchors(text):
    anchors = set()
    for _, line in unfenced(text):
        heading = re.match(r"#+\s+(.*)", line)
        if heading:
            anchors.add(re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-"))
    return anchors


def links_exist(tree):
    for path in tree.docs():
        for number, line in unfenced(tree.text(path)):
            line = re.sub(r"(`+).+?\1", "", line)
            targets = re.findall(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)", line)
            targets += re.findall(r"(?:src|srcset|href)=\"([^\"\s]+)\"", line)
            for target in targets:
                if re.match(r"[a-z]+:", target):
                    continue
                file, _, anchor = target.partition("#")
                whole = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
                if whole != "." and not tree.exists(whole):
                    yield Finding(path, number, f"a link to {target}, which isn't there")
                elif anchor and whole.endswith(".md") and anchor not in _anchors(tree.text(whole)):
                    yield Finding(path, number, f"a link to {target}, but there is no such heading")


def names_exist(tree):
    """Metrics and C functions (dak_...) in docs, dashboards and alert rules must stand in a source."""
    known = set()
    for path in _sources(tree) + tree.matching("*CMakeLists.txt", "*.cmake"):
        known.update(re.findall(r"\bdak_[a-z0-9_]+\b", tree.text(path)))
    checked = [(path, code_spans(tree.text(path))) for path in tree.docs()]
    checked += [(path, tree.lines(path)) for path in tree.matching("monitoring/*.json", "monitoring/*.yml",
                                                                   "monitoring/*.yaml")]
    for path, spans in checked:
        for number, span in spans:
            for name in IDENTIFIER.findall(span):
                if name not in known and SERIES_SUFFIX.sub("", name) not in known:
                    yield Finding(path, number, f"no source defines {name}")


RULES = [flags_exist, paths_exist, links_exist, names_exist]
