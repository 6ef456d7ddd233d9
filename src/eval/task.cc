#include "eval/task.h"

#include "base/hash.h"
#include "eval/interval.h"

namespace kvant {

Result<std::unique_ptr<Runner>> TaskRun::Open(int context, int sequences) const {
  RunnerOptions with_room = options;
  with_room.context = context;
  with_room.sequences = sequences;
  return open(with_room);
}

nlohmann::json ShareJson(int64_t right, int64_t asked) {
  const Interval interval = WilsonInterval(right, asked);
  return {{"right", right}, {"asked", asked}, {"low", interval.low}, {"high", interval.high}};
}

std::string ShowShare(const nlohmann::json& share) {
  return std::to_string(share.at("right").get<int64_t>()) + "/" + std::to_string(share.at("asked").get<int64_t>());
}

std::string HashText(std::string_view text) {
  Hash hash;
  hash.Add(text.data(), text.size());
  return hash.Hex();
}

Status CheckContext(const Runner& model, const char* what, int tokens) {
  const int most = model.info().context_train;
  if (tokens <= most) return Status::Ok();
  return Status::InvalidArgument(StrFormat("%s needs a context of %d tokens; the model's is %d", what, tokens, most));
}

}  // namespace kvant
