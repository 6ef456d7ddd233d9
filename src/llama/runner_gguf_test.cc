#include "llama/runner_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "ggml.h"

namespace kvant {
namespace {

using enum BlockMemory;
using testing::ElementsAre;

/// A file with the header of a model and no weights worth the name.
class SmallModel {
 public:
  explicit SmallModel(const std::string& architecture, uint32_t blocks)
      : file_(gguf_init_empty()), prefix_(architecture) {
    gguf_set_val_str(file_.get(), "general.architecture", architecture.c_str());
    Set("block_count", blocks);
    Set("context_length", 4096);
    Set("embedding_length", 256);
    Set("attention.head_count", 4);
    Set("attention.head_count_kv", 2);
    tensors_ = ggml_init({.mem_size = 1 << 20, .mem_buffer = nullptr, .no_alloc = false});
  }
  ~SmallModel() {
    ggml_free(tensors_);
    std::filesystem::remove(path_);
  }

  SmallModel& Set(const std::string& key, uint32_t value) {
    gguf_set_val_u32(file_.get(), (prefix_ + "." + key).c_str(), value);
    return *this;
  }
  template <typename T>
  SmallModel& SetArray(const std::string& key, gguf_type type, const std::vector<T>& values) {
    gguf_set_arr_data(file_.get(), (prefix_ + "." + key).c_str(), type, values.data(), values.size());
    return *this;
  }
  SmallModel& AddTensor(const std::string& name) {
    ggml_tensor* tensor = ggml_new_tensor_1d(tensors_, GGML_TYPE_F32, 32);
    ggml_set_name(tensor, name.c_str());
    gguf_add_tensor(file_.get(), tensor);
    return *this;
  }
  ModelInfo Read() {
    path_ = testing::TempDir() + "kvant_gguf_" + std::to_string(getpid()) + ".gguf";
    EXPECT_TRUE(gguf_write_to_file(file_.get(), path_.c_str(), false));
    const Result<ModelInfo> info = ReadGguf(path_);
    EXPECT_TRUE(info.ok()) << info.status().message();
    return info.ok() ? *info : ModelInfo{};
  }
  std::vector<BlockMemory> ReadMemory() {
    std::vector<BlockMemory> memory;
    for (const BlockInfo& block : Read().blocks) memory.push_back(block.memory);
    return memory;
  }

 private:
  Gguf file_;
  std::string prefix_;
  std::string path_;
  ggml_context* tensors_;
};

TEST(RunnerGgufTest, PlainModelsRememberAllTokens) {
  EXPECT_THAT(SmallModel("llama", 3).ReadMemory(), ElementsAre(kAll, kAll, kAll));
  // libllama has no windows in this architecture, whatever the file says.
  EXPECT_THAT(SmallModel("llama", 2).Set("attention.sliding_window", 1024).ReadMemory(), ElementsAre(kAll, kAll));
}

TEST(RunnerGgufTest, WindowsFollowThePatternOfTheArchitecture) {
  EXPECT_THAT(SmallModel("gemma2", 4).Set("attention.sliding_window", 96).ReadMemory(),
              ElementsAre(kWindow, kAll, kWindow, kAll));
  EXPECT_THAT(SmallModel("smallthinker", 5).Set("attention.sliding_window", 96).ReadMemory(),
              ElementsAre(kAll, kWindow, kWindow, kWindow, kAll));
  EXPECT_THAT(SmallModel("phi3", 2).Set("attention.sliding_window", 96).ReadMemory(), ElementsAre(kAll, kAll));
}

TEST(RunnerGgufTest, WindowsFollowThePatternOfTheFile) {
  SmallModel period("gemma3", 3);
  period.Set("attention.sliding_window", 96).Set("attention.sliding_window_pattern", 3);
  const ModelInfo info = period.Read();
  EXPECT_EQ(info.window, 96);
  EXPECT_EQ(info.blocks[0].memory, kWindow);
  EXPECT_EQ(info.blocks[2].memory, kAll);
  SmallModel list("gemma4", 3);
  list.Set("attention.sliding_window", 512);
  list.SetArray<int8_t>("attention.sliding_window_pattern", GGUF_TYPE_BOOL, {0, 1, 1});
  EXPECT_THAT(list.ReadMemory(), ElementsAre(kAll, kWindow, kWindow));
}

TEST(RunnerGgufTest, RecurrentBlocksAreKnownByTheirTensors) {
  SmallModel hybrid("jamba", 4);
  hybrid.SetArray<int32_t>("attention.head_count_kv", GGUF_TYPE_INT32, {0, 2, 0, 2});
  hybrid.AddTensor("blk.0.ssm_in.weight").AddTensor("blk.1.attn_k.weight");
  hybrid.AddTensor("blk.3.attn_k.weight").AddTensor("blk.3.ssm_in.weight").AddTensor("blk.77.ssm_in.weight");
  const ModelInfo info = hybrid.Read();
  EXPECT_EQ(info.layers.size(), 2u);
  EXPECT_EQ(info.blocks[0].memory, kState);
  EXPECT_EQ(info.blocks[1].memory, kAll);
  EXPECT_EQ(info.blocks[2].memory, kNothing);
  EXPECT_EQ(info.blocks[3].memory, kAllAndState);
  EXPECT_EQ(info.blocks[3].layer, 1);
  EXPECT_THAT(SmallModel("rwkv7", 1).AddTensor("blk.0.time_mix_w0.weight").ReadMemory(), ElementsAre(kState));
}

TEST(RunnerGgufTest, LatentBlocksAreKnownByKeyOrTensor) {
  EXPECT_THAT(SmallModel("deepseek2", 2).Set("attention.key_length_mla", 192).ReadMemory(),
              ElementsAre(kLatent, kLatent));
  EXPECT_THAT(SmallModel("deepseek2", 2).AddTensor("blk.1.attn_k_b.weight").ReadMemory(), ElementsAre(kAll, kLatent));
  // Old files keep K and V of each head.
  EXPECT_THAT(SmallModel("deepseek2", 1).Set("attention.kv_lora_rank", 512).ReadMemory(), ElementsAre(kAll));
}

}  // namespace
}  // namespace kvant
