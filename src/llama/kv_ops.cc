#include "llama/kv_ops.h"

#include <tuple>

#include "ggml-backend-impl.h"
#include "llama/kv_rope.h"
#include "llama/proxy_buffer_type.h"

namespace kvant {
namespace {

bool IsView(ggml_op op) {
  return op == GGML_OP_NONE || op == GGML_OP_VIEW || op == GGML_OP_RESHAPE || op == GGML_OP_PERMUTE ||
         op == GGML_OP_TRANSPOSE;
}

bool TouchesCache(const ggml_tensor& node) {
  if (CacheOf(&node)) return true;
  for (const ggml_tensor* source : node.src) {
    if (CacheOf(source)) return true;
  }
  return false;
}

// A cache tensor in real memory of another device: the user asked for kvant and would not get it.
const ggml_tensor* FindForeignCache(const ggml_tensor& node) {
  if (node.op != GGML_OP_FLASH_ATTN_EXT) return nullptr;
  const ggml_tensor* keys = node.src[1]->view_src ? node.src[1]->view_src : node.src[1];
  const bool foreign = ParseKvName(keys->name) && keys->buffer != nullptr && keys->buffer->size != 0 && !CacheOf(keys);
  return foreign ? keys : nullptr;
}

Status Refuse(const KvTensor& tensor, const char* why) {
  return Status::NotSupported(StrFormat("layer %d: %s", tensor.name.layer, why));
}

float FloatParam(const ggml_tensor& node, int index) { return reinterpret_cast<const float*>(node.op_params)[index]; }

// What device kernels ask of an attention beyond what all do.
Status CheckOnDevice(const AttentionOp& op) {
  KVANT_TRY(op.cache->CheckLayer(*op.keys, *op.values));
  if (op.max_bias != 0) return Refuse(*op.keys, "ALiBi is not supported on a CUDA device");
  const ggml_tensor *q = op.node->src[0], *mask = op.node->src[3];
  const size_t row = static_cast<size_t>(q->ne[0]) * sizeof(float);
  const bool dense = q->nb[2] == row && q->nb[1] == row * static_cast<size_t>(q->ne[2]) &&
                     (q->ne[3] == 1 || q->nb[3] == q->nb[1] * static_cast<size_t>(q->ne[1]));
  if (!dense) return Refuse(*op.keys, "queries do not lie one after the other");
  if (mask != nullptr && mask->type != GGML_TYPE_F16) return Refuse(*op.keys, "its mask is not of type f16");
  return Status::Ok();
}

}  // namespace

CacheOp Classify(const ggml_tensor& node) {
  if (!TouchesCache(node)) return CacheOp::kNone;
  if (IsView(node.op)) return CacheOp::kView;
  if (node.op == GGML_OP_SET_ROWS && CacheOf(&node)) return CacheOp::kWrite;
  if (node.op == GGML_OP_FLASH_ATTN_EXT) return CacheOp::kAttention;
  if (node.op == GGML_OP_ROPE && CacheOf(&node)) return CacheOp::kShift;
  return CacheOp::kOther;
}

Result<WriteOp> ParseWrite(const ggml_tensor& node) {
  KvBuffer* cache = CacheOf(&node);
  const KvTensor* tensor = cache->Find(node.data);
  if (!tensor) return Status::Internal("a write to a cache tensor that was never allocated");
  const ggml_tensor* rows = node.src[0];
  const ggml_tensor* cells = node.src[1];
  if (rows->ne[0] != tensor->row_values || node.data != tensor->base) {
    return Refuse(*tensor, "the V cache is transposed because flash attention is off; turn flash attention on");
  }
  if (rows->type != GGML_TYPE_F32 && rows->type != GGML_TYPE_F16) {
    return Refuse(*tensor, "rows are written in a type that is not f32 or f16");
  }
  if (rows->ne[2] != 1 || rows->ne[3] != 1 || cells->ne[1] != 1) return Refuse(*tensor, "rows are written in batches");
  return WriteOp{.cache = cache, .tensor = tensor, .rows = rows, .cells = cells, .maybe_rope = FindRope(*rows)};
}

Result<AttentionOp> ParseAttention(const ggml_tensor& node) {
  const auto [q, k, v, mask] = std::tuple{node.src[0], node.src[1], node.src[2], node.src[3]};
  KvBuffer* cache = CacheOf(k);
  const KvTensor* keys = cache ? cache->Find(k->data) : nullptr;
  const KvTensor* values = cache && CacheOf(v) == cache ? cache->Find(v->data) : nullptr;
  if (!keys || !values) return Status::NotSupported("an attention reads K and V from different caches");
  if (keys->name.side != Side::kKey || values->name.side != Side::kValue) {
    return Refuse(*keys, "V is a part of K (MLA), which is not supported");
  }
  const KvRange at = keys->Locate(k->data);
  if (at.first_cell != 0 || at.byte_in_row != 0 || q->type != GGML_TYPE_F32 || k->ne[2] != v->ne[2]) {
    return Refuse(*keys, "its attention reads the cache in a form that kvant does not know");
  }
  if (mask && mask->ne[2] != 1) return Refuse(*keys, "each head has a mask of its own");
  if (q->ne[2] > kMaxHeads * k->ne[2]) return Refuse(*keys, "more than 16 query heads share a KV head");
  return AttentionOp{.cache = cache,
                     .keys = keys,
                     .values = values,
                     .node = &node,
                     .first_stream = at.stream,
                     .num_streams = static_cast<int>(k->ne[3]),
                     .num_cells = k->ne[1],
                     .num_queries = q->ne[1],
                     .q_heads = static_cast<int>(q->ne[2]),
                     .scale = FloatParam(node, 0),
                     .max_bias = FloatParam(node, 1),
                     .softcap = FloatParam(node, 2)};
}

Result<ShiftOp> ParseShift(const ggml_tensor& node) {
  KvBuffer* cache = CacheOf(&node);
  const KvTensor* keys = cache->Find(node.data);
  if (!keys) return Status::Internal("a shift of a cache tensor that was never allocated");
  const KvRange at = keys->Locate(node.data);
  const bool whole = node.ne[2] == keys->cells * keys->streams && at.stream == 0 && at.first_cell == 0 &&
                     node.src[0]->data == node.data && node.nb[2] == keys->row_bytes();
  if (!whole || keys->name.side != Side::kKey) return Refuse(*keys, "its positions are shifted in an unknown way");
  return ShiftOp{cache, keys, &node, at.byte_in_row};
}

Result<bool> ClaimOp(const ggml_tensor& op) {
  switch (Classify(op)) {
    case CacheOp::kNone: {
      const ggml_tensor* foreign = FindForeignCache(op);
      if (foreign == nullptr) return false;
      return Status::NotSupported(
          StrFormat("%s lies outside KVANT0: offload all layers and the KV cache to it "
                    "(n_gpu_layers = -1, offload_kqv on)",
                    foreign->name));
    }
    case CacheOp::kView:
      return true;
    case CacheOp::kWrite: {
      const auto write = ParseWrite(op);
      if (!write.ok()) return write.status();
      if (write->tensor->name.side == Side::kKey) {
        KVANT_TRY(write->cache->LearnRope(*write->tensor, ParseRope(write->maybe_rope)));
      }
      return true;
    }
    case CacheOp::kShift:
      if (const auto shift = ParseShift(op); !shift.ok()) return shift.status();
      return true;
    case CacheOp::kAttention: {
      const auto attention = ParseAttention(op);
      if (!attention.ok()) return attention.status();
      KVANT_TRY(attention->cache->LearnHeads(*attention->keys, op.src[1]->ne[2], op.src[1]->ne[0]));
      KVANT_TRY(attention->cache->LearnHeads(*attention->values, op.src[2]->ne[2], op.src[2]->ne[0]));
      if (attention->cache->on_cuda()) KVANT_TRY(CheckOnDevice(*attention));
      return true;
    }
    case CacheOp::kOther:
      break;
  }
  return Status::NotSupported(
      StrFormat("the host runs %s on the KV cache, which is not supported; is flash "
                "attention off?",
                ggml_op_name(op.op)));
}

}  // namespace kvant
