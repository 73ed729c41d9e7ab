#!/usr/bin/env python3
"""plot_test.py PLOT: what scripts/plot draws of each kind of JSON, and what it says of files that it can't draw."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

PLOT = str(pathlib.Path(__file__).resolve().parents[2] / "scripts" / "plot")

COURSE = {
    "courses": [{
        "name": "sharing", "step_ms": 10, "states": [{"name": "a joins", "t_ms": 0}, {"name": "b <joins>", "t_ms": 20}],
        "sessions": [
            {"name": "a", "role": "remote", "weight": 100, "gbps": [1, 2, 1.5], "window_kib": [184, 184, 96]},
            {"name": "b", "role": "remote", "weight": 200, "gbps": [0, 0, 1.5], "window_kib": [0, 0, 96]},
            {"name": "h", "role": "hbm", "weight": 100, "gbps": [3000, 2990, 2980], "window_kib": [0, 0, 0]}],
        "controller": {"t_ms": [0, 5, 10], "target_kib": [180, 180, 190]}}]}
ROOFLINE = {
    "ceilings": {"hbm_gbps": 3000, "link_sm_gbps": 51, "cublas_tflops": 700},
    "table": {"title": "gemm", "rows": [
        {"shape": "qkv", "batch": 1, "ratio": 0, "dak_us": 20, "hbm_gbps": 2700, "link_gbps": 0},
        {"shape": "qkv", "batch": 64, "ratio": 0, "dak_us": 20, "hbm_gbps": 2700, "link_gbps": 0},
        {"shape": "down", "batch": 64, "ratio": 0.5, "dak_us": 20, "hbm_gbps": 40, "link_gbps": 40}]}}
GROWTH = {"benchmarks": [{"name": f"BM_OnePassGrowth/{n}", "run_type": "iteration", "operations": n,
                          "cpu_time": n * 20.0, "time_unit": "ns"} for n in (256, 1024, 4096)]
          + [{"name": "BM_OnePassGrowth_BigO", "run_type": "aggregate", "cpu_coefficient": 1}]}
PREDICT = {"table": {"title": "predict: a pass", "rows": [
    {"batch": batch, "ratio": ratio, "result": "ok", "predicted_ms": 10 + 90 * ratio, "measured_ms": 11 + 90 * ratio}
    for batch in (1, 64) for ratio in (0, 0.1, 0.5)] + [{"batch": 512, "ratio": 0, "result": "not run: no kernel"}]}}
# As the bench prints them.
PRINTED = """
2 processes ready after 0.1 s; a (12 SMs)

sharing: equal weights, a GPU
              state  sessions link_gbps target_kib round_trip_us                bars
            a joins         1      49.5      183.6          3.54                 met
            b joins         2      50.1      164.4         3.076                 met

hbm: a stream of HBM, a GPU
         neighbours  hbm_gbps   of_idle link_gbps round_trip_us                 bar
    none, fewer SMs      2364         -         0             0                   -
             remote      2182    0.9471      48.9          3.41              MISSED
