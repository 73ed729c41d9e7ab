#!/usr/bin/env python3
"""Proves that each rule of tidy fires on what it forbids, and stays quiet on what it allows."""

import os
import pathlib
import tempfile
import unittest

import rules_code
import rules_docs
from tree import Tree, strip_code

UNFINISHED = "TO" + "DO"
GUARDED = "#ifndef DAK_A_B_H_\n#define DAK_A_B_H_\n#endif\n"


def findings(rule, files, executable=()):
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            target = pathlib.Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            os.chmod(target, 0o755 if path in executable else 0o644)
        return [(f.path, f.line) for f in rule(Tree(folder))]


class RulesOnCode(unittest.TestCase):
    def test_sources_are_built(self):
        rule = rules_code.sources_are_built
        built = {"a/CMakeLists.txt": "dak_library(a SOURCES x.cc sub/y.cc)", "a/x.cc": "", "a/sub/y.cc": ""}
        self.assertEqual(findings(rule, built), [])
        self.assertEqual(findings(rule, built | {"a/new.cc": ""}), [("a/new.cc", 1)])
        # A name that ends alike isn't it, nor is one in another folder.
        self.assertEqual(findings(rule, {"a/CMakeLists.txt": "my_x.cc x.cc.in", "a/x.cc": ""}), [("a/x.cc", 1)])
        self.assertEqual(findings(rule, {"b/CMakeLists.txt": "x.cc", "a/x.cc": ""}), [("a/x.cc", 1)])

    def test_sizes(self):
        rule = rules_code.sizes
        self.assertEqual(findings(rule, {"a.h": "\n" * 250, "a.cc": "\n" * 400, "a.cu": "\n" * 900}), [])
        self.assertEqual(findings(rule, {"a.h": "\n" * 251, "a.cc": "\n" * 401}), [("a.cc", 401), ("a.h", 251)])

    def test_sizes_of_functions(self):
        rule = rules_code.sizes

        def function(lines):
            return "namespace a {\n\nint Long(int a,\n         int b) {\n" + "  a += b;\n" * (lines - 3) + "}\n\n}\n"
        self.assertEqual(findings(rule, {"a.cc": function(70)}), [])
        self.assertEqual(findings(rule, {"a.cc": function(71)}), [("a.cc", 3)])
        in_class = "class A {\n" + " public:\n  int a;\n" * 40 + "};\n"
        self.assertEqual(findings(rule, {"a.cc": in_class}), [])

    def test_line_lengths(self):
        rule = rules_code.line_lengths
        self.assertEqual(findings(rule, {"a.cc": "x" * 120 + "\n", "README.md": "x" * 300}), [])
        self.assertEqual(findings(rule, {"a.cc": "\n" + "x" * 121, "scripts/b": "y" * 121, "c.cmake": "z \n"}),
                         [("a.cc", 2), ("scripts/b", 1), ("c.cmake", 1)])

    def test_banned_calls(self):
        rule = rules_code.banned_calls
        for call in ["sprintf(b, x);", "std::strcpy(a, b);", "::system(x);", "int r = rand();", "std::rand ()"]:
            self.assertEqual(findings(rule, {"a.cc": f"int a;\n{call}\n"}), [("a.cc", 2)], call)
        for fine in ["snprintf(b, x);", "// system(x)", 'Log("gets(x)");', "file.system(x);", "operand(x);",
                     "my::system(x);", "'\"'; // rand()"]:
            self.assertEqual(findings(rule, {"a.cc": fine}), [], fine)

    def test_tests_do_not_sleep(self):
        rule = rules_code.banned_calls
        for call in ["sleep(1);", "std::this_thread::sleep_for(x);", "absl::SleepFor(x);", "usleep(3);"]:
            self.assertEqual(findings(rule, {"tests/a.cc": call}), [("tests/a.cc", 1)], call)
            self.assertEqual(findings(rule, {"daemon/a.cc": call}), [], call)
        self.assertEqual(findings(rule, {"tests/a.cc": "sleep(1);  // tidy: sleep, because no event tells"}), [])
        self.assertEqual(findings(rule, {"tests/a.cc": "sleep(1);  // tidy: sleep"}), [("tests/a.cc", 1)])
        self.assertEqual(findings(rule, {"tests/a.cc": "int nanosleep(const timespec* t) {"}), [])

    def test_unfinished(self):
        rule = rules_code.unfinished
        self.assertEqual(findings(rule, {"a.cc": f"// {UNFINISHED}: x", "d.md": f"\n{UNFINISHED}"}),
                         [("a.cc", 1), ("d.md", 2)])
        self.assertEqual(findings(rule, {"a.cc": f"int {UNFINISHED}_count;", "b.json": UNFINISHED}), [])

    def test_include_guards(self):
        rule = rules_code.include_guards
        guard = "#ifndef {0}\n#define {0}\n#endif\n".format
        good = {"a/b.h": GUARDED, "client/include/dak/dak.hpp": guard("DAK_DAK_HPP_"),
                "proto/dak/v1/page.h": guard("DAK_PROTO_V1_PAGE_H_"), "k/m.cuh": guard("DAK_K_M_CUH_")}
        self.assertEqual(findings(rule, good), [])
        self.assertEqual(findings(rule, {"a/c.h": GUARDED}), [("a/c.h", 1)])
        self.assertEqual(findings(rule, {"a/b.h": "#ifndef DAK_A_B_H_\n#define OTHER\n#endif\n"}), [("a/b.h", 1)])
        self.assertEqual(findings(rule, {"a/b.h": "#pragma once\n" + GUARDED}), [("a/b.h", 1)])

    def test_scripts_are_safe(self):
        rule = rules_code.scripts_are_safe
        safe = "#!/usr/bin/env bash\nset -euo pipefail\n"
        self.assertEqual(findings(rule, {"scripts/a": safe}, ["scripts/a"]), [])
        self.assertEqual(findings(rule, {"scripts/a": safe}), [("scripts/a", 1)])
        self.assertEqual(findings(rule, {"scripts/a": "#!/bin/bash\nls\n"}, ["scripts/a"]), [("scripts/a", 1)])

    def test_formatted(self):
        rule = rules_code.formatted
        style = {".clang-format": "BasedOnStyle: Google\n"}
        self.assertEqual(findings(rule, style | {"a.cc": "int a = 1;\n"}), [])
        self.assertEqual(findings(rule, style | {"a.cc": "int b;\nint  a=1;\n"}), [("a.cc", 2)])


