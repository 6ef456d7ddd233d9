#include "codec/parts/side_options.h"

#include <gtest/gtest.h>

namespace kvant {
namespace {

constexpr OptionInfo kOptions[] = {{"bits", "2", "2, 4", ""}, {"wide", "1", "0, 1", ""}, {"salient", "0", "0, 4", ""}};

TEST(SideOptions, ThoseOfTheOtherSideAreRefused) {
  CodecInfo info = {};
  info.name = "own";
  info.options = kOptions;
  const auto salient = std::span(kOptions).last(1);
  const auto refusal = [&](const CodecOptions& given, Side side) {
    return RefuseOtherSide(OptionReader(info, given), given, side, salient).message();
  };
  EXPECT_EQ(refusal({{"bits", "4"}, {"wide", "0"}}, Side::kKey), "");
  EXPECT_EQ(refusal({{"bits", "4"}, {"salient", "4"}}, Side::kKey),
            "codec own: salient=4 is not accepted for keys; accepted: 0, 4");
  EXPECT_EQ(refusal({{"salient", "0"}}, Side::kValue),
            "codec own: salient=0 is not accepted for values; accepted: 0, 4");
}

}  // namespace
}  // namespace kvant
