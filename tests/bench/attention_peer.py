#!/usr/bin/env python3
"""Times PyTorch's scaled_dot_product_attention on the work of `dak-bench attention`, everything in HBM.

One new token a sequence, contiguous K and V (so without pages: the easier case), the best of the backends that take the
shape. Like the bench: several copies of K and V that don't fit in L2, back to back in a CUDA graph, the median of some
replays. Writes JSON, one result a line, for `dak-bench attention --peer FILE`.
"""
import argparse
import json
import statistics
import sys

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

MODELS = {"llama8b": (32, 8, 128), "llama70b": (64, 8, 128), "opt6.7b": (32, 32, 128), "opt30b": (56, 56, 128)}
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
ROTATED_BYTES = 300 << 20  # six times an H100's L2
LEAST_SECONDS = 2e-3  # of a graph, so that its launch doesn't show
REPEATS = 7


def time_graph(run, launches):
    """Median seconds of a launch, `launches` of them in a graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(2):
            run(i)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for i in range(launches):
            run(i)
    graph.replay()
    seconds = []
    for _ in range(REPEATS):
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) * 1e-3 / launches)
    return statistics.median(seconds)


def measure(heads, kv_heads, head_dim, batch, context, dtype):
    """Seconds by backend."""
    kv_bytes = batch * kv_heads * context * head_dim * 2 * 2
    copies = max(2, ROTATED_BYTES // kv_bytes + 1)
    shape = (batch, kv_heads, context, head_dim)
    kv = [(torch.randn(shape, device="cuda", dtype=dtype), torch.randn(shape, device="cuda", dtype=dtype))
          for _ in range(copies)]
    q = torch.randn((batch, heads, 1, head_dim), device="cuda", dtype=dtype)
    launches = max(copies, int(LEAST_SECONDS / (kv_bytes / 3e12)) + 1)
    results = {}
    for name, backend in BACKENDS.items():
        if name == "efficient" and heads != kv_heads:
            continue  # it takes no groups: K and V would have to be copied for each query head

        def run(i):
            k, v = kv[i % copies]
            functional.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv_heads)

        try:
            with sdpa_kernel(backend):
                results[name] = time_graph(run, launches)
        except RuntimeError as error:
            print(f"  {name}: {str(error).splitlines()[0]}", file=sys.stderr)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True)
    parser.add_argument("--model", default="llama8b", choices=[*MODELS, "all"])
    parser.add_argument("--batches", default="1,8,32")
    parser.add_argument("--contexts", default="4096,16384,65536")
    parser.add_argument("--most-gib", type=float, default=3, help="of K and V: what dak-bench's memory holds")
    parser.add_argument("--f16", action="store_true")
    options = parser.parse_args()
    dtype = torch.float16 if options.f16 else torch.bfloat16
    rows = []
    for model, (heads, kv_heads, head_dim) in MODELS.items():
        if options.model not in (model, "all"):
            continue
        for context in map(int, options.contexts.split(",")):
            for batch in map(int, options.batches.split(",")):
                if batch * kv_heads * context * head_dim * 4 > options.most_gib * 2**30:
                    continue
                results = measure(heads, kv_heads, head_dim, batch, context, dtype)
                if not results:
                    continue
                best = min(results, key=results.get)
                rows.append({"model": model, "batch": batch, "context": context, "us": round(results[best] * 1e6, 2),
                             "backend": best, "all_us": {k: round(v * 1e6, 2) for k, v in results.items()}})
                print(json.dumps(rows[-1]), flush=True)
    with open(options.json, "w", encoding="utf-8") as file:
        lines = ",\n".join(json.dumps(row) for row in rows)
        file.write(f'{{"device": "{torch.cuda.get_device_name(0)}", "torch": "{torch.__version__}", "rows": [\n'
                   f'{lines}\n]}}\n')


if __name__ == "__main__":
    main()
