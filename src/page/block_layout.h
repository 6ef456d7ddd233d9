// What a block looks like: named streams of bytes, one after the other.
//
// A *page* is 64 tokens of one sequence in one layer; a *block* is one KV head's K or V in it.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "base/aligned_buffer.h"

namespace kvant {

/// Tokens in a page. Kernels, tiles and golden files depend on it; it is part of the format.
constexpr int kTokensPerPage = 64;

/// What a stream's bytes are for; the accounting of effective bits sums by this.
enum class StreamKind { kCodes, kScales, kMeans, kOutliers, kBases, kExact, kPositions };

/// "codes", "scales", ...: the words of the breakdown that `kvant eval` prints.
std::string_view StreamKindName(StreamKind kind);
constexpr int kNumStreamKinds = 7;

struct Stream {
  std::string_view name;  ///< as in the codec's byte table
  StreamKind kind;
  size_t byte_ofs;  ///< from the start of the block, multiple of 16
  size_t bytes;
};

/// Byte offsets of the streams of a block. Value type; two blocks of one layout have the same size.
class BlockLayout {
 public:
  /// Appends a stream and returns its byte offset.
  size_t Add(std::string_view name, StreamKind kind, size_t bytes) {
    const size_t ofs = AlignUp(end_, 16);
    streams_.push_back({name, kind, ofs, bytes});
    end_ = ofs + bytes;
    return ofs;
  }
  /// Size of a block: whole cache lines.
  size_t block_bytes() const { return AlignUp(end_); }
  const std::vector<Stream>& streams() const { return streams_; }

 private:
  std::vector<Stream> streams_;
  size_t end_ = 0;
};

}  // namespace kvant
