#!/usr/bin/env python3
"""Checks and times decode attention over compressed pages on a CUDA device, beside torch's fp16 attention.

    gpu_attention.py --library build/cuda/src/libkvant_c.so [--json FILE] [--check-only] [--quick]

Check: every codec, head size and page mix against attention in double precision over the decoded blocks; the relative
error (Frobenius) must be at most 2e-3. Time: medians of replays of CUDA graphs, kvant and torch in turns, over caches that
together exceed the second-level cache by far; page tables are shuffled, codes are those of random rows. The time of kvant
holds everything: query map, attention, merge. Exits 1 when a check fails.
"""

import argparse
import ctypes
import itertools
import json
import math
import re
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

PAGE = 64
MAX_ERROR = 2e-3
ROTATE_BYTES = 640 << 20  # more than ten times an H200's second-level cache
ALL = (1 << 64) - 1
TICKET_BYTES = 4096

# Keys, values, head size: what the kernels read.
TRELLIS_3, TRELLIS_2 = "decoquant:3,code=trellis", "decoquant:2,code=trellis"
SKETCH, SKETCH_OUTLIERS = "qjl:first_layers=0,outliers=0", "qjl:first_layers=0"
CODECS = [
    ("raw", "raw", 128), ("int:8", "int:8", 128), ("int:4", "int:4", 128), ("int:3", "int:3", 128), ("int:2", "int:2", 128),
    ("int:4", "int:2", 128), ("decoquant:4", "decoquant:4", 128), ("decoquant:3", "decoquant:3", 128),
    ("decoquant:2", "decoquant:2", 128), ("decoquant:4", "decoquant:2", 128), (TRELLIS_3, TRELLIS_3, 128),
    (TRELLIS_2, TRELLIS_2, 128), ("turboquant:4", "turboquant:4", 128), ("turboquant:3", "turboquant:3", 128),
    ("turboquant:2", "turboquant:2", 128), ("turboquant:4", "turboquant:2", 128), ("kivi:4", "kivi:4", 128),
    ("kivi:2", "kivi:2", 128), ("kivi:4,group=64", "kivi:4,group=64", 128), ("kivi:2,group=64", "kivi:2,group=64", 128),
    (SKETCH, "qjl", 128), (SKETCH, "qjl:group=64", 128), (SKETCH_OUTLIERS, "qjl", 128), ("qjl:outliers=0", "qjl", 128),
    ("qjl", "qjl", 128),
]  # fmt: skip
OTHER_DIMS = [
    ("raw", "raw", 64), ("int:8", "int:8", 64), ("int:4", "int:4", 64), ("int:2", "int:2", 64),
    ("decoquant:4", "decoquant:4", 64), ("decoquant:3", "decoquant:3", 64), ("decoquant:2", "decoquant:2", 64),
    (TRELLIS_3, TRELLIS_3, 64), (TRELLIS_2, TRELLIS_2, 64), ("turboquant:4", "turboquant:4", 64),
    ("turboquant:3", "turboquant:3", 64), ("turboquant:2", "turboquant:2", 64), ("kivi:4", "kivi:4", 64),
    ("kivi:2", "kivi:2", 64), ("kivi:4,group=64", "kivi:4,group=64", 64), ("kivi:2,group=64", "kivi:2,group=64", 64),
    (SKETCH, "qjl", 64),
    ("raw", "raw", 256), ("int:8", "int:8", 256), ("int:4", "int:4", 256), ("decoquant:4", "decoquant:4", 256),
    ("turboquant:4", "turboquant:4", 256),
]  # fmt: skip


def decodes_on_device(key, side):
    return side != KEY or not key.startswith("qjl")


# --- the C API ---------------------------------------------------------------------------------------------------------

KEY, VALUE, EXACT_KEY, EXACT_VALUE = range(4)


class Pages(ctypes.Structure):
    _fields_ = [("key_pool", ctypes.c_void_p), ("value_pool", ctypes.c_void_p), ("table", ctypes.c_void_p),
                ("counts", ctypes.c_void_p), ("max_pages", ctypes.c_int32), ("key_stride", ctypes.c_size_t),
                ("value_stride", ctypes.c_size_t)]  # fmt: skip


class Args(ctypes.Structure):
    _fields_ = [("sealed", Pages), ("exact", Pages), ("sequences", ctypes.c_int32), ("kv_heads", ctypes.c_int32),
                ("heads_per_kv", ctypes.c_int32), ("rows", ctypes.c_int32), ("query_type", ctypes.c_int),
                ("out_type", ctypes.c_int), ("scale", ctypes.c_float), ("soft_cap", ctypes.c_float),
                ("sinks", ctypes.c_void_p), ("queries", ctypes.c_void_p), ("out", ctypes.c_void_p),
                ("workspace", ctypes.c_void_p), ("workspace_bytes", ctypes.c_size_t), ("tickets", ctypes.c_void_p),
                ("sealed_ready", ctypes.c_int32), ("ragged", ctypes.c_int32), ("fixed_pages", ctypes.c_int32)]  # fmt: skip


class EncodeArgs(ctypes.Structure):
    _fields_ = [("side", ctypes.c_int), ("pages", ctypes.c_int32), ("kv_heads", ctypes.c_int32), ("rows", ctypes.c_void_p),
                ("slots", ctypes.c_void_p), ("pool", ctypes.c_void_p), ("slot_stride", ctypes.c_size_t),
                ("refused", ctypes.c_void_p)]  # fmt: skip


