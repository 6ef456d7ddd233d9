// Files of calibrations: what is written comes back, and everything else is refused in one line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "calibrate/calibration_sample.h"
#include "kvant/calibration.h"

namespace kvant {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;

const CodecChoice kChoice = {.name = "decoquant", .options = {{"bits", "2"}, {"gauge", "klt"}, {"metric", "model"}}};

const std::string& SampleBytes() {
  static const std::string bytes = SampleCalibration(kChoice)->Serialize();
  return bytes;
}

size_t HeaderBytes(const std::string& file) {
  size_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(file[i]);
  return length;
}

// The sample with its header changed by `edit`.
template <typename Edit>
std::string Edited(Edit edit) {
  const std::string& file = SampleBytes();
  const size_t length = HeaderBytes(file);
  Json header = Json::parse(file.substr(8, length));
  edit(header);
  std::string text = header.dump();
  std::string bytes;
  for (size_t i = 0; i < 8; ++i) bytes += static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return bytes + text + file.substr(8 + length);
}

Status Parsed(const std::string& bytes) { return Calibration::Parse(bytes, "file x").status(); }

void ExpectRefused(const std::string& bytes, StatusCode code, const std::string& words) {
  const Status status = Parsed(bytes);
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("file x: "));
  EXPECT_THAT(status.message(), HasSubstr(words));
}

constexpr const char* kFirst = "layer.0.k/decoquant:bits=2,gauge=klt,code=auto,metric=model,mean=auto";

TEST(CalibrationFile, ComesBackWhole) {
  const auto sample = SampleCalibration(kChoice);
  const auto back = Calibration::Parse(SampleBytes(), "file x");
  ASSERT_TRUE(back.ok()) << back.status().message();
  const CalibrationOrigin& origin = (*back)->origin();
  EXPECT_EQ(origin.model_hash, sample->origin().model_hash);
  EXPECT_EQ(origin.model_description, sample->origin().model_description);
  EXPECT_EQ(origin.kvant_version, "0.1.0");
  EXPECT_EQ(origin.tokens, 256);
  EXPECT_EQ(origin.window, 256);
  ASSERT_EQ(origin.texts.size(), 2u);
  EXPECT_EQ(origin.texts[1].name, sample->origin().texts[1].name);
  EXPECT_EQ(origin.layers[1].v_dim, 64);
  ASSERT_EQ((*back)->entries().size(), 4u);
  for (const CalibrationEntry& entry : sample->entries()) {
    const CalibrationEntry* found = (*back)->Find(entry.codec, entry.layer, entry.is_key);
    ASSERT_NE(found, nullptr) << entry.codec;
    EXPECT_EQ(found->num_bases, 2);
    EXPECT_EQ(found->bytes, entry.bytes);
  }
  EXPECT_EQ((*back)->Find("decoquant", 0, true), nullptr);
  EXPECT_EQ((*back)->Serialize(), Calibration::Parse(SampleBytes(), "y").value()->Serialize());
}

TEST(CalibrationFile, IsTheSameInEveryRun) { EXPECT_EQ(SampleCalibration(kChoice)->Serialize(), SampleBytes()); }

TEST(CalibrationFile, TensorsBeginOnACacheLine) { EXPECT_EQ((8 + HeaderBytes(SampleBytes())) % 64, 0u); }

TEST(CalibrationFile, IsTiedToItsModel) {
  const auto sample = SampleCalibration(kChoice);
  EXPECT_TRUE(sample->CheckModel("0123456789abcdef0123456789abcdef").ok());
  const Status status = sample->CheckModel("ffff");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("0123456789abcdef0123456789abcdef"));
  EXPECT_THAT(status.message(), HasSubstr("ffff"));
}

TEST(CalibrationFile, TruncatedFilesAreRefused) {
  const std::string& whole = SampleBytes();
  for (const size_t size : {size_t{0}, size_t{7}, size_t{8}, size_t{100}, 8 + HeaderBytes(whole), whole.size() - 1}) {
    EXPECT_EQ(Parsed(whole.substr(0, size)).code(), StatusCode::kCorruption) << size;
  }
  ExpectRefused(whole + "x", StatusCode::kCorruption, "1 bytes follow");
}

TEST(CalibrationFile, ForeignFilesAreRefused) {
  ExpectRefused("\x89PNG\r\n\x1a\n" + std::string(500, 'x'), StatusCode::kCorruption, "not a calibration file");
  ExpectRefused(std::string("\2\0\0\0\0\0\0\0{}", 10), StatusCode::kCorruption, "without metadata");
  ExpectRefused(std::string("\2\0\0\0\0\0\0\0[]", 10), StatusCode::kCorruption, "not a calibration file");
  ExpectRefused(Edited([](Json& h) { h["__metadata__"]["format"] = "pt"; }), StatusCode::kCorruption, "another kind");
  ExpectRefused(Edited([](Json& h) { h["__metadata__"]["format_version"] = "2"; }), StatusCode::kNotSupported,
                "format version '2' is not accepted; accepted: 1");
  ExpectRefused(Edited([](Json& h) { h["__metadata__"].erase("model_hash"); }), StatusCode::kCorruption, "model_hash");
}

