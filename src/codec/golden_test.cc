// Blocks are what a second implementation of the format made of the same rows (tests/golden/README.md), on
// every SIMD target: to the byte, or within the share of code steps that the codec declares.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "codec/golden_rows.h"
#include "codec/registry.h"
#include "codec/test_rope.h"

namespace kvant {
namespace {

constexpr uint64_t kSeed = 1;  // as in tools/dev/make_golden.py

// ------------------------------------------------------------------ files

const std::string kFolder = std::string(KVANT_SOURCE_DIR) + "/tests/golden/";

// A line of cases.txt.
struct Case {
  std::string file, side, options, basis;
  int dim = 0;

  std::string codec() const { return file.substr(0, file.find('/')); }
};

std::vector<Case> ReadCases() {
  std::ifstream in(kFolder + "cases.txt");
  std::vector<Case> cases;
  for (std::string line; std::getline(in, line);) {
    Case c;
    std::istringstream words(line);
    if (!line.starts_with('#') && words >> c.file >> c.side >> c.dim >> c.options) {
      words >> c.basis;
      cases.push_back(c);
    }
  }
  return cases;
}

AlignedBuffer<std::byte> ReadBytes(const std::string& file) {
  std::ifstream in(kFolder + file, std::ios::binary);
  EXPECT_TRUE(in) << file;
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  AlignedBuffer<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// ------------------------------------------------------------------ one case

class GoldenTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    GoldenRows(kSeed, GetParam().dim, rows_.data());
    golden_ = ReadBytes(GetParam().file);
    if (!GetParam().basis.empty()) ReadBasis();
  }
  void TearDown() override { SetSimdTarget(""); }

  Codec Make(Implementation implementation) const {
    const CodecInfo* info = FindCodec(GetParam().codec());
    const auto options = ParseCodecOptions(*info, GetParam().options == "-" ? "" : GetParam().options);
    const Side side = GetParam().side == "k" ? Side::kKey : Side::kValue;
    Result<Codec> codec = MakeCodec(info->name, *options, {.side = side, .dim = GetParam().dim}, implementation);
    EXPECT_TRUE(codec.ok()) << codec.status().message();
    return *std::move(codec);
  }

  AlignedBuffer<float> Decoded(const Codec& codec, const std::byte* block) const {
    AlignedBuffer<float> rows(rows_.size());
    EXPECT_TRUE(codec.verbs.decode(*codec.state, Context(codec), block, rows.data()).ok());
    return rows;
  }

  void ReadBasis();
  void ExpectGoldenBytes(const Codec& codec) const;

  BlockContext Context(const Codec& codec) const { return rope_.Context(*codec.state, basis_.data()); }

  AlignedBuffer<std::byte> basis_, golden_;
  TestRope rope_{GetParam().dim};
  AlignedBuffer<float> rows_{static_cast<size_t>(kTokensPerPage * GetParam().dim)};
};

void GoldenTest::ReadBasis() {
  const Codec codec = Make(Implementation::kReference);
  basis_ = ReadBytes(GetParam().basis);
  ASSERT_EQ(basis_.size(), codec.state->basis_bytes);
  const Status status = codec.info->check_basis(*codec.state, basis_.data());
  ASSERT_TRUE(status.ok()) << status.message();
}

double RelativeDistance(const AlignedBuffer<float>& a, const AlignedBuffer<float>& b) {
  double distance = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    distance += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(distance / norm);
}

// A code that differs touches one byte of each of its planes, and a step is at most twice the RMS (that of
// signs). A scale that was rounded the other way is within 2^-10.
void GoldenTest::ExpectGoldenBytes(const Codec& codec) const {
  ASSERT_EQ(codec.block_bytes(), golden_.size());
  AlignedBuffer<std::byte> block(golden_.size());
  ASSERT_TRUE(codec.verbs.encode(*codec.state, Context(codec), rows_.data(), block.data()).ok());
  size_t different = 0;
  for (size_t i = 0; i < block.size(); ++i) different += block[i] != golden_[i];

  const double values = static_cast<double>(rows_.size());
  EXPECT_LE(static_cast<double>(different), 2 * std::ceil(codec.info->max_code_mismatch * values));
  const double moved = 2 * std::sqrt(static_cast<double>(different) / values);
  EXPECT_LE(RelativeDistance(Decoded(codec, block.data()), Decoded(codec, golden_.data())), moved + 1e-3);
}

TEST_P(GoldenTest, ReferenceEncodesTheSameBytes) { ExpectGoldenBytes(Make(Implementation::kReference)); }

TEST_P(GoldenTest, TargetsEncodeTheSameBytes) {
  for (const std::string& target : SimdTargets()) {
    SCOPED_TRACE(target);
    ASSERT_TRUE(SetSimdTarget(target));
    ExpectGoldenBytes(Make(Implementation::kBest));
  }
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.file;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenTest, ::testing::ValuesIn(ReadCases()), CaseName);

TEST(GoldenCasesTest, CoverEveryCodecOnEverySide) {
  std::set<std::string> covered;
  for (const Case& c : ReadCases()) covered.insert(c.codec() + " " + c.side);
  for (const CodecInfo* info : AllCodecs()) {
    const std::string name(info->name);
    EXPECT_EQ(covered.contains(name + " k"), info->keys) << name;
    EXPECT_EQ(covered.contains(name + " v"), info->values) << name;
  }
}

}  // namespace
}  // namespace kvant