class DecodeArgs(ctypes.Structure):
    _fields_ = [("side", ctypes.c_int), ("pages", ctypes.c_int32), ("kv_heads", ctypes.c_int32), ("pool", ctypes.c_void_p),
                ("slot_stride", ctypes.c_size_t), ("slots", ctypes.c_void_p), ("rows", ctypes.c_void_p)]  # fmt: skip


class Rows(ctypes.Structure):
    _fields_ = [("rows", ctypes.c_void_p), ("type", ctypes.c_int), ("row_stride", ctypes.c_size_t), ("pool", ctypes.c_void_p),
                ("slot_stride", ctypes.c_size_t)]  # fmt: skip


class WriteArgs(ctypes.Structure):
    _fields_ = [("keys", Rows), ("values", Rows), ("count", ctypes.c_int32), ("kv_heads", ctypes.c_int32),
                ("targets", ctypes.c_void_p), ("refused", ctypes.c_void_p)]  # fmt: skip


class PageList(ctypes.Structure):
    _fields_ = [("pages", ctypes.c_void_p), ("counts", ctypes.c_void_p), ("max_pages", ctypes.c_int32),
                ("table", ctypes.c_void_p), ("table_counts", ctypes.c_void_p)]  # fmt: skip


class TableArgs(ctypes.Structure):
    _fields_ = [("sealed", PageList), ("exact", PageList), ("streams", ctypes.c_int32), ("rows", ctypes.c_int32),
                ("cells", ctypes.c_int32), ("mask", ctypes.c_void_p), ("mask_row_stride", ctypes.c_size_t),
                ("mask_stream_stride", ctypes.c_size_t)]  # fmt: skip


def current_stream():
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)


class Library:
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.kvant_error_message.restype = ctypes.c_char_p
        self.c.kvant_device_block_bytes.restype = ctypes.c_size_t

    def check(self, status):
        if status != 0:
            raise RuntimeError(f"kvant: {self.c.kvant_error_message().decode()}")