TEST(CalibrationFile, MetadataIsChecked) {
  for (const char* layers : {"", "[]", "[[1,2]]", "[[-1,64,64]]", "[[2,64,\"a\"]]", "[[2,64,99999]]", "{"}) {
    ExpectRefused(Edited([&](Json& h) { h["__metadata__"]["layers"] = layers; }), StatusCode::kCorruption, "layers");
  }
  ExpectRefused(Edited([](Json& h) { h["__metadata__"]["texts"] = "[3]"; }), StatusCode::kCorruption, "texts");
  ExpectRefused(Edited([](Json& h) { h["__metadata__"]["tokens"] = "many"; }), StatusCode::kCorruption, "tokens");
  ExpectRefused(Edited([](Json& h) { h["__metadata__"]["layers"] = "[[2,64,64]]"; }), StatusCode::kCorruption,
                "no layer of the model");
  ExpectRefused(Edited([](Json& h) { h["__metadata__"]["layers"] = "[[2,128,64],[2,128,64]]"; }),
                StatusCode::kCorruption, "the codec has 2 of");
}

TEST(CalibrationFile, TensorsAreChecked) {
  const auto edit = [](const char* key, const Json& value) { return Edited([&](Json& h) { h[kFirst][key] = value; }); };
  ExpectRefused(edit("dtype", "F32"), StatusCode::kCorruption, "type U8");
  ExpectRefused(edit("shape", {2}), StatusCode::kCorruption, "two dimensions");
  ExpectRefused(edit("shape", {1, 2}), StatusCode::kCorruption, "shape and size");
  ExpectRefused(edit("shape", {0, 0}), StatusCode::kCorruption, "shape and size");
  ExpectRefused(edit("shape", {-2, 2}), StatusCode::kCorruption, "two dimensions");
  ExpectRefused(edit("data_offsets", {5, 3}), StatusCode::kCorruption, "truncated");
  ExpectRefused(edit("data_offsets", {0, uint64_t{1} << 63}), StatusCode::kCorruption, "truncated");
  const size_t bytes = SampleCalibration(kChoice)->entries()[0].bytes.size();
  ExpectRefused(edit("data_offsets", {bytes, 2 * bytes}), StatusCode::kCorruption, "overlap or leave a gap");
}

TEST(CalibrationFile, EntriesAreChecked) {
  const auto rename = [](const std::string& name) {
    return Edited([&](Json& h) {
      h[name] = h[kFirst];
      h.erase(kFirst);
    });
  };
  const std::string options = ":bits=2,gauge=klt,code=auto,metric=model,mean=auto";
  ExpectRefused(rename("weights"), StatusCode::kCorruption, "none of a calibration");
  ExpectRefused(rename("layer.9.k/decoquant" + options), StatusCode::kCorruption, "no layer of the model");
  ExpectRefused(rename("layer..k/decoquant" + options), StatusCode::kCorruption, "none of a calibration");
  ExpectRefused(rename("layer.0.q/decoquant" + options), StatusCode::kCorruption, "no layer of the model");
  ExpectRefused(rename("layer.0.k/zip" + options), StatusCode::kNotSupported, "no such codec");
  ExpectRefused(rename("layer.0.k/decoquant:colour=red"), StatusCode::kNotSupported, "colour");
  ExpectRefused(rename("layer.0.k/decoquant:bits=2,gauge=klt,metric=model"), StatusCode::kNotSupported, "not complete");
  ExpectRefused(rename("layer.0.k/int:bits=4,axis=auto,group=auto"), StatusCode::kCorruption, "0 bytes");
}

TEST(CalibrationFile, BasesAreCheckedByTheirCodec) {
  std::string bytes = SampleBytes();
  bytes[8 + HeaderBytes(bytes)] = 5;  // a tile of 5 bits
  ExpectRefused(bytes, StatusCode::kCorruption, "head 0: decoquant: tile 0 has width 5");
}

TEST(CalibrationFile, LoadNamesTheFile) {
  const std::string path = testing::TempDir() + "kvant_calibration_" + std::to_string(getpid());
  EXPECT_THAT(Calibration::Load(path).status().message(), HasSubstr(path + ": No such file"));
  EXPECT_EQ(Calibration::Load(path).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Calibration::Load(testing::TempDir()).status().code(), StatusCode::kIoError);
  std::ofstream(path, std::ios::binary) << SampleBytes();
  const auto loaded = Calibration::Load(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ((*loaded)->entries().size(), 4u);
  unlink(path.c_str());
}

}  // namespace
}  // namespace kvant
