"""How the peers' scripts hand over what they measured: one JSON object a line, appended to a file."""

import json


def append(path, tool, job, tokens, seconds, **more):
    line = dict(tool=tool, job=job, tokens=tokens, seconds=seconds, tokens_per_second=tokens / seconds, **more)
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