class RulesOnDocs(unittest.TestCase):
    def test_flags_exist(self):
        rule = rules_docs.flags_exist
        sources = {"daemon/f.cc": '{"device", "auto"}; // --config', "scripts/demo": "--quick)", "client/g.cc":
                   "ABSL_FLAG(int, two_words, 1, \"\");", "tests/t.cc": '"--only-in-a-test"'}
        for fine in ["`--device=cuda`", "`dakd --config x`", "`./scripts/demo --quick`", "`cmake --preset release`",
                     "`dakd --two-words | grep --color x`", "no code: --nothing", "`$ sudo dakd --device`"]:
            self.assertEqual(findings(rule, sources | {"README.md": fine}), [], fine)
        for bad in ["`--devices`", "`dakd --bad`", "```\ndakctl pools --bad\n```", "`./scripts/demo --slow`",
                    "`x && dakd --bad`", "`--only-in-a-test`"]:
            self.assertEqual(len(findings(rule, sources | {"README.md": bad})), 1, bad)

    def test_paths_exist(self):
        rule = rules_docs.paths_exist
        tree = {"daemon/rpc/a.cc": ""}
        for fine in ["`daemon/`", "`daemon/rpc/a.cc:12`", "`daemon/*/a.cc`", "`./daemon/rpc`", "daemon/none", "`etc/x`",
                     "`daemon/<name>/x`"]:
            self.assertEqual(findings(rule, tree | {"d.md": fine}), [], fine)
        for bad in ["`daemon/none.cc`", "```\nls daemon/b\n```", "`daemon/*.h`"]:
            self.assertEqual(len(findings(rule, tree | {"d.md": bad})), 1, bad)

    def test_links_exist(self):
        rule = rules_docs.links_exist
        tree = {"docs/a.md": "# A title, here\n", "docs/p.svg": ""}
        for fine in ["[a](docs/a.md)", "[a](docs/a.md#a-title-here)", "[a](https://x.y/z)", "`[a](none.md)`",
                     "![p](docs/p.svg)", "# Top\n[a](#top)", "[d](docs/)"]:
            self.assertEqual(findings(rule, tree | {"README.md": fine}), [], fine)
        for bad in ["[a](a.md)", "[a](docs/a.md#no)", "![p](p.svg)", "[a](#none)", '<img src="docs/q.svg">']:
            self.assertEqual(len(findings(rule, tree | {"README.md": bad})), 1, bad)

    def test_names_exist(self):
        rule = rules_docs.names_exist
        source = {"monitoring/m.cc": '"dak_pool_bytes" "dak_rpc_seconds"', "client/include/dak/dak.h": "dak_gemm("}
        for fine in ["`dak_pool_bytes{tier=\"hbm\"}`", "`dak_rpc_seconds_bucket`", "`dak_gemm()`", "`dak_pool_*`",
                     "dak_none"]:
            self.assertEqual(findings(rule, source | {"d.md": fine}), [], fine)
        self.assertEqual(findings(rule, source | {"d.md": "`dak_pools_bytes`"}), [("d.md", 1)])
        self.assertEqual(findings(rule, source | {"monitoring/x/d.json": '{\n"expr": "rate(dak_none[5m])"}'}),
                         [("monitoring/x/d.json", 2)])


class Tidy(unittest.TestCase):
    def test_every_rule_has_a_test_in_which_it_fires(self):
        tested = {name.removeprefix("test_") for case in (RulesOnCode, RulesOnDocs) for name in dir(case)}
        for rule in rules_code.RULES + rules_docs.RULES:
            self.assertIn(rule.__name__, tested)

    def test_strip_code_keeps_lines(self):
        text = 'a; /* b\nc */ d("e\\"f"); // g\nR"(h\ni)" \'"\' j 1\'000\n'
        self.assertEqual(strip_code(text), "a; \n d(\"\"); \n\"\"\n '' j 1'000\n")


if __name__ == "__main__":
    unittest.main()
