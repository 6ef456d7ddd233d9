#include "inspection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace kvant {
namespace {

using testing::HasSubstr;

// Blocks with and without a window in turn.
ModelInfo WindowedModel(int window) {
  ModelInfo model;
  model.path = "m.gguf";
  model.architecture = "gemma2";
  model.context_train = 8192;
  model.q_heads = 4;
  model.window = window;
  for (int i = 0; i < 4; ++i) {
    model.layers.push_back({.kv_heads = 2, .k_dim = 64, .v_dim = 64});
    model.blocks.push_back({.memory = window && i % 2 == 0 ? BlockMemory::kWindow : BlockMemory::kAll, .layer = i});
  }
  return model;
}

TEST(InspectionTest, GroupsEqualBlocks) {
  const Inspection inspection = InspectModel(WindowedModel(512), 0);
  ASSERT_EQ(inspection.groups.size(), 2u);
  EXPECT_THAT(inspection.groups[0].blocks, testing::ElementsAre(0, 2));
  EXPECT_THAT(inspection.meanings, testing::ElementsAre(HasSubstr("Blocks 0, 2 look back 512 tokens")));
  EXPECT_EQ(inspection.refused, "");
}

TEST(InspectionTest, WindowsCostNothingPerToken) {
  Inspection windowed = InspectModel(WindowedModel(512), 1'000'000);
  Inspection whole = InspectModel(WindowedModel(0), 1'000'000);
  AddUsualCaches(nullptr, &windowed);
  AddUsualCaches(nullptr, &whole);
  ASSERT_EQ(windowed.caches.size(), whole.caches.size());
  for (size_t i = 0; i < whole.caches.size(); ++i) {
    EXPECT_DOUBLE_EQ(2 * windowed.caches[i].bytes_per_token, whole.caches[i].bytes_per_token) << whole.caches[i].cache;
    EXPECT_DOUBLE_EQ(windowed.caches[i].bits, whole.caches[i].bits);
    EXPECT_LT(windowed.caches[i].full_bytes, 0.6 * whole.caches[i].full_bytes);
    EXPECT_GE(windowed.caches[i].largest_context, whole.caches[i].largest_context);
  }
  // 4 layers of 2 heads, K and V of 64 values in 2 bytes; the window's cells are 512 + 512.
  EXPECT_EQ(whole.caches[0].bytes_per_token, 4 * 2 * 128 * 2);
  EXPECT_EQ(windowed.caches[0].full_bytes, 1024.0 * (8192 + 1024));
}

TEST(InspectionTest, StatesAndLatentRowsAreRefused) {
  ModelInfo model = WindowedModel(0);
  model.blocks[1].memory = BlockMemory::kState;
  EXPECT_THAT(InspectModel(model, 0).refused, HasSubstr("recurrent"));
  model.blocks[1].memory = BlockMemory::kLatent;
  const Inspection latent = InspectModel(model, 0);
  EXPECT_THAT(latent.refused, HasSubstr("MLA"));
  EXPECT_THAT(InspectionToText(latent), HasSubstr("not supported"));
  EXPECT_FALSE(nlohmann::json::parse(InspectionToJson(latent, "1"))["supported"]);
}

TEST(InspectionTest, PresetsThatDoNotFitSayWhy) {
  ModelInfo model = WindowedModel(0);
  for (LayerShape& layer : model.layers) layer.k_dim = 65;
  Inspection inspection = InspectModel(model, 0);
  AddUsualCaches(nullptr, &inspection);
  EXPECT_EQ(inspection.caches.front().refused, "");
  EXPECT_NE(inspection.caches.back().refused, "");
  EXPECT_THAT(InspectionToText(inspection), HasSubstr("\n" + inspection.caches.back().cache + ": "));
  EXPECT_FALSE(AddCache("int:4", nullptr, &inspection).ok());
}

TEST(InspectionTest, RangesAreShort) {
  EXPECT_EQ(RangesText({3}), "3");
  EXPECT_EQ(RangesText({0, 1, 2, 5, 7, 8}), "0-2, 5, 7-8");
  EXPECT_EQ(RangesText({0, 2, 4, 6, 8, 10, 12, 14}), "0, 2, 4, 6, 8, 10, ... (8 in all)");
}

}  // namespace
}  // namespace kvant