class Codec:
    def __init__(self, library, key, value, dim):
        self.library, self.name, self.dim = library, f"k={key} v={value} d={dim}", dim
        self.handle = ctypes.c_void_p()
        library.check(library.c.kvant_device_codec_create(key.encode(), value.encode(), dim, ctypes.byref(self.handle)))
        self.bytes = [library.c.kvant_device_block_bytes(self.handle, side) for side in range(4)]

    def blocks(self, side, count, seed):
        """`count` random blocks: bytes [count, block bytes] in device order, and their decoded rows [count, 64, dim]."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(count, PAGE, self.dim, generator=generator)
        rows += 0.5 * torch.randn(1, 1, self.dim, generator=generator)  # channels have means, as keys do
        block = torch.empty(count, self.bytes[side], dtype=torch.uint8)
        decoded = torch.empty_like(rows)
        for i in range(count):
            at, to = rows[i].data_ptr(), block[i].data_ptr()
            self.library.check(self.library.c.kvant_device_encode(self.handle, side, ctypes.c_void_p(at), ctypes.c_void_p(to)))
            self.library.check(self.library.c.kvant_device_decode(
                self.handle, side, ctypes.c_void_p(to), ctypes.c_void_p(decoded[i].data_ptr())))
        return block.cuda(), decoded.cuda()

    def encode_pages(self, side, rows, slots, pool, refused):
        """rows fp16 [pages, 64, kv_heads, dim] -> pool uint8 [slots, bytes from slot to slot], on the current stream."""
        args = EncodeArgs(side, rows.shape[0], rows.shape[2], rows.data_ptr(), slots.data_ptr(), pool.data_ptr(),
                          pool.stride(0), refused.data_ptr())  # fmt: skip
        self.library.check(self.library.c.kvant_device_encode_pages(self.handle, ctypes.byref(args), current_stream()))

    def decode_pages(self, side, pool, slots, rows):
        """The inverse."""
        args = DecodeArgs(side, rows.shape[0], rows.shape[2], pool.data_ptr(), pool.stride(0), slots.data_ptr(), rows.data_ptr())
        self.library.check(self.library.c.kvant_device_decode_pages(self.handle, ctypes.byref(args), current_stream()))

    def write_rows(self, keys, values, targets, refused):
        """Of each side None, or rows [count, kv_heads, dim] and a pool of exact pages as above, on the current stream."""
        sides = [Rows(None, 0, 0, None, 0) if side is None else
                 Rows(side[0].data_ptr(), int(side[0].dtype == torch.float32), side[0].stride(0) * side[0].element_size(),
                      side[1].data_ptr(), side[1].stride(0)) for side in (keys, values)]  # fmt: skip
        kv_heads = (keys or values)[0].shape[1]
        args = WriteArgs(*sides, len(targets), kv_heads, targets.data_ptr(), refused.data_ptr())
        self.library.check(self.library.c.kvant_device_write_rows(self.handle, ctypes.byref(args), current_stream()))


def pool_of(blocks, gap):
    """Blocks [slots, kv_heads, bytes] -> a pool with `gap` bytes of something else (as halves no numbers) after each slot."""
    pool = torch.full((blocks.shape[0], blocks[0].numel() + gap), 0xFF, dtype=torch.uint8, device=blocks.device)
    pool[:, : blocks[0].numel()] = blocks.flatten(1)
    return pool


class Kind:
    """Pages of one kind on the device: pools filled from a few blocks, shuffled tables for several caches. `gap`: bytes between
    the keys of two slots, of values twice as many."""

    def __init__(self, codec, sides, pages, kv_heads, caches, seed, live=ALL, templates=64, query_rows=1, gap=0):
        generator = torch.Generator().manual_seed(seed)
        self.pages, self.max_pages = pages, max(pages)
        self.slot_bytes = kv_heads * sum(codec.bytes[side] for side in sides)
        slots = max(1, caches * sum(pages))
        self.which = torch.randint(templates, (2, slots, kv_heads), generator=generator).cuda()
        self.pools, self.rows = [], []
        for i, side in enumerate(sides):
            blocks, rows = codec.blocks(side, templates, seed + i)
            self.pools.append(pool_of(blocks[self.which[i]], (i + 1) * gap))
            self.rows.append(rows)
        self.counts = torch.tensor(pages, dtype=torch.int32).cuda()
        order = torch.randperm(slots, generator=generator)
        self.live, self.query_rows, self.slots, self.tables, first = live, query_rows, [], [], 0
        for _ in range(caches):
            table = torch.zeros(len(pages), max(1, self.max_pages), 2, dtype=torch.int64)
            self.slots.append([])
            for s, count in enumerate(pages):
                mine = order[first : first + count]
                first += count
                self.slots[-1].append(mine)
                table[s, :count, 0] = -1
                if count:
                    table[s, 0, 0] = live if live < 1 << 63 else live - (1 << 64)
                # Of the last rows - 1 tokens, the first query row sees none, the next one, ...
                ahead = torch.clamp(query_rows - 1 - PAGE * torch.arange(count - 1, -1, -1), min=0)
                table[s, :count, 1] = mine + (ahead << 32)
            self.tables.append(table.cuda())

    def struct(self, cache):
        return Pages(self.pools[0].data_ptr(), self.pools[1].data_ptr(), self.tables[cache].data_ptr(),
                     self.counts.data_ptr(), self.max_pages, self.pools[0].stride(0), self.pools[1].stride(0))  # fmt: skip

    def bytes(self):
        """Of one cache."""
        return sum(self.pages) * self.slot_bytes

    def decoded(self, cache, sequence, head, query_row):
        """Rows of one head that a query row sees, keys and values, in double precision."""
        slots = self.slots[cache][sequence].cuda()
        rows = [r[self.which[i][slots, head]].reshape(-1, r.shape[-1]).double() for i, r in enumerate(self.rows)]
        seen = torch.ones(rows[0].shape[0], dtype=torch.bool)
        for t in range(min(PAGE, len(seen))):
            seen[t] = bool(self.live >> t & 1)
        if hidden := self.query_rows - 1 - query_row:
            seen[max(0, len(seen) - hidden) :] = False
        return [r[seen.cuda()] for r in rows]


class Problem:
    """Caches with queries, and how to attend to each of them."""

    def __init__(self, codec, sealed, exact, kv_heads, heads_per_kv, caches=1, live=ALL, float_io=False, seed=1, spread=1.0,
                 one_launch=True, rows=1, soft_cap=0.0, sinks=False, fixed_pages=0, sealed_ready=False, ragged=False,
                 gap=0):
        self.codec, self.kv_heads, self.heads_per_kv, self.caches = codec, kv_heads, heads_per_kv, caches
        self.one_launch, self.rows, self.soft_cap, self.fixed_pages = one_launch, rows, soft_cap, fixed_pages
        self.sealed_ready, self.ragged = sealed_ready, ragged
        self.sealed = Kind(codec, (KEY, VALUE), sealed, kv_heads, caches, seed, live, gap=gap)
        self.exact = Kind(codec, (EXACT_KEY, EXACT_VALUE), exact, kv_heads, caches, seed + 10, live, query_rows=rows, gap=gap)
        self.sinks = torch.linspace(-2, 3, kv_heads * heads_per_kv).cuda() if sinks else None
        shape = (len(sealed), rows, kv_heads * heads_per_kv, codec.dim)
        self.queries = (spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed + 20))).cuda()
        self.queries = self.queries if float_io else self.queries.half()
        self.out = torch.full_like(self.queries, math.nan)
        self.scale = 1 / math.sqrt(codec.dim)
        self.workspace = torch.empty(0, dtype=torch.uint8, device="cuda")
        self.tickets = torch.zeros(TICKET_BYTES, dtype=torch.uint8, device="cuda") if one_launch else None
        args, size = self.args(0), ctypes.c_size_t()
        c = codec.library
        c.check(c.c.kvant_attend_workspace_bytes(codec.handle, ctypes.byref(args), ctypes.byref(size)))
        self.workspace = torch.randint(256, (size.value + 256,), dtype=torch.uint8, device="cuda")  # nothing to rely on

    def args(self, cache):
        workspace = -(-self.workspace.data_ptr() // 256) * 256
        kind = 1 if self.queries.dtype == torch.float32 else 0
        return Args(self.sealed.struct(cache), self.exact.struct(cache), len(self.sealed.pages), self.kv_heads,
                    self.heads_per_kv, self.rows, kind, kind, self.scale, self.soft_cap,
                    self.sinks.data_ptr() if self.sinks is not None else None, self.queries.data_ptr(), self.out.data_ptr(),
                    workspace, max(0, self.workspace.numel() - 256),
                    self.tickets.data_ptr() if self.one_launch else None, self.sealed_ready, self.ragged,
                    self.fixed_pages)  # fmt: skip

    def attend(self, cache=0):
        args = self.args(cache)
        self.codec.library.check(self.codec.library.c.kvant_attend(self.codec.handle, ctypes.byref(args), current_stream()))

    def bytes(self):
        return self.sealed.bytes() + self.exact.bytes()

    def weights(self, scores, heads):
        if self.soft_cap:
            scores = self.soft_cap * torch.tanh(scores / self.soft_cap)
        if self.sinks is None:
            return torch.softmax(scores, -1)
        return torch.softmax(torch.cat([scores, self.sinks[heads, None].double()], -1), -1)[:, :-1]

    def error(self):
        self.attend()
        torch.cuda.synchronize()
        want = torch.zeros_like(self.out, dtype=torch.float64)
        for s, row, kv in itertools.product(range(want.shape[0]), range(self.rows), range(self.kv_heads)):
            kinds = [kind.decoded(0, s, kv, row) for kind in (self.sealed, self.exact)]
            k, v = (torch.cat([kind[i] for kind in kinds]) for i in range(2))
            heads = slice(kv * self.heads_per_kv, (kv + 1) * self.heads_per_kv)
            if len(k):
                want[s, row, heads] = self.weights(self.queries[s, row, heads].double() @ k.T * self.scale, heads) @ v
        difference = (self.out.double() - want).norm() / want.norm()
        return float(difference) if math.isfinite(float(difference)) else math.inf


# --- check -------------------------------------------------------------------------------------------------------------


def report(results, codec, what, error, ok):
    results.append({"codec": codec, "what": what, "error": error, "ok": ok})
    print(f"{'ok  ' if ok else 'FAIL'} {error:.2e}  {codec}  {what}")


def check(library, codecs):
    results = []

    def one(what, codec, *args, **kwargs):
        for one_launch in (True, False):
            problem = Problem(Codec(library, *codec), *args, one_launch=one_launch, **kwargs)
            error = max(problem.error(), problem.error())  # twice: a step leaves its tickets for the next
            if one_launch and int(problem.tickets.count_nonzero()):
                error = math.inf
            launches = "one launch" if one_launch else "three launches"
            report(results, problem.codec.name, f"{what}, {launches}", error, error <= MAX_ERROR)

    for codec in codecs:
        one("ragged, mixed pages", codec, [7, 0, 130, 1], [1, 1, 2, 0], 2, 4)
        one("long, float in and out", codec, [600], [3], 1, 8, float_io=True)
        one("something else between slots", codec, [7, 0, 30], [1, 2, 1], 2, 4, gap=4096 + 16)
    for heads in (1, 2, 3, 5, 8, 9, 16):
        one(f"{heads} heads per KV head", ("int:4", "int:4", 128), [20, 3], [1, 0], 2, heads)
    for rows, heads in ((2, 4), (4, 4), (8, 4), (8, 1), (3, 16)):
        one(f"{rows} query rows, {heads} heads per KV head", ("int:4", "int:4", 128), [20, 3], [1, 2], 2, heads, rows=rows)
        one(f"{rows} query rows, {heads} heads per KV head", ("decoquant:2", "decoquant:2", 128), [9, 0], [1, 1], 2, heads,
            rows=rows)  # fmt: skip
    one("soft cap", ("int:4", "int:4", 256), [30, 3], [1, 2], 2, 4, soft_cap=5.0, spread=4.0)
    one("sinks", ("int:4", "int:4", 64), [30, 0], [1, 1], 2, 4, sinks=True)
    one("chunks", ("int:4", "int:4", 128), [300, 3, 70, 0], [1, 2, 1, 0], 2, 4, ragged=True)
    one("chunks", ("decoquant:2", "decoquant:2", 128), [129, 3], [1, 2], 2, 4, ragged=True)
    one("fixed items", ("int:4", "int:4", 128), [90, 3], [1, 2], 2, 4, fixed_pages=8)
    for live in (0x1FF, ALL ^ 0xFFFF, 0):
        one(f"first pages see {live:x}", ("decoquant:4", "decoquant:4", 128), [9, 2], [2, 1], 2, 4, live=live)
    one("sharp softmax", ("int:4", "int:4", 128), [40], [1], 2, 4, spread=6.0)
    one("sharp softmax", ("decoquant:4", "decoquant:4", 128), [40], [1], 2, 4, spread=6.0)
    one("slots further apart than 4 GiB", ("int:4", "int:4", 128), [100], [2], 2, 4, gap=48 << 20)
    one("no rows at all in one sequence", ("int:4", "int:4", 128), [5, 0], [1, 0], 2, 4)
    return results


def host_blocks(codec, side, rows):
    """Rows [64, kv_heads, dim] of a page as the host encodes them: uint8 [kv_heads, block bytes]."""
    blocks = torch.empty(rows.shape[1], codec.bytes[side], dtype=torch.uint8)
    for head in range(rows.shape[1]):
        mine = rows[:, head].float().contiguous()
        codec.library.check(codec.library.c.kvant_device_encode(
            codec.handle, side, ctypes.c_void_p(mine.data_ptr()), ctypes.c_void_p(blocks[head].data_ptr())))  # fmt: skip
    return blocks


def check_encoding(library, codecs):
    """Bytes encoded on the device against those of the host: equal, or as far apart as SIMD targets may be; rows decoded
    there against those of the host. One page is left out; nothing else may be written."""
    results, pages, kv_heads, gap = [], 6, 3, 48
    for key, value, dim in codecs:
        codec = Codec(library, key, value, dim)
        for side in range(4):
            rows = torch.randn(pages, PAGE, kv_heads, dim).half()
            slots = torch.randperm(pages).int()
            slots[2] = -1
            used = kv_heads * codec.bytes[side]
            pool = torch.full((pages, used + gap), 0xA5, dtype=torch.uint8, device="cuda")
            refused = torch.zeros(1, dtype=torch.int32, device="cuda")
            codec.encode_pages(side, rows.cuda(), slots.cuda(), pool, refused)
            want = torch.full(pool.shape, 0xA5, dtype=torch.uint8)
            for page in range(pages):
                if slots[page] >= 0:
                    want[slots[page], :used] = host_blocks(codec, side, rows[page]).flatten()
            mismatch = float((pool.cpu() != want).float().mean())
            report(results, codec.name, f"encode, side {side}", mismatch,
                   mismatch <= (2e-3 if re.search("quant|qjl", key) and side < 2 else 0.0) and int(refused) == 0)  # fmt: skip
            if not decodes_on_device(key, side):
                continue
            decoded = torch.full_like(rows, 7.0, device="cuda")
            codec.decode_pages(side, pool, slots.cuda(), decoded)
            expected, pool = torch.full((pages, kv_heads, PAGE, dim), 7.0), pool.cpu()
            for page, head in itertools.product(range(pages), range(kv_heads)):
                if slots[page] >= 0:
                    block = pool[slots[page], head * codec.bytes[side] : (head + 1) * codec.bytes[side]].clone()
                    library.check(library.c.kvant_device_decode(codec.handle, side, ctypes.c_void_p(block.data_ptr()),
                                                                ctypes.c_void_p(expected[page, head].data_ptr())))  # fmt: skip
            expected = expected.transpose(1, 2)
            error = float((decoded.cpu().float() - expected).norm() / expected.norm())
            report(results, codec.name, f"decode, side {side}", error,
                   error <= 4e-4 and torch.equal(decoded[2].cpu(), torch.full_like(rows[2], 7.0)))  # fmt: skip
    return results


def check_rows(library):
    """Rows written into exact pages against pages that the host encodes."""
    results, slots, kv_heads, gap = [], 5, 3, 48
    for dim, dtype, count in itertools.product((64, 128, 256), (torch.float16, torch.float32), (1, 7, 200)):
        codec = Codec(library, "raw", "raw", dim)
        pages = torch.randn(2, slots, PAGE, kv_heads, dim).half()
        rows = torch.randn(2, count, kv_heads + 1, dim).to(dtype)  # of each row the last part is not used
        targets = torch.randperm(slots * PAGE)[:count].int()
        if count > 3:
            targets[3] = -1
            rows[:, 3] = math.inf
        device_rows = rows.cuda()[:, :, :kv_heads]
        refused = torch.zeros(1, dtype=torch.int32, device="cuda")
        sides = (EXACT_KEY, EXACT_VALUE)
        pools = [pool_of(torch.stack([host_blocks(codec, side, page) for page in pages[i]]), gap).cuda()
                 for i, side in enumerate(sides)]  # fmt: skip
        codec.write_rows((device_rows[0], pools[0]), (device_rows[1], pools[1]), targets.cuda(), refused)
        for row, target in enumerate(targets.tolist()):
            if target >= 0:
                pages[:, target // PAGE, target % PAGE] = rows[:, row, :kv_heads].half()
        for i, side in enumerate(sides):
            want = pool_of(torch.stack([host_blocks(codec, side, page) for page in pages[i]]), gap)
            mismatch = float((pools[i].cpu() != want).float().mean())
            report(results, codec.name, f"{count} rows of {dtype}, side {side}", mismatch, mismatch == 0 and int(refused) == 0)
        rows[1, 0, 0, 5] = -1e9 if dtype == torch.float32 else math.nan
        codec.write_rows(None, (rows.cuda()[1, :, :kv_heads], pools[1]), targets.cuda(), refused)
        report(results, codec.name, f"{count} rows of {dtype}, one that fp16 does not hold", 0.0, int(refused) == 1)
    return results


class Lists:
    """Pages of some streams, and tables for their rows."""

    def __init__(self, streams, rows, pages, seed):
        generator = torch.Generator().manual_seed(seed)
        self.pages = torch.zeros(streams, max(1, pages), 2, dtype=torch.int64)
        for stream in range(streams):
            numbers = torch.randperm(max(1, pages), generator=generator)
            self.pages[stream, :, 0] = torch.randint(-1, 2, numbers.shape, generator=generator)  # all rows held, none, or one
            self.pages[stream, :, 1] = torch.randint(1 << 20, numbers.shape, generator=generator) + (numbers << 32)
        self.counts = torch.randint(0, pages + 1, (streams,), generator=generator).int()
        self.counts[0] = pages
        self.max_pages, self.device = pages, (self.pages.cuda(), self.counts.cuda())
        self.table = torch.full((streams * rows, max(1, pages), 2), 0x55, dtype=torch.int64, device="cuda")
        self.table_counts = torch.full((streams * rows,), -1, dtype=torch.int32, device="cuda")

    def struct(self):
        return PageList(self.device[0].data_ptr(), self.device[1].data_ptr(), self.max_pages, self.table.data_ptr(),
                        self.table_counts.data_ptr())  # fmt: skip

    def expected(self, stream, seen):
        """Of a row that sees these cells (bool [pages * 64]): entries of the table."""
        pages = self.pages[stream, : self.counts[stream]]
        weights = torch.ones(1, dtype=torch.int64) << torch.arange(PAGE)
        live = (seen.view(-1, PAGE)[pages[:, 1] >> 32] * weights).sum(1) & pages[:, 0]
        return torch.stack([live, pages[:, 1] & 0xFFFFFFFF], 1)[live != 0]


def build_tables(library, sealed, exact, streams, rows, cells, mask):
    row_stride, stream_stride = (2 * mask.stride(1), 2 * mask.stride(0)) if mask is not None else (0, 0)
    args = TableArgs(sealed.struct(), exact.struct(), streams, rows, cells, mask.data_ptr() if mask is not None else None,
                     row_stride, stream_stride)  # fmt: skip
    library.check(library.c.kvant_build_page_tables(ctypes.byref(args), current_stream()))


def check_tables(library):
    """Page tables against those that torch makes of the same masks."""
    results = []
    for streams, rows, pages, cells, hidden in (
        (1, 1, 2048, 2048 * PAGE, 0.5), (1, 64, 2048, 2048 * PAGE, 0.99), (2, 3, 70, 60 * PAGE + 13, 0.5), (3, 2, 0, 100, 0.5),
        (2, 5, 1500, 1400 * PAGE + 8, 1.0), (1, 8, 33, 33 * PAGE, 0.0), (2, 2, 1100, 0, None),
    ):  # fmt: skip
        sealed, exact = Lists(streams, rows, pages, 1), Lists(streams, rows, 5, 2)
        mask, all_cells = None, max(pages, 5, -(-cells // PAGE)) * PAGE
        seen = torch.ones(streams, rows, all_cells, dtype=torch.bool)
        if hidden is not None:
            padded = -(-cells // 8) * 8 + 8
            seen = torch.rand(streams, rows, all_cells) >= hidden
            mask = torch.zeros(streams, rows, padded).half()
            mask[:, :, :cells][~seen[:, :, :cells]] = -math.inf
            seen[:, :, cells:] = False
            mask = mask.cuda()
        build_tables(library, sealed, exact, streams, rows, cells, mask)
        wrong = 0
        for lists, row in itertools.product((sealed, exact), range(streams * rows)):
            want = lists.expected(row // rows, seen[row // rows, row % rows]) if lists.max_pages else torch.zeros(0, 2)
            count = int(lists.table_counts[row]) if lists.max_pages else 0
            wrong += count != len(want) or not torch.equal(lists.table[row, :count].cpu(), want.long())
            wrong += bool((lists.table[row, count:] != 0x55).any())
        report(results, "tables", f"{streams} x {rows} rows, {pages} pages, {cells} cells, hidden {hidden}", float(wrong), wrong == 0)
    return results


def run_checks(library, codecs):
    return check(library, codecs) + check_encoding(library, codecs) + check_rows(library) + check_tables(library)


# --- time --------------------------------------------------------------------------------------------------------------


class Captured:
    """A graph that runs work(0) ... work(count - 1). It reads what work refers to, which therefore stays."""

    def __init__(self, work, count):
        self.work = work
        for i in range(count):
            work(i)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for i in range(count):
                work(i)

    def replay(self):
        self.graph.replay()


def replay_times(graphs, rounds):
    """Microseconds per run of each graph's work, graphs in turns: {name: [rounds]}."""
    times = {name: [] for name in graphs}
    for round_number in range(rounds + 3):
        for name, (graph, count) in graphs.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            if round_number >= 3:
                times[name].append(1000 * begin.elapsed_time(end) / count)
    return times


