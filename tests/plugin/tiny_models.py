"""Models of other architectures with random weights, a few hundred kilobytes each: for what the demo model lacks.

`write(name, path)` makes one. They have no vocabulary; tokens are numbers below VOCABULARY.
"""

import gguf
import numpy as np

VOCABULARY = 64
WIDTH = 256
HEADS, KV_HEADS, DIM = 4, 2, 64
LAYERS = 4
FEED_FORWARD = 128
WINDOW = 96


class Model:
    def __init__(self, path, architecture, **keys):
        self.writer = gguf.GGUFWriter(path, architecture)
        self.random = np.random.default_rng(1)
        self.architecture = architecture
        w = self.writer
        w.add_context_length(4096)
        w.add_embedding_length(WIDTH)
        w.add_block_count(LAYERS)
        w.add_feed_forward_length(FEED_FORWARD)
        w.add_head_count(HEADS)
        w.add_head_count_kv(keys.pop("kv_heads", KV_HEADS))
        w.add_tokenizer_model("no_vocab")
        w.add_vocab_size(VOCABULARY)
        for name, value in keys.items():
            add = w.add_float32 if isinstance(value, float) else w.add_bool if isinstance(value, bool) else w.add_uint32
            add(f"{architecture}.{name.replace('__', '.')}", value)

    def matrix(self, name, rows, columns, scale=1.0):
        data = self.random.normal(size=(rows, columns), scale=scale / np.sqrt(columns))
        self.writer.add_tensor(name + ".weight", data.astype(np.float32))

    def vector(self, name, size, value=1.0):
        self.writer.add_tensor(name, np.full(size, value, dtype=np.float32))

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def gemma(path, architecture):
    """Sliding windows in every other layer or more; gemma2 has soft-capped logits as well."""
    keys = {"attention__key_length": DIM, "attention__value_length": DIM, "attention__layer_norm_rms_epsilon": 1e-6,
            "attention__sliding_window": WINDOW}
    if architecture == "gemma2":
        keys.update({"attn_logit_softcapping": 20.0, "final_logit_softcapping": 30.0})
    model = Model(path, architecture, **keys)
    model.matrix("token_embd", VOCABULARY, WIDTH)
    model.vector("output_norm.weight", WIDTH)
    for i in range(LAYERS):
        p = f"blk.{i}."
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            model.vector(p + norm + ".weight", WIDTH)
        if architecture == "gemma3":
            model.vector(p + "attn_q_norm.weight", DIM, 3.0)
            model.vector(p + "attn_k_norm.weight", DIM)
        model.matrix(p + "attn_q", HEADS * DIM, WIDTH, 3.0)
        for side in ("attn_k", "attn_v"):
            model.matrix(p + side, KV_HEADS * DIM, WIDTH)
        model.matrix(p + "attn_output", WIDTH, HEADS * DIM)
        model.matrix(p + "ffn_gate", FEED_FORWARD, WIDTH)
        model.matrix(p + "ffn_up", FEED_FORWARD, WIDTH)
        model.matrix(p + "ffn_down", WIDTH, FEED_FORWARD)
    model.close()


def mpt(path, architecture="mpt"):
    """ALiBi, no rotation."""
    model = Model(path, architecture, kv_heads=HEADS, attention__max_alibi_bias=8.0, attention__layer_norm_epsilon=1e-5)
    model.matrix("token_embd", VOCABULARY, WIDTH)
    model.vector("output_norm.weight", WIDTH)
    for i in range(LAYERS):
        p = f"blk.{i}."
        model.vector(p + "attn_norm.weight", WIDTH)
        model.vector(p + "ffn_norm.weight", WIDTH)
        model.matrix(p + "attn_qkv", 3 * WIDTH, WIDTH)
        model.matrix(p + "attn_output", WIDTH, WIDTH)
        model.matrix(p + "ffn_up", FEED_FORWARD, WIDTH)
        model.matrix(p + "ffn_down", WIDTH, FEED_FORWARD)
    model.close()


def mamba(path, architecture="mamba"):
    """No attention at all."""
    inner, state, conv, rank = 2 * WIDTH, 16, 4, 8
    model = Model(path, architecture, kv_heads=0, ssm__conv_kernel=conv, ssm__inner_size=inner, ssm__state_size=state,
                  ssm__time_step_rank=rank, attention__layer_norm_rms_epsilon=1e-5)
    model.matrix("token_embd", VOCABULARY, WIDTH)
    model.vector("output_norm.weight", WIDTH)
    for i in range(LAYERS):
        p = f"blk.{i}."
        model.vector(p + "attn_norm.weight", WIDTH)
        model.matrix(p + "ssm_in", 2 * inner, WIDTH)
        model.matrix(p + "ssm_conv1d", inner, conv)
        model.vector(p + "ssm_conv1d.bias", inner, 0.0)
        model.matrix(p + "ssm_x", rank + 2 * state, inner)
        model.matrix(p + "ssm_dt", inner, rank)
        model.vector(p + "ssm_dt.bias", inner, 0.0)
        model.writer.add_tensor(p + "ssm_a", np.full((inner, state), -1.0, dtype=np.float32))
        model.vector(p + "ssm_d", inner)
        model.matrix(p + "ssm_out", WIDTH, inner)
    model.close()


WRITERS = {"gemma2": gemma, "gemma3": gemma, "mpt": mpt, "mamba": mamba}


def write(name, path):
    WRITERS[name](path, name)
