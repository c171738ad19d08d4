"""Prints the table of a comparison from what compare.sh collected.

table.py RESULTS.jsonl [BENCHMARK.json ...]    (the second: Google Benchmark's output of forward_bench, one a round)
"""

import collections
import json
import statistics
import sys

# What forward_bench calls the jobs that forward_transformers.py names.
FORWARD = {
    "forward_demo/f32": "forward to layer 3 of the demo model, f32",
    "forward_demo/bf16": "forward to layer 3 of the demo model, bf16",
    "forward_2b_layer/f32": "one layer of 2B's shape, 1024 tokens, f32",
    "forward_2b_layer/bf16": "one layer of 2B's shape, 1024 tokens, bf16",
}
OURS = "gemma_sae"

rates = collections.defaultdict(lambda: collections.defaultdict(list))  # job -> tool -> tokens/s of each round
with open(sys.argv[1]) as file:
    for line in map(json.loads, file):
        rates[line["job"]][line["tool"]].append(line["tokens_per_second"])
for path in sys.argv[2:]:
    with open(path) as file:
        runs = [b for b in json.load(file)["benchmarks"] if b.get("run_type") != "aggregate"]
    for name, job in FORWARD.items():
        rates[job][OURS].append(max(b["items_per_second"] for b in runs if b["name"].startswith(name + "/")))

rows = [("job", "tool", "tok/s", "rounds", "ours is faster by")]
for job, tools in rates.items():
    ours = statistics.median(tools[OURS]) if OURS in tools else None
    for tool, values in sorted(tools.items(), key=lambda item: item[0] != OURS):
        rate = statistics.median(values)
        ratio = f"{ours / rate:.2f} x" if ours and tool != OURS else ""
        spread = f"{min(values):,.0f} to {max(values):,.0f}" if len(values) > 1 else ""
        rows.append((job, tool, f"{rate:,.0f}", spread, ratio))
print("| " + " | ".join(rows[0]) + " |")
print("|---|---|---|---|---|")
for row in rows[1:]:
    print("| " + " | ".join(row) + " |")
