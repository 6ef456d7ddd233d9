// One block through the verbs of a codec: 64 keys of one head are encoded, decoded, and scored against a
// query without being decoded.
//
//   example_01_one_block [codec[:options]]      for example int:4 or kivi:bits=2
#include <cmath>
#include <cstdio>
#include <random>
#include <string_view>

#include "base/aligned_buffer.h"
#include "codec/codec.h"
#include "kvant/scheme.h"

using namespace kvant;

namespace {

constexpr int kDim = 128;

/// The block, its size and its errors, on the terminal. Error: whatever the codec refuses.
Status Run(std::string_view codec_text, double* score_error) {
  // A codec word serves both sides of a scheme; we take the key side.
  const Result<Scheme> scheme = Scheme::Parse(codec_text);
  if (!scheme.ok()) return scheme.status();
  Result<Codec> codec = MakeCodec(scheme->key.name, scheme->key.options, {.side = Side::kKey, .dim = kDim});
  if (!codec.ok()) return codec.status();
  const CodecState& state = *codec->state;

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  AlignedBuffer<float> rows(kTokensPerPage * kDim), decoded(rows.size()), query(kDim);
  for (float& value : rows.span()) value = normal(random);
  for (float& value : query.span()) value = normal(random);

  AlignedBuffer<std::byte> block(codec->block_bytes());
  KVANT_TRY(codec->verbs.encode(state, {}, rows.data(), block.data()));
  KVANT_TRY(codec->verbs.decode(state, {}, block.data(), decoded.data()));
  double error = 0, norm = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    error += std::pow(rows[i] - decoded[i], 2);
    norm += std::pow(rows[i], 2);
  }
  std::printf("%s: %zu bytes = %.2f bits per value, relative error %.4f\n", scheme->key.ToString().c_str(),
              codec->block_bytes(), 8.0 * static_cast<double>(codec->block_bytes()) / static_cast<double>(rows.size()),
              std::sqrt(error / norm));
  for (const Stream& stream : state.layout.streams()) {
    std::printf("  %-10.*s %6zu bytes at %zu\n", static_cast<int>(stream.name.size()), stream.name.data(), stream.bytes,
                stream.byte_ofs);
  }

  AlignedBuffer<std::byte> prepared(state.prepared_head_bytes);
  AlignedBuffer<float> scores(kTokensPerPage);
  codec->verbs.prepare_query(state, {}, query.data(), 1, prepared.data());
  codec->verbs.score(state, {}, block.data(), prepared.data(), 1, scores.data());
  double difference = 0, power = 0;
  for (size_t t = 0; t < kTokensPerPage; ++t) {
    double exact = 0;
    for (size_t c = 0; c < kDim; ++c)
      exact += static_cast<double>(query[c]) * static_cast<double>(decoded[t * kDim + c]);
    difference += std::pow(static_cast<double>(scores[t]) - exact, 2);
    power += exact * exact;
  }
  *score_error = std::sqrt(difference / power);
  std::printf("  score against query . decoded row: relative difference %.1e\n", *score_error);
  return Status::Ok();
}

}  // namespace

int main(int argc, char** argv) {
  double score_error = 0;
  const Status status = Run(argc > 1 ? argv[1] : "int:4", &score_error);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.message().c_str());
    return 2;
  }
  return score_error <= 2e-3 ? 0 : 1;  // the contract of codec/codec.h
}