def summary(times):
    deciles = statistics.quantiles(times, n=10)
    return {"us": statistics.median(times), "us_p10": deciles[0], "us_p90": deciles[-1]}


def copy_gb_per_s():
    source = torch.randint(256, (2 << 30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    graph = Captured(lambda _: target.copy_(source), 1)
    us = statistics.median(replay_times({"copy": (graph, 1)}, 10)["copy"])
    return 2 * source.numel() / us / 1000


def sdpa_graph(batch, kv_heads, heads_per_kv, tokens, dim, backend):
    """Graph, its count of runs, or None where torch has no such kernel."""
    size = 4 * batch * kv_heads * tokens * dim
    caches = max(2, min(32, -(-ROTATE_BYTES // size)))
    try:
        data = [torch.randn(2, batch, kv_heads, tokens, dim, device="cuda", dtype=torch.float16) for _ in range(caches)]
        query = torch.randn(batch, kv_heads * heads_per_kv, 1, dim, device="cuda", dtype=torch.float16)

        def work(i):
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(query, data[i][0], data[i][1], enable_gqa=heads_per_kv > 1)

        return Captured(work, caches), caches
    except RuntimeError as error:
        print(f"  {backend}: {str(error).splitlines()[0]}")
        torch.cuda.synchronize()
        return None


def shape_name(shape):
    batch, kv_heads, heads_per_kv, tokens, dim = shape
    return f"B{batch} {kv_heads * heads_per_kv}/{kv_heads}x{dim} N{tokens}"


def time_shape(library, shape, codecs, rounds, one_launch, sealed_ready):
    batch, kv_heads, heads_per_kv, tokens, dim = shape
    name = shape_name(shape)
    print(f"{name}: fp16 {4e-6 * batch * kv_heads * tokens * dim:.0f} MB")
    graphs, bytes_moved, keep = {}, {}, []
    for label, backend in (("torch cudnn", SDPBackend.CUDNN_ATTENTION), ("torch flash", SDPBackend.FLASH_ATTENTION)):
        graph = sdpa_graph(batch, kv_heads, heads_per_kv, tokens, dim, backend)
        if graph:
            graphs[label], bytes_moved[label] = graph, 4 * batch * kv_heads * tokens * dim
    for key, value, codec_dim in codecs:
        if codec_dim != dim:
            continue
        codec = Codec(library, key, value, dim)
        # As in use: all but the last 64 rows are sealed, the last page is exact.
        sealed = [tokens // PAGE - 1] * batch
        size = batch * sealed[0] * kv_heads * (codec.bytes[KEY] + codec.bytes[VALUE])
        problem = Problem(codec, sealed, [1] * batch, kv_heads, heads_per_kv, max(2, min(48, -(-ROTATE_BYTES // size))),
                          one_launch=one_launch, sealed_ready=sealed_ready)  # fmt: skip
        keep.append(problem)
        graphs[codec.name] = Captured(problem.attend, problem.caches), problem.caches
        bytes_moved[codec.name] = problem.bytes()
    times = replay_times(graphs, rounds)
    rows = {label: summary(t) | {"bytes": bytes_moved[label], "gb_per_s": bytes_moved[label] / statistics.median(t) / 1000}
            for label, t in times.items()}  # fmt: skip
    best = min((r["us"] for label, r in rows.items() if label.startswith("torch")), default=math.nan)
    for label, row in rows.items():
        row["ratio_to_best_fp16"] = best / row["us"]
        print(f"  {label:34} {row['us']:9.1f} us  {row['gb_per_s']:7.0f} GB/s  {row['ratio_to_best_fp16']:5.2f}x")
    return {"shape": name, "rows": rows}


def time_encoding(library, codecs, rounds):
    """Keys of 128K tokens x 8 heads x 128: bytes read and written per second."""
    pages, kv_heads, dim, rows = 2048, 8, 128, []
    data = torch.randn(pages, PAGE, kv_heads, dim, device="cuda", dtype=torch.float16)
    slots = torch.randperm(pages).int().cuda()
    refused = torch.zeros(1, dtype=torch.int32, device="cuda")
    for key, value, codec_dim in codecs:
        if codec_dim != dim:
            continue
        codec = Codec(library, key, value, codec_dim)
        for side in (KEY, VALUE):
            pool = torch.empty(pages, kv_heads * codec.bytes[side], dtype=torch.uint8, device="cuda")
            graph = Captured(lambda _: codec.encode_pages(side, data, slots, pool, refused), 1), 1  # noqa: B023
            times = replay_times({"encode": graph}, rounds)["encode"]
            moved = 2 * data.numel() + pool.numel()
            rows.append({"codec": codec.name, "side": side, "bytes": moved} | summary(times))
            print(f"  encode {codec.name:34} side {side} {rows[-1]['us']:9.1f} us  {moved / rows[-1]['us'] / 1000:7.0f} GB/s")
    return rows


def write_graph(codec, count, kv_heads=8):
    rows = torch.randn(2, count, kv_heads, codec.dim, device="cuda")
    pools = torch.zeros(2, 64, kv_heads * codec.bytes[EXACT_KEY], dtype=torch.uint8, device="cuda")
    targets = torch.randperm(64 * PAGE)[:count].int().cuda()
    refused = torch.zeros(1, dtype=torch.int32, device="cuda")
    return Captured(lambda _: codec.write_rows((rows[0], pools[0]), (rows[1], pools[1]), targets, refused), 16), 16


def tables_graph(library, rows, pages=2048):
    sealed, exact = Lists(1, rows, pages, 1), Lists(1, rows, 5, 2)
    mask = torch.where(torch.rand(1, rows, pages * PAGE, device="cuda") < 0.5, 0.0, -math.inf).half()
    return Captured(lambda _: build_tables(library, sealed, exact, 1, rows, pages * PAGE, mask), 16), 16


def time_host_steps(library, rounds):
    """What a host needs beside attention: rows into exact pages (8 heads of 128), page tables of 128K cells."""
    codec = Codec(library, "raw", "raw", 128)
    graphs = {f"write {count} rows": write_graph(codec, count) for count in (1, 8, 64, 512)}
    graphs |= {f"tables of {rows} rows": tables_graph(library, rows) for rows in (1, 8, 64)}
    times = {name: summary(t) for name, t in replay_times(graphs, rounds).items()}
    for name, row in times.items():
        print(f"  {name:34} {row['us']:9.1f} us")
    return times


def best_sdpa(work, count):
    """Graph of the faster of torch's two kernels."""
    best, graph = math.inf, None
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(backend):
            try:
                candidate = Captured(work, count)
            except RuntimeError as error:
                print(f"  {backend}: {str(error).splitlines()[0]}")
                continue
        us = statistics.median(replay_times({"sdpa": (candidate, count)}, 5)["sdpa"])
        if us < best:
            best, graph, chosen = us, candidate, backend
    return graph, chosen


def time_prefill(library, codecs, rounds):
    """A chunk of a prompt attends to a prefix: torch over fp16 rows, and over rows that decode_pages has just written."""
    results, kv_heads, heads, dim = [], 8, 32, 128
    for tokens, chunk in itertools.product((32768, 131072), (512, 2048)):
        pages, caches = tokens // PAGE, 2
        query = torch.randn(1, heads, chunk, dim, device="cuda", dtype=torch.float16)
        rows = [torch.randn(2, pages, PAGE, kv_heads, dim, device="cuda", dtype=torch.float16) for _ in range(caches)]

        def sdpa(i):
            k, v = (r.view(1, tokens, kv_heads, dim).transpose(1, 2) for r in rows[i])  # noqa: B023
            F.scaled_dot_product_attention(query, k, v, enable_gqa=True)  # noqa: B023

        baseline, backend = best_sdpa(sdpa, caches)
        for key, value, codec_dim in codecs:
            if codec_dim != dim or not decodes_on_device(key, KEY):
                continue
            codec = Codec(library, key, value, dim)
            kind = Kind(codec, (KEY, VALUE), [pages], kv_heads, caches, 1)
            slots = [s[0].int().cuda() for s in kind.slots]

            def work(i):
                for side in (KEY, VALUE):
                    codec.decode_pages(side, kind.pools[side], slots[i], rows[i][side])  # noqa: B023
                with sdpa_kernel(backend):  # noqa: B023
                    sdpa(i)  # noqa: B023

            times = replay_times({"fp16": (baseline, caches), "kvant": (Captured(work, caches), caches)}, rounds)
            fp16, ours = (statistics.median(times[name]) for name in ("fp16", "kvant"))
            results.append({"codec": codec.name, "tokens": tokens, "chunk": chunk, "backend": str(backend),
                            "fp16_us": fp16, "us": ours, "ratio": fp16 / ours})  # fmt: skip
            print(f"  prefill {codec.name:34} {chunk} rows on {tokens}: {fp16:8.1f} us fp16, {ours:8.1f} us, {fp16 / ours:.2f}x")
    return results


def time_ragged(library, codecs, rounds):
    """16 sequences of 1K to 64K tokens, log-uniform. Beside it what reading the same rows in fp16 takes at the speed of a copy."""
    lengths = [round(1024 * 64 ** (i / 15) / PAGE) for i in range(16)]
    kv_heads, heads_per_kv, dim, results = 8, 4, 128, []
    for key, value, codec_dim in codecs:
        if codec_dim != dim:
            continue
        codec = Codec(library, key, value, dim)
        caches = max(2, -(-ROTATE_BYTES // (sum(lengths) * kv_heads * (codec.bytes[KEY] + codec.bytes[VALUE]))))
        problem = Problem(codec, [n - 1 for n in lengths], [1] * 16, kv_heads, heads_per_kv, caches, sealed_ready=True,
                          ragged=True)
        times = replay_times({"kvant": (Captured(problem.attend, caches), caches)}, rounds)["kvant"]
        row = summary(times) | {"codec": codec.name, "tokens": sum(lengths) * PAGE, "bytes": problem.bytes()}
        row["gb_per_s"] = row["bytes"] / row["us"] / 1000
        results.append(row)
        print(f"  ragged {codec.name:34} {row['us']:9.1f} us  {row['gb_per_s']:7.0f} GB/s")
    return results


def driver_version() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="libkvant_c.so of a build with CUDA")
    parser.add_argument("--json", help="where to write the results")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--quick", action="store_true", help="head size 128 and three shapes")
    parser.add_argument("--three-launches", action="store_true", help="times without tickets")
    parser.add_argument("--wait", action="store_true", help="times without sealed_ready")
    parser.add_argument("--no-check", action="store_true", help="where the same library has just been checked")
    parser.add_argument("--shapes", default="", help="regular expression: shapes (\"B8 32/8x128 N32768\") to time")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="regular expression: codecs (\"k=int:4 v=int:4 d=128\") to check and time")
    options = parser.parse_args()
    library = Library(options.library)
    codecs = [c for c in CODECS + ([] if options.quick else OTHER_DIMS)
              if re.search(options.only, f"k={c[0]} v={c[1]} d={c[2]}")]  # fmt: skip
    device = torch.cuda.get_device_properties(0)
    result = {"gpu": device.name, "processors": device.multi_processor_count, "driver": driver_version(),
              "torch": torch.__version__, "cuda": torch.version.cuda, "check": [] if options.no_check else run_checks(library, codecs)}  # fmt: skip
    if not options.check_only:
        result["copy_gb_per_s"] = copy_gb_per_s()
        print(f"{device.name}: copy {result['copy_gb_per_s']:.0f} GB/s")
        shapes = [(8, 8, 4, 32768, 128), (1, 8, 4, 32768, 128), (1, 8, 4, 4096, 128)]
        if not options.quick:
            shapes += [(1, 8, 4, 131072, 128), (1, 8, 4, 1 << 20, 128), (1, 32, 1, 32768, 128), (8, 4, 8, 32768, 128), (8, 8, 4, 32768, 64),
                       (64, 8, 4, 4096, 128)]  # fmt: skip
        result["times"] = [time_shape(library, shape, codecs, options.rounds, not options.three_launches, not options.wait)
                           for shape in shapes if re.search(options.shapes, shape_name(shape))]
        if not options.shapes:
            result["host_steps"] = time_host_steps(library, options.rounds)
            result["encoding"] = time_encoding(library, codecs, options.rounds)
            result["prefill"] = time_prefill(library, codecs, options.rounds)
            result["ragged"] = time_ragged(library, codecs, options.rounds)
    failed = [c for c in result["check"] if not c["ok"]]
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
    print(f"check: {len(failed)} of {len(result['check'])} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
