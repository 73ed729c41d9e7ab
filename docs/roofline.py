#!/usr/bin/env python3
"""Draws the decode GEMM's roofline from dak-bench's JSON: docs/roofline.py TABLE.json... OUT.svg

Every row of the tables is a dot. To the right is the batch, which is the intensity too: a byte of 16-bit weights takes
part in as many floating-point operations as x has rows. Up is the rate. A ratio's roof is what both memories give
together when its remote rows stream at the link's rate and the others at HBM's: the ceilings that the first table was
measured with, under cuBLAS's rate.
"""

import json
import math
import sys

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 80, 150, 50, 60
COLOURS = ["#1b6ca8", "#2a9d8f", "#8ab17d", "#e9c46a", "#f4a261", "#e76f51", "#9d4edd", "#6c757d"]


class Points:
    """The rows of all tables, as (ratio, batch, flops per second), and the ceilings of the first."""

    def __init__(self, tables):
        self.device = tables[0]["device"]
        ceilings = tables[0]["ceilings"]
        self.hbm = ceilings["hbm_gbps"] * 1e9
        self.link = ceilings["link_sm_gbps"] * 1e9
        self.flops = ceilings["cublas_tflops"] * 1e12
        self.rows = []
        for table in tables:
            for row in table["table"]["rows"]:
                rate = (row["hbm_gbps"] + row["link_gbps"]) * 1e9
                self.rows.append((row["ratio"], row["batch"], rate * row["batch"]))
        if not self.rows:
            raise ValueError("the tables have no rows")
        self.ratios = sorted({ratio for ratio, _, _ in self.rows})

    def bandwidth(self, ratio):
        """Bytes of weights a second when both sides end together, or the slower one ends."""
        times = [(1 - ratio) / self.hbm, ratio / self.link]
        return 1 / max(times)

    def roof(self, ratio, batch):
        return min(self.bandwidth(ratio) * batch, self.flops)


class Axes:
    """Logarithmic both ways, over whole decades upwards."""

    def __init__(self, points):
        self.most_batch = max(batch for _, batch, _ in points.rows) * 1.5
        rates = [rate for _, _, rate in points.rows]
        self.low = 10 ** math.floor(math.log10(min(rates)))
        self.high = 10 ** math.ceil(math.log10(max(rates + [points.flops])))

    def x(self, batch):
        share = math.log(batch / 0.8) / math.log(self.most_batch / 0.8)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, rate):
        share = math.log(rate / self.low) / math.log(self.high / self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def text(x, y, words, anchor="middle", colour="#333", size=13):
    words = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{words}</text>'


def line(points, colour, extra=""):
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" {extra}/>'


def frame(axes):
    bottom = HEIGHT - BOTTOM
    parts = []
    batch = 1
    while batch <= axes.most_batch:
        x = axes.x(batch)
        parts += [line([(x, TOP), (x, bottom)], "#e5e5e5"), text(x, bottom + 20, str(batch))]
        batch *= 2
    rate = axes.low
    while rate <= axes.high * 1.001:
        y = axes.y(rate)
        parts += [line([(LEFT, y), (WIDTH - RIGHT, y)], "#e5e5e5"), text(LEFT - 8, y + 4, f"{rate / 1e12:g}", "end")]
        rate *= 10
    middle = (TOP + bottom) / 2
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 15, "batch = operations a byte of weights"))
    parts.append(f'<g transform="rotate(-90 22 {middle:.1f})">{text(22, middle, "TFLOP/s")}</g>')
    return parts


def draw(points):
    axes = Axes(points)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
             text(LEFT, 28, f"Decode GEMM by share of remote rows, {points.device}", "start", "#111", 16)]
    parts += frame(axes)
    batches = [2 ** (i / 8) * 0.8 for i in range(200) if 2 ** (i / 8) * 0.8 <= axes.most_batch] + [axes.most_batch]
    for i, ratio in enumerate(points.ratios):
        colour = COLOURS[i % len(COLOURS)]
        roof = [(axes.x(b), axes.y(max(points.roof(ratio, b), axes.low))) for b in batches]
        parts.append(line(roof, colour, 'stroke-width="1.5" stroke-opacity="0.7"'))
        for row_ratio, batch, rate in points.rows:
            if row_ratio == ratio:
                parts.append(f'<circle cx="{axes.x(batch):.1f}" cy="{axes.y(rate):.1f}" r="3.5" fill="{colour}"/>')
        y = TOP + 20 + 22 * i
        parts.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{y - 4}" r="5" fill="{colour}"/>')
        parts.append(text(WIDTH - RIGHT + 32, y, f"{100 * ratio:g} % remote", "start"))
    return "\n".join(parts + ["</svg>", ""])


def main(arguments):
    if len(arguments) < 2 or not arguments[-1].endswith(".svg"):
        sys.exit("usage: docs/roofline.py TABLE.json... OUT.svg")
    tables = []
    for path in arguments[:-1]:
        with open(path, encoding="utf-8") as file:
            tables.append(json.load(file))
    picture = draw(Points(tables))
    with open(arguments[-1], "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main(sys.argv[1:])
