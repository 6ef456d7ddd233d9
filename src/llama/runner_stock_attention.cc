#include <cmath>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "llama/runner_stock_attention.h"

namespace kvant {
namespace {

struct FreeContext {
  void operator()(ggml_context* context) const { ggml_free(context); }
};
struct FreeBackend {
  void operator()(ggml_backend_t backend) const { ggml_backend_free(backend); }
};
struct FreeBuffer {
  void operator()(ggml_backend_buffer_t buffer) const { ggml_backend_buffer_free(buffer); }
};

class GgmlAttention final : public StockAttention {
 public:
  Status Init(const StockAttentionShape& shape) {
    context_.reset(ggml_init(
        {.mem_size = ggml_tensor_overhead() * 16 + ggml_graph_overhead(), .mem_buffer = nullptr, .no_alloc = true}));
    backend_.reset(ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr));
    if (!backend_) return Status::NotSupported("ggml has no CPU backend here");
    const auto set_threads = reinterpret_cast<ggml_backend_set_n_threads_t>(ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(ggml_backend_get_device(backend_.get())), "ggml_backend_set_n_threads"));
    if (set_threads) set_threads(backend_.get(), shape.threads);
    ggml_context* c = context_.get();
    q_ = ggml_new_tensor_3d(c, GGML_TYPE_F32, shape.dim, 1, shape.q_heads);
    k_ = ggml_new_tensor_3d(c, GGML_TYPE_F16, shape.dim, shape.tokens, shape.kv_heads);
    v_ = ggml_new_tensor_3d(c, GGML_TYPE_F16, shape.dim, shape.tokens, shape.kv_heads);
    const float scale = 1.0f / std::sqrt(static_cast<float>(shape.dim));
    out_ = ggml_flash_attn_ext(c, q_, k_, v_, nullptr, scale, 0.0f, 0.0f);
    ggml_prec_set_acc(out_, GGML_PREC_F32);
    graph_ = ggml_new_graph(c);
    ggml_build_forward_expand(graph_, out_);
    buffer_.reset(ggml_backend_alloc_ctx_tensors(c, backend_.get()));
    if (!buffer_) return Status::OutOfMemory("no memory for the fp16 cache of the baseline");
    return Status::Ok();
  }

  F16* keys() override { return static_cast<F16*>(k_->data); }
  F16* values() override { return static_cast<F16*>(v_->data); }

  const float* Run(const float* queries) override {
    ggml_backend_tensor_set(q_, queries, 0, ggml_nbytes(q_));
    if (ggml_backend_graph_compute(backend_.get(), graph_) != GGML_STATUS_SUCCESS) return nullptr;
    return static_cast<const float*>(out_->data);
  }

 private:
  std::unique_ptr<ggml_context, FreeContext> context_;
  std::unique_ptr<ggml_backend, FreeBackend> backend_;
  std::unique_ptr<ggml_backend_buffer, FreeBuffer> buffer_;
  ggml_tensor* q_ = nullptr;
  ggml_tensor* k_ = nullptr;
  ggml_tensor* v_ = nullptr;
  ggml_tensor* out_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
};

}  // namespace

Result<std::unique_ptr<StockAttention>> StockAttention::Create(const StockAttentionShape& shape) {
  auto attention = std::make_unique<GgmlAttention>();
  KVANT_TRY(attention->Init(shape));
  return std::unique_ptr<StockAttention>(std::move(attention));
}

}  // namespace kvant
