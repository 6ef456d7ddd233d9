#!/usr/bin/env python3
"""Writes a GGUF model of a given shape with random weights, for speed runs where no real weights are at hand.

Speed and memory do not depend on what the weights are; the text that such a model writes is meaningless, and so is what `kvant eval`
says of its quality. The default is the shape of Llama 3 8B with weights in Q8_0: 8.5 GB, written as fast as the disk takes it.

    python3 tools/make_random_gguf.py random-8b.gguf
    python3 tools/make_random_gguf.py tiny.gguf --layers 2 --width 256 --heads 4 --kv-heads 2 --ffn 512 --vocab 512

Needs numpy and the package gguf (tools/dev/requirements.txt).
"""

import argparse
import itertools
import math
import os
import string
import sys

import gguf
import numpy as np

BLOCK = np.dtype([("scale", "<f2"), ("codes", "i1", 32)])  # Q8_0
# Blocks of which all tensors are made, each from another place on. A prime: no two rows of a tensor are the same.
POOL_BLOCKS = 1048573
UNIFORM_STD = 127 / math.sqrt(3)  # of codes from -127 to 127
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|end_of_turn|>"]
SMALLEST_VOCABULARY = 256 + len(SPECIAL)
ROPE_BASE = 500000.0
NOTE = "Random weights for measuring speed and memory; the text it writes is meaningless."


class Weights:
    """Random tensors of a given standard deviation."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.pool = np.empty(POOL_BLOCKS, BLOCK)
        # -128 does not occur in Q8_0.
        self.pool["codes"] = np.maximum(self.random.integers(-128, 128, (POOL_BLOCKS, 32), np.int8), -127)

    def q8_0(self, rows, columns, std):
        """Bytes of [rows, columns] weights."""
        self.pool["scale"] = std / UNIFORM_STD
        blocks = np.roll(self.pool, self.random.integers(POOL_BLOCKS))
        return np.resize(blocks, rows * columns // 32).view(np.uint8).reshape(rows, -1)


def byte_tokens():
    """The 256 bytes as byte-level BPE spells them: printable ones as themselves, the others by characters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def merges():
    """Pairs of tokens, shortest first, each of which makes a token that no other pair makes."""
    letters = string.ascii_lowercase
    pairs = ["".join(p) for p in itertools.product(letters, repeat=2)]
    yield from itertools.product(letters, letters)
    yield from (("\u0120", word) for word in itertools.chain(letters, pairs))  # a space before the word
    yield from itertools.product(pairs, letters)
    yield from itertools.product(pairs, pairs)


def add_vocabulary(writer, size):
    pairs = list(itertools.islice(merges(), size - SMALLEST_VOCABULARY))
    words = [*byte_tokens(), *(left + right for left, right in pairs)]
    if len(words) + len(SPECIAL) != size:
        raise ValueError(f"--vocab {size}: at most {len(words) + len(SPECIAL)}")
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([*words, *SPECIAL])
    writer.add_token_types([normal] * len(words) + [control] * len(SPECIAL))
    writer.add_token_merges([f"{left} {right}" for left, right in pairs])
    writer.add_bos_token_id(len(words))
    writer.add_eos_token_id(len(words) + 1)
    writer.add_eot_token_id(len(words) + 2)
    writer.add_add_bos_token(True)


