// runner.h and runner_stock_attention.h in a build without libllama.
#include "llama/runner.h"
#include "llama/runner_stock_attention.h"

namespace kvant {
namespace {

Status Missing() {
  return Status::NotSupported("this build of kvant has no libllama; configure with -DKVANT_LLAMA=ON to run models");
}

}  // namespace

void Runner::SetLog(LogSink) {}

Result<DeviceInfo> Runner::FindDevice(std::string_view) { return Missing(); }

Result<ModelInfo> Runner::Inspect(const std::string&) { return Missing(); }

Result<std::string> Runner::HashModel(const std::string&) { return Missing(); }

Result<Scheme> Runner::ReadScheme(const std::string&, std::string_view) { return Missing(); }

Status Runner::ShowOutputWeights(const std::string&, RowWatcher*) { return Missing(); }

Result<std::unique_ptr<Runner>> Runner::Open(const RunnerOptions&) { return Missing(); }

Result<std::unique_ptr<StockAttention>> StockAttention::Create(const StockAttentionShape&) { return Missing(); }

}  // namespace kvant
