#!/usr/bin/env python3
"""racecheck_test.py: what scripts/racecheck thinks of a sanitizer's output, and of programs that it runs."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "racecheck")
KERNEL = "void dak::kernels::<unnamed>::DecodeGemm<(int)8>(dak::kernels::DecodeParams)"
POLLED = f"""========= Error: Race reported between Read access at {KERNEL}+0x15e0 in /src/kernels/polled.cuh:19
=========     and Write access at {KERNEL}+0x6a80 in /src/kernels/polled.cuh:20 [16 hazards]
=========     and Write access at {KERNEL}+0x6a90 in /src/kernels/polled.cuh:20 [1 hazard]
=========
"""
OTHER = f"""========= Warning: Race reported between Write access at {KERNEL}+0x15e0 in /src/kernels/polled.cuh:20
=========     and Read access at {KERNEL}+0x6a80 in /src/kernels/gemm_sm90.cu:230 [8 hazards]
=========
"""
MERGED = f"""========= Error: Race reported between Read access at {KERNEL}+0x15e0 in /src/kernels/polled.cuh:19
=========     and Write access at {KERNEL}+0x6a80 [16 hazards]
=========
"""
BARE = f"""========= Error: Race reported between Read access at {KERNEL}+0x15e0
=========     and Write access at {KERNEL}+0x6a80 [16 hazards]
=========
"""


def output(*reports):
    return ("========= COMPUTE-SANITIZER\n[ RUN      ] GemmSmallTest.X\n" + "".join(reports) +
            f"========= RACECHECK SUMMARY: {len(reports)} hazards displayed ({len(reports)} errors, 0 warnings)\n")


class RacecheckTest(unittest.TestCase):
    def judge(self, text):
        with tempfile.TemporaryDirectory() as folder:
            kept = pathlib.Path(folder, "kept.txt")
            kept.write_text(text, encoding="utf-8")
            done = subprocess.run([SCRIPT, "--judge", str(kept)], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr

    def test_polled_words_are_by_design(self):
        self.assertEqual(self.judge(output()), (0, "racecheck: reports 0, by design (all in polled.cuh) 0, races 0\n"))
        code, said = self.judge(output(POLLED, POLLED))
        self.assertEqual(code, 0, said)
        self.assertIn("reports 2, by design (all in polled.cuh) 2, races 0", said)

    def test_an_access_elsewhere_is_a_race(self):
        code, said = self.judge(output(POLLED, OTHER))
        self.assertEqual(code, 1)
        self.assertIn("race: write at /src/kernels/polled.cuh:20, read at /src/kernels/gemm_sm90.cu:230", said)
        self.assertIn("reports 2, by design (all in polled.cuh) 1, races 1", said)

    def test_an_instruction_without_a_line_counts_by_what_it_meets(self):
        code, said = self.judge(output(POLLED, MERGED))
        self.assertEqual(code, 0, said)
        self.assertIn("racecheck: 1 reports have an access without a source line", said)
        self.assertIn("reports 2, by design (all in polled.cuh) 2, races 0", said)
        code, said = self.judge(output(MERGED.replace("polled.cuh:19", "gemm_sm90.cu:230")))
        self.assertEqual(code, 1, said)
        self.assertIn("race: read at /src/kernels/gemm_sm90.cu:230, write at an instruction without a line", said)

    def test_what_says_too_little_is_not_judged(self):
        for text, reason in ((output(BARE), "no source lines"), (POLLED, "no summary"),
                             (output(POLLED, "=========\n"), "2 hazards are displayed and 1 understood")):
            code, said = self.judge(text)
            self.assertEqual(code, 2, said)
            self.assertIn(reason, said)

    def test_a_file_that_is_not_there_is_named(self):
        done = subprocess.run([SCRIPT, "--judge", "/nowhere/kept.txt"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("/nowhere/kept.txt", done.stderr)

    def test_wants_a_program_or_a_file(self):
        for arguments in ([], ["--judge", "x", "program"]):
            done = subprocess.run([SCRIPT] + arguments, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 2)
            self.assertIn("give a program, or --judge FILE", done.stderr)

    def test_runs_a_program_under_the_sanitizer(self):
        for exit_code, report, expected in ((0, POLLED, 0), (0, OTHER, 1), (3, POLLED, 1)):
            with tempfile.TemporaryDirectory() as folder:
                out = pathlib.Path(folder, "out.txt")
                out.write_text(output(report), encoding="utf-8")
                fake = pathlib.Path(folder, "compute-sanitizer")
                fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/arguments\ncat {out}\nexit {exit_code}\n',
                                encoding="utf-8")
                fake.chmod(0o755)
                environment = dict(os.environ, PATH=folder + os.pathsep + os.environ["PATH"])
                done = subprocess.run([SCRIPT, "--keep", f"{folder}/kept", "prog", "--gtest_filter=A.*"],
                                      capture_output=True, text=True, env=environment, check=False)
                self.assertEqual(done.returncode, expected, done.stdout + done.stderr)
                arguments = pathlib.Path(folder, "arguments").read_text(encoding="utf-8").split()
                self.assertEqual(arguments[:2] + arguments[-2:], ["--tool", "racecheck", "prog", "--gtest_filter=A.*"])
                kept = pathlib.Path(folder, "kept").read_text(encoding="utf-8")
                self.assertEqual(kept, out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
