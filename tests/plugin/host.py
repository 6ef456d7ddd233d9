"""A llama.cpp host as users run it: the unmodified llama_cpp package. One scenario per process, since a plug-in is
loaded once per process; prints its result as JSON.

    python host.py SCENARIO '{"plugin": ..., "model": ..., further arguments}'

`plugin` may be null: the stock cache. Settings of the plug-in come from the environment.
"""

import ctypes
import json
import sys

import llama_cpp
from llama_cpp._ggml import libggml
import numpy as np

TEXT = (
    "It was a bright morning, and the two children walked along the river until they came to the old mill. "
    "The miller, who had not spoken to anybody for many years, opened the door and asked them what they wanted. "
) * 12
FLASH_ATTN_ON = 1


class Host:
    """A model with one context."""

    def __init__(self, plugin, model, n_ctx=1024, n_seq_max=1, gpu_layers=-1, **context):
        self.log = []
        self._callback = llama_cpp.llama_log_callback(lambda level, text, data: self.log.append(text.decode()))
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.registry = None
        if plugin:
            libggml.ggml_backend_load.restype = ctypes.c_void_p
            libggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
            self.registry = libggml.ggml_backend_load(plugin.encode())
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        if self.registry:  # as --device KVANT0; else a host with GPUs splits the layers among all of them
            libggml.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
            libggml.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
            self.devices = (ctypes.c_void_p * 2)(libggml.ggml_backend_reg_dev_get(self.registry, 0), None)
            params.devices = ctypes.cast(self.devices, ctypes.c_void_p)
        self.model = llama_cpp.llama_model_load_from_file(model.encode(), params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = n_ctx, n_seq_max
        params.n_batch = params.n_ubatch = 256
        params.n_threads = params.n_threads_batch = 1
        params.flash_attn_type = FLASH_ATTN_ON
        for name, value in context.items():
            setattr(params, name, value)
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.memory = llama_cpp.llama_get_memory(self.context) if self.context else None

    def errors(self):
        return [line.strip() for line in self.log if line.startswith("kvant: ")]

    def tokens(self, count):
        if llama_cpp.llama_vocab_type(self.vocab) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            return np.random.default_rng(0).integers(self.n_vocab, size=count).tolist()
        text = TEXT.encode()
        buffer = (llama_cpp.llama_token * len(text))()
        found = llama_cpp.llama_tokenize(self.vocab, text, len(text), buffer, len(text), True, False)
        assert found >= count
        return list(buffer[:count])

    def decode(self, tokens, pos=0, seq=0):
        """Logits of the last token."""
        for first in range(0, len(tokens), 256):
            part = tokens[first : first + 256]
            batch = llama_cpp.llama_batch_init(len(part), 0, 1)
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i] = token, pos + first + i
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, seq, i + 1 == len(part)
            code = llama_cpp.llama_decode(self.context, batch)
            llama_cpp.llama_batch_free(batch)
            if code:
                raise RuntimeError(f"llama_decode: {code}: {self.errors()}")
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(logits, shape=(self.n_vocab,)).astype(np.float64)

    def state(self, seq=0):
        size = llama_cpp.llama_state_seq_get_size(self.context, seq)
        buffer = (ctypes.c_uint8 * size)()
        assert llama_cpp.llama_state_seq_get_data(self.context, buffer, size, seq) == size
        return buffer

    def restore(self, buffer, seq=0):
        assert llama_cpp.llama_state_seq_set_data(self.context, buffer, len(buffer), seq) > 0

    def plugin_number(self, name, restype):
        """Calls a function that the plug-in's registry offers, on its device."""
        libggml.ggml_backend_reg_get_proc_address.restype = ctypes.c_void_p
        libggml.ggml_backend_reg_get_proc_address.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        libggml.ggml_backend_reg_dev_get.restype = ctypes.c_void_p
        libggml.ggml_backend_reg_dev_get.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        address = libggml.ggml_backend_reg_get_proc_address(self.registry, name.encode())
        return ctypes.CFUNCTYPE(restype, ctypes.c_void_p)(address)(libggml.ggml_backend_reg_dev_get(self.registry, 0))

    def memory_bytes(self):
        return self.plugin_number("kvant_memory_bytes", ctypes.c_size_t)


def losses(host, first=400, count=100, chunk=1):
    """Mean loss of `count` tokens after `first`, fed `chunk` at a time."""
    tokens = host.tokens(first + count + 1)
    host.decode(tokens[:first])
    total = 0.0
    for i in range(first, first + count, chunk):
        logits = host.decode(tokens[i : i + chunk], pos=i)
        total += np.logaddexp.reduce(logits) - logits[tokens[i + chunk]]
    return {"loss": total / (count / chunk)}


def agreement(host, first=300, count=40, chunks=(1,)):
    """Logits of `count` tokens after `first`, fed so many at a time."""
    tokens = host.tokens(first + count)
    rows = []
    for chunk in chunks:
        llama_cpp.llama_memory_clear(host.memory, True)
        rows.append(host.decode(tokens[:first]))
        rows += [host.decode(tokens[i : i + chunk], pos=i) for i in range(first, first + count, chunk)]
    return {"logits": np.array(rows).tolist(), "splits": [line for line in host.log if "splits = " in line]}


