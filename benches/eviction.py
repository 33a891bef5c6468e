"""Hit ratios of other algorithms on the same traces, for the table of benches/eviction.rs.

Needs libcachesim from PyPI: `python eviction.py DIR > others.txt`.
"""

import lzma
import re
import struct
import sys

import libcachesim

ALGORITHMS = {
    "LRU": libcachesim.LRU,
    "S3-FIFO": libcachesim.S3FIFO,
    "SIEVE": libcachesim.Sieve,
    "W-TinyLFU": libcachesim.WTinyLFU,
    "LFU-DA": libcachesim.LFUDA,
    "GDSF": libcachesim.GDSF,
    "Belady": libcachesim.Belady,
}
PERCENTS = [1, 5, 10, 20]
LOGGED = re.compile(r'[^"]*"GET (\S*)[^"]*" (200|206|304) (\d*)')


def logged(text):
    found = [m.groups() for m in map(LOGGED.match, text.splitlines()) if m]
    longest = {}
    for target, status, size in found:
        if status == "200":
            longest[target] = max(longest.get(target, 0), int(size or 0))
    return [(t, max(1, longest[t])) for t, _, _ in found if t in longest]


def traces(folder):
    plain = lambda name: lzma.open(f"{folder}/{name}.xz").read()
    timed = plain("adaptsize.trace").decode().splitlines()
    yield "adaptsize", [tuple(map(int, line.split()[1:3])) for line in timed]
    yield "semicomplete", logged(plain("semicomplete_access.log").decode(errors="replace"))
    for name in ("web07", "web12"):
        ids = plain(f"{name}.trace")
        yield name, [(id, 1) for (id,) in struct.iter_unpack(">I", ids[: len(ids) // 4 * 4])]


def ratios(algorithm, trace, room):
    cache = algorithm(room)
    following, next_at = [0] * len(trace), {}
    for at in reversed(range(len(trace))):
        following[at] = next_at.get(trace[at][0], 2**62)
        next_at[trace[at][0]] = at
    numbers, hits, hit_bytes = {}, 0, 0
    for at, (target, size) in enumerate(trace):
        request = libcachesim.Request(
            obj_id=numbers.setdefault(target, len(numbers)),
            obj_size=size,
            clock_time=at + 1,
            next_access_vtime=following[at],
            op=libcachesim.ReqOp.OP_GET,
        )
        if cache.get(request):
            hits, hit_bytes = hits + 1, hit_bytes + size
    return f"{hits / len(trace):.6f}/{hit_bytes / sum(size for _, size in trace):.6f}"


for name, trace in traces(sys.argv[1]):
    footprint = sum(dict(reversed(trace)).values())
    for label, algorithm in ALGORITHMS.items():
        if label == "LFU-DA" and all(size == 1 for _, size in trace):
            # It counts up to the next frequency in use, which takes hours; GDSF is the same here.
            algorithm = libcachesim.GDSF
        cells = (ratios(algorithm, trace, max(1, footprint * p // 100)) for p in PERCENTS)
        print(name, label, *cells, sep="\t", flush=True)