def add_shape(writer, shape):
    writer.add_name(f"random-{parameters(shape) / 1e9:.2g}b")
    writer.add_description(NOTE)
    writer.add_vocab_size(shape.vocab)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def tensors(shape):
    """(name, rows, columns, standard deviation); no rows: a norm, all ones.

    What goes into a product has unit variance after each norm, and so have queries, keys and values: scores have the spread that
    attention is made for. What a block adds to the residual is scaled down by the number of blocks, which keeps it finite.
    """
    width, kv_width = shape.width, shape.width // shape.heads * shape.kv_heads
    unit, added = 1 / math.sqrt(width), 1 / math.sqrt(2 * shape.layers)
    yield "token_embd.weight", shape.vocab, width, 1.0
    for layer in range(shape.layers):
        name = f"blk.{layer}.{{}}.weight".format
        yield name("attn_norm"), 0, width, 1.0
        yield name("attn_q"), width, width, unit
        yield name("attn_k"), kv_width, width, unit
        yield name("attn_v"), kv_width, width, unit
        yield name("attn_output"), width, width, unit * added
        yield name("ffn_norm"), 0, width, 1.0
        yield name("ffn_gate"), shape.ffn, width, unit
        yield name("ffn_up"), shape.ffn, width, unit
        yield name("ffn_down"), width, shape.ffn, added / math.sqrt(shape.ffn)
    yield "output_norm.weight", 0, width, 1.0
    yield "output.weight", shape.vocab, width, unit


def parameters(shape):
    return sum(max(rows, 1) * columns for _, rows, columns, _ in tensors(shape))


def write(path, shape):
    writer = gguf.GGUFWriter(path, "llama")
    add_shape(writer, shape)
    add_vocabulary(writer, shape.vocab)
    for name, rows, columns, _ in tensors(shape):
        if rows:
            row_bytes = columns // 32 * BLOCK.itemsize
            writer.add_tensor_info(name, [rows, row_bytes], np.dtype(np.uint8), rows * row_bytes, gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor_info(name, [columns], np.dtype(np.float32), 4 * columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    weights = Weights(shape.seed)
    for _, rows, columns, std in tensors(shape):  # one at a time: memory for the largest is enough
        writer.write_tensor_data(weights.q8_0(rows, columns, std) if rows else np.ones(columns, np.float32))
    writer.close()


def check(shape):
    """What is wrong with the shape, in one line; empty: nothing."""
    for name in ("layers", "width", "heads", "kv_heads", "ffn", "context"):
        if getattr(shape, name) < 1:
            return f"--{name.replace('_', '-')} {getattr(shape, name)}: at least 1"
    if shape.vocab < SMALLEST_VOCABULARY:
        return f"--vocab {shape.vocab}: at least {SMALLEST_VOCABULARY}, the bytes and {len(SPECIAL)} special tokens"
    if shape.width % (2 * shape.heads):
        return f"--width {shape.width}: a multiple of twice --heads {shape.heads}, so that heads have an even size"
    if shape.heads % shape.kv_heads:
        return f"--kv-heads {shape.kv_heads}: a divisor of --heads {shape.heads}"
    for name in ("width", "ffn"):
        if getattr(shape, name) % 32:
            return f"--{name} {getattr(shape, name)}: a multiple of 32, the block of Q8_0"
    return ""


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", metavar="FILE", help="GGUF file to write")
    for name, default, what in (
        ("layers", 32, "blocks"),
        ("width", 4096, "size of the embedding"),
        ("heads", 32, "query heads; the head size is width / heads"),
        ("kv-heads", 8, "key and value heads"),
        ("ffn", 14336, "size of the feed-forward layers"),
        ("vocab", 128256, "tokens"),
        ("context", 131072, "tokens that the model says it was trained for"),
        ("seed", 1, "of the random weights"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default {default})")
    shape = parser.parse_args(arguments)
    problem = check(shape)
    if problem:
        parser.error(problem)
    return shape


def main(arguments=None):
    shape = parse(arguments)
    part = f"{shape.output}.part"
    try:
        write(part, shape)
        os.replace(part, shape.output)
    except (OSError, ValueError) as error:
        if os.path.exists(part):
            os.unlink(part)
        sys.exit(f"make_random_gguf: {error}")
    print(f"wrote {shape.output}: {parameters(shape) / 1e9:.2f} billion parameters, {os.path.getsize(shape.output) / 1e9:.2f} GB")
    print(NOTE)


if __name__ == "__main__":
    main()
