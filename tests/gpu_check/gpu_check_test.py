#!/usr/bin/env python3
"""gpu_check_test.py: how scripts/gpu-check runs what a tarball has, on tarballs whose programs are shell scripts."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "gpu-check")
PASSES = 'echo "$0 $@"'
RACECHECK_OUTPUT = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"


def is_running(process):
    try:
        return pathlib.Path("/proc", process, "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class GpuCheckTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.bundle, self.out = pathlib.Path(self.folder.name, "dak"), pathlib.Path(self.folder.name, "out")
        self.program("../../../tools/nvidia-smi", "echo name, driver; echo NVIDIA Test, 1.2")
        self.program("../../../tools/compute-sanitizer", f'echo "$@"; echo "{RACECHECK_OUTPUT}"')

    def tearDown(self):
        self.folder.cleanup()

    def program(self, name, body=PASSES, folder="libexec/dak/tests"):
        path = self.bundle / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.bundle / folder).mkdir(parents=True, exist_ok=True)
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
        path.resolve().write_text("#!/bin/sh\n" + body + "\n", encoding="utf-8")
        path.resolve().chmod(0o755)

    def check(self, *arguments):
        tools = str(self.bundle / "tools")
        environment = dict(os.environ, PATH=tools + os.pathsep + os.environ["PATH"])
        done = subprocess.run([SCRIPT, str(self.bundle), str(self.out), *arguments], capture_output=True, text=True,
                              env=environment, check=False)
        return done.returncode, done.stdout + done.stderr

    def read(self, name):
        return (self.out / name).read_text(encoding="utf-8")

    def test_keeps_output_machine_and_summary(self):
        self.program("dak_gpu_gemm_test")
        self.program("dak_gpu_probe_test")
        code, said = self.check("--only", "gemm_test,probe_test")
        self.assertEqual(code, 0, said)
        self.assertIn("2 passed, 0 failed", said)
        self.assertIn("libexec/dak/tests/dak_gpu_gemm_test", self.read("gemm_test.txt"))
        self.assertIn("NVIDIA Test, 1.2", self.read("machine.txt"))
        self.assertRegex(self.read("summary.txt"), r"gemm_test +passed +\d+\.\d s +libexec/dak/tests/dak_gpu_gemm_test")

    def test_failures_are_told_apart(self):
        self.program("dak_gpu_gemm_test", "echo wrong; exit 3")
        self.program("dak_gpu_probe_test")
        code, said = self.check("--only", "gemm_test,probe_test,device_test")  # device_test isn't there
        self.assertEqual(code, 1)
        self.assertIn("1 passed, 2 failed: gemm_test, device_test", said)
        self.assertIn("failed (3)", self.read("summary.txt"))
        self.assertIn("failed (No such file or directory)", self.read("summary.txt"))
        self.assertEqual(self.read("gemm_test.txt"), "wrong\n")

    def test_benches_write_json_into_the_folder_and_run_one_at_a_time(self):
        self.program("dak-bench", 'for a in "$@"; do case $a in --json=*) echo {} > "${a#--json=}";; esac; done\n'
                     f'mkdir {self.folder.name}/busy || exit 5; sleep 0.1; rmdir {self.folder.name}/busy')
        code, said = self.check("--only", "link,mix,launch")
        self.assertEqual(code, 0, said)
        for name in ("link", "mix", "launch"):
            self.assertEqual(self.read(name + ".json"), "{}\n")

    def test_the_demo_is_in_bin_and_sanitizers_get_programs_of_the_bundle(self):
        self.program("dak-demo", folder="bin")
        self.program("dak_gpu_gemm_test")
        code, said = self.check("--only", "demo,memcheck_gemm,racecheck_gemm")
        self.assertEqual(code, 0, said)
        self.assertIn("/dak/bin/dak-demo --device=cuda", self.read("demo.txt"))
        self.assertIn("--tool memcheck --error-exitcode 9 ", self.read("memcheck_gemm.txt"))
        self.assertIn("/dak/libexec/dak/tests/dak_gpu_gemm_test", self.read("memcheck_gemm.txt"))
        self.assertIn("races 0", self.read("racecheck_gemm.txt"))
        self.assertIn(RACECHECK_OUTPUT, self.read("racecheck_gemm_all.txt"))

    def test_what_has_no_time_is_said_and_does_not_begin(self):
        self.program("dak_gpu_gemm_test")
        self.program("dak_gpu_probe_test")
        code, said = self.check("--only", "gemm_test,probe_test", "--limit", "20")  # gemm_test would take longer
        self.assertEqual(code, 0, said)
        self.assertIn("no time for gemm_test", said)
        self.assertFalse((self.out / "gemm_test.txt").exists())
        self.assertRegex(self.read("summary.txt"), r"gemm_test +not run")

    def test_a_program_that_hangs_is_stopped_when_all_time_is_over(self):
        self.program("dak-bench", "trap 'echo asked; exit 0' TERM; echo begun; sleep 100 & echo $! > "
                     f"{self.folder.name}/child; wait")
        code, said = self.check("--only", "launch", "--limit", "5.2")
        self.assertEqual(code, 1)
        self.assertIn("1 failed: launch", said)
        self.assertRegex(self.read("summary.txt"), r"launch +out of time")
        self.assertEqual(self.read("launch.txt"), "begun\nasked\n")
        child = pathlib.Path(self.folder.name, "child").read_text(encoding="utf-8").strip()
        self.assertFalse(is_running(child), "what the program started is gone too")

    def test_wrong_arguments_are_named(self):
        code, said = self.check("--only", "gemm_test,nothing")
        self.assertEqual(code, 1)
        self.assertIn("--only: nothing is neither a stage nor a job", said)
        done = subprocess.run([SCRIPT, self.folder.name, str(self.out)], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("has no libexec/dak/tests/", done.stderr)
        done = subprocess.run([SCRIPT, self.folder.name], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("one for results", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