def memory(host):
    tokens = host.tokens(512)
    empty = host.memory_bytes()
    host.decode(tokens[:256])
    half = host.memory_bytes()
    host.decode(tokens[256:], pos=256)
    return {"empty": empty, "half": half, "full": host.memory_bytes(),
            "bits": host.plugin_number("kvant_bits_per_value", ctypes.c_double)}


def state(host):
    tokens = host.tokens(402)
    host.decode(tokens[:400])
    saved = host.state()
    before = host.decode(tokens[400:401], pos=400)
    host.decode(tokens[401:402], pos=401)
    llama_cpp.llama_memory_clear(host.memory, True)
    host.restore(saved)
    after = host.decode(tokens[400:401], pos=400)
    return {"difference": float(np.abs(before - after).max())}


def state_on_device(host):
    """A copy in buffers of the cache's own type, as servers keep checkpoints."""
    flags = 2  # LLAMA_STATE_SEQ_FLAGS_ON_DEVICE
    tokens = host.tokens(402)
    host.decode(tokens[:400])
    size = llama_cpp.llama_state_seq_get_size_ext(host.context, 0, flags)
    buffer = (ctypes.c_uint8 * size)()
    llama_cpp.llama_state_seq_get_data_ext(host.context, buffer, size, 0, flags)
    before = host.decode(tokens[400:401], pos=400)
    host.decode(tokens[401:402], pos=401)
    assert llama_cpp.llama_state_seq_set_data_ext(host.context, buffer, size, 0, flags) > 0
    after = host.decode(tokens[400:401], pos=400)
    return {"difference": float(np.abs(before - after).max())}


def remove(host):
    """Rollback: the tail is forgotten and another one is fed."""
    tokens = host.tokens(400)
    host.decode(tokens[:300])
    fresh = host.decode(tokens[300:], pos=300)
    llama_cpp.llama_memory_seq_rm(host.memory, 0, 200, -1)
    host.decode(tokens[100:180], pos=200)
    llama_cpp.llama_memory_seq_rm(host.memory, 0, 200, -1)
    again = host.decode(tokens[200:], pos=200)
    return {"logits": again.tolist(), "fresh": fresh.tolist()}


def copy(host):
    """A second sequence goes on from a copy of the first, which goes on as well."""
    tokens = host.tokens(402)
    host.decode(tokens[:400])
    llama_cpp.llama_memory_seq_cp(host.memory, 0, 1, -1, -1)
    second = host.decode(tokens[400:401], pos=400, seq=1)
    first = host.decode(tokens[400:401], pos=400, seq=0)
    return {"logits": second.tolist(), "fresh": first.tolist()}


def sequences(host):
    """Two texts in turns."""
    tokens = host.tokens(300)
    host.decode(tokens[:200], seq=0)
    host.decode(tokens[50:250], seq=1)
    host.decode(tokens[200:250], pos=200, seq=0)
    return {"logits": host.decode(tokens[250:260], pos=200, seq=1).tolist()}


def shift(host):
    """Context shift: tokens in the middle are dropped and the rest moves down."""
    tokens = host.tokens(500)
    host.decode(tokens[:400])
    llama_cpp.llama_memory_seq_rm(host.memory, 0, 50, 150)
    llama_cpp.llama_memory_seq_add(host.memory, 0, 150, -1, -100)
    return {"logits": host.decode(tokens[400:], pos=300).tolist()}


def limit(host):
    tokens = host.tokens(512)
    host.decode(tokens[:64])
    try:
        host.decode(tokens[64:], pos=64)
    except RuntimeError as error:
        llama_cpp.llama_memory_seq_rm(host.memory, 0, 64, -1)  # the chunks before the one that failed
        return {"error": str(error), "after": float(host.decode(tokens[64:80], pos=64).max())}
    return {"error": None}


def opened(host):
    return {"context": bool(host.context), "registry": bool(host.registry), "errors": host.errors()}


def generate(arguments):
    """The high-level class, the plug-in loaded the way GGML_BACKEND_PATH loads it."""
    libggml.ggml_backend_load(arguments["plugin"].encode())
    llm = llama_cpp.Llama(arguments["model"], n_ctx=1024, n_gpu_layers=-1, flash_attn=True, verbose=False)
    prompt = "The secret number of Kalo is 48213.\n" + TEXT[:1500] + "\nQuestion: What is the secret number of Kalo? Answer:"
    return {"text": llm(prompt, max_tokens=8, temperature=0)["choices"][0]["text"]}


def main():
    scenario, arguments = globals()[sys.argv[1]], json.loads(sys.argv[2])
    if scenario is generate:
        print(json.dumps(generate(arguments)))
        return
    work = arguments.pop("work", {})
    print(json.dumps(scenario(Host(**arguments), **work)))


main()