"""


class PlotTest(unittest.TestCase):
    def run_plot(self, kind, content, name=None, source_name="in.json"):
        """The exit code, what it said, and the SVG's elements by tag."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = pathlib.Path(folder, source_name), pathlib.Path(folder, "out.svg")
            if content is not None:
                source.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
            done = subprocess.run([sys.executable, PLOT, kind, str(source), str(target)] + ([name] if name else []),
                                  capture_output=True, text=True, check=False)
            elements = {}
            if target.exists():
                for element in ElementTree.parse(target).iter():
                    elements.setdefault(element.tag.split("}")[1], []).append(element)
            return done.returncode, done.stderr, elements

    def drawn(self, kind, content, name=None, source_name="in.json"):
        code, error, elements = self.run_plot(kind, content, name, source_name)
        self.assertEqual((code, error), (0, ""))
        return elements

    def test_a_course_has_a_line_a_session_its_window_and_the_target(self):
        elements = self.drawn("course", COURSE, "shar")
        self.assertEqual(len(elements["polyline"]), 3 + 2 + 1)
        texts = [element.text for element in elements["text"]]
        for label in ("b (weight 200)", "b <joins>", "HBM, GB/s", "window, KiB", "target"):
            self.assertIn(label, texts)

    def test_many_states_are_written_upwards_and_streams_are_hbms(self):
        content = json.loads(json.dumps(COURSE))
        course = content["courses"][0]
        course["sessions"][2]["role"] = "stream"
        course["states"] = [{"name": f"state {i}", "t_ms": i} for i in range(15)]
        texts = self.drawn("course", content)["text"]
        self.assertIn("HBM, GB/s", [element.text for element in texts])
        upwards = [element.text or "" for element in texts if "rotate(-90)" in (element.get("transform") or "")]
        self.assertEqual([text for text in upwards if text.startswith("state")], [f"state {i}" for i in range(15)])

    def test_a_roofline_has_a_point_a_row_and_a_limit_a_ratio(self):
        elements = self.drawn("roofline", ROOFLINE)
        self.assertEqual(len(elements["circle"]), 3)
        self.assertEqual(len(elements["polyline"]), 2)
        self.assertEqual(len(self.drawn("roofline", ROOFLINE, "qkv")["circle"]), 2)

    def test_growth_has_a_point_a_size_and_a_fit(self):
        elements = self.drawn("growth", GROWTH)
        self.assertEqual(len(elements["circle"]), 3)
        self.assertEqual(len(elements["polyline"]), 1)

    def test_states_are_steps_under_their_names_from_print_or_json(self):
        elements = self.drawn("states", PRINTED, "sharing:", "run.txt")
        self.assertEqual(len(elements["polyline"]), 3)  # rate, target, round trip
        texts = [element.text for element in elements["text"]]
        for label in ("a joins", "b joins", "target, KiB"):
            self.assertIn(label, texts)
        points = elements["polyline"][0].get("points").split()
        self.assertEqual(len(points), 4)
        self.assertEqual(points[0].split(",")[1], points[1].split(",")[1])
        elements = self.drawn("states", PRINTED, "hbm:", "run.txt")
        self.assertEqual(len(elements["polyline"]), 2)  # HBM and link: there is no round trip between sessions
        self.assertIn("none, fewer SMs", [element.text for element in elements["text"]])
        table = {"title": "sharing: x", "rows": [{"state": "a joins", "link_gbps": 49.5, "target_kib": 183.6}]}
        self.assertEqual(len(self.drawn("states", {"tables": [table]}, "sharing")["polyline"]), 2)

    def test_predictions_have_a_line_and_points_a_batch_that_was_run(self):
        elements = self.drawn("predict", PREDICT)
        self.assertEqual(len(elements["polyline"]), 2)
        self.assertEqual(len(elements["circle"]), 6)

    def test_says_what_it_cannot_draw(self):
        for kind, content, name, word in (("course", COURSE, "hbm", "no course whose name holds 'hbm'"),
                                          ("growth", COURSE, None, "no benchmark BM_OnePassGrowth"),
                                          ("roofline", {"ceilings": {}}, None, "nothing to draw"),
                                          ("states", PREDICT, "hbm", "no table whose title holds 'hbm'"),
                                          ("predict", {}, None, "no table whose title holds ''"),
                                          ("course", "no json", None, "Expecting value"),
                                          ("course", None, None, "No such file")):
            code, error, elements = self.run_plot(kind, content, name)
            self.assertEqual((code, elements), (1, {}), kind)
            self.assertIn(word, error)

    def test_refuses_kinds_that_it_does_not_know(self):
        code, error, _ = self.run_plot("pie", COURSE)
        self.assertEqual(code, 2)
        self.assertIn("roofline", error)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        PLOT = sys.argv.pop(1)
    unittest.main()
