"""docs/roofline.py: its arithmetic, its picture, and what it refuses."""

import copy
import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
SCRIPT = os.path.join(ROOT, "docs", "roofline.py")
sys.path.insert(0, os.path.dirname(SCRIPT))
sys.dont_write_bytecode = True
import roofline  # noqa: E402

TABLE = {
    "device": "A <fast> GPU",
    "ceilings": {"hbm_gbps": 3000.0, "link_sm_gbps": 50.0, "cublas_tflops": 600.0},
    "table": {"rows": [
        {"ratio": 0, "batch": 1, "hbm_gbps": 2900.0, "link_gbps": 0},
        {"ratio": 0.5, "batch": 64, "hbm_gbps": 49.0, "link_gbps": 49.0},
    ]},
}


class RooflineTest(unittest.TestCase):
    def test_roofs_are_the_slower_sides(self):
        points = roofline.Points([TABLE])
        self.assertAlmostEqual(points.roof(0, 2), 2 * 3000e9)
        self.assertAlmostEqual(points.roof(1, 2), 2 * 50e9)
        self.assertAlmostEqual(points.roof(0.5, 1), 100e9)
        self.assertAlmostEqual(points.roof(0, 10_000), 600e12)
        balanced = 50 / 3050
        self.assertAlmostEqual(points.roof(balanced, 1) / 3050e9, 1)

    def test_a_dot_is_all_bytes_times_the_batch(self):
        points = roofline.Points([TABLE])
        self.assertEqual(points.rows, [(0, 1, 2900e9), (0.5, 64, 98e9 * 64)])

    def test_every_row_is_in_the_picture_and_under_its_roof(self):
        with tempfile.TemporaryDirectory() as folder:
            tables = [os.path.join(folder, name) for name in ("a.json", "b.json")]
            second = copy.deepcopy(TABLE)
            second["table"]["rows"][0]["ratio"] = 0.01
            for path, table in zip(tables, (TABLE, second)):
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(table, file)
            picture = os.path.join(folder, "out.svg")
            subprocess.run([sys.executable, SCRIPT, *tables, picture], check=True)
            root = xml.etree.ElementTree.parse(picture).getroot()
        svg = "{http://www.w3.org/2000/svg}"
        dots = [c for c in root.iter(svg + "circle") if c.get("r") == "3.5"]
        self.assertEqual(len(dots), 4)
        for dot in dots:
            self.assertTrue(roofline.LEFT < float(dot.get("cx")) < roofline.WIDTH - roofline.RIGHT)
            self.assertTrue(roofline.TOP <= float(dot.get("cy")) <= roofline.HEIGHT - roofline.BOTTOM)
        words = [t.text for t in root.iter(svg + "text")]
        self.assertIn("Decode GEMM by share of remote rows, A <fast> GPU", words)
        self.assertIn("1 % remote", words)

    def test_refuses_what_it_cant_draw(self):
        empty = copy.deepcopy(TABLE)
        empty["table"]["rows"] = []
        with self.assertRaises(ValueError):
            roofline.Points([empty])
        result = subprocess.run([sys.executable, SCRIPT, "a.json"], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("usage", result.stderr)


if __name__ == "__main__":
    unittest.main()
