"""The repository as the rules see it: which files there are, and their text."""

import fnmatch
import pathlib
import subprocess
from dataclasses import dataclass

CODE = (".h", ".hpp", ".cc", ".c", ".cu", ".cuh")
# Folders that a checkout without git may hold besides the sources.
NOT_SOURCES = {".git", "build", "dist", "__pycache__"}


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.message}"


class Tree:
    """Files below a folder: those that git knows or would add; all, where there is no git."""

    def __init__(self, root):
        self.root = pathlib.Path(root).resolve()
        self.files = sorted(p for p in self._list() if (self.root / p).is_file())
        self._texts = {}

    def _list(self):
        if (self.root / ".git").exists():
            out = subprocess.run(
                ["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                check=True, capture_output=True, text=True).stdout
            return set(filter(None, out.split("\0")))
        return {str(p.relative_to(self.root)) for p in self.root.rglob("*")
                if not NOT_SOURCES & set(p.relative_to(self.root).parts)}

    def text(self, path):
        if path not in self._texts:
            self._texts[path] = (self.root / path).read_bytes().decode("utf-8", errors="replace")
        return self._texts[path]

    def lines(self, path):
        """Pairs of line number and line."""
        return enumerate(self.text(path).splitlines(), 1)

    def matching(self, *patterns):
        return [f for f in self.files if any(fnmatch.fnmatch(f, p) for p in patterns)]

    def code(self):
        return [f for f in self.files if f.endswith(CODE)]

    def docs(self):
        return [f for f in self.files if f.endswith(".md")]

    def scripts(self):
        return [f for f in self.files if f.startswith(("scripts/", ".ci/")) and not f.endswith((".txt", ".md"))]

    def exists(self, path):
        """Whether a path, which may hold * and end in /, is a file or folder here."""
        path = path.rstrip("/")
        return any(fnmatch.fnmatch(f, path) or fnmatch.fnmatch(f, path + "/*") for f in self.files)


def strip_code(text):
    """C++ text with comments and the insides of strings blanked, line by line as before."""
    out = []
    i, n = 0, len(text)
    while i < n:
        c = text[i]
        if text.startswith("//", i):
            end = text.find("\n", i)
            i = n if end < 0 else end
        elif text.startswith("/*", i):
            end = text.find("*/", i + 2)
            end = n if end < 0 else end + 2
            out.append("\n" * text.count("\n", i, end))
            i = end
        elif text.startswith('R"', i):
            tag = text[i + 2:text.find("(", i)]
            end = text.find(")" + tag + '"', i)
            end = n if end < 0 else end + len(tag) + 2
            out.append('""' + "\n" * text.count("\n", i, end))
            i = end
        elif c == '"' or (c == "'" and not (i and text[i - 1].isalnum())):
            end = i + 1
            while end < n and text[end] not in (c, "\n"):
                end += 2 if text[end] == "\\" else 1
            out.append(c + c)
            i = end + 1
        else:
            out.append(c)
            i += 1
    return "".join(out)
