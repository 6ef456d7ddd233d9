#include "eval/environment.h"

#include <sys/utsname.h>

#include <fstream>
#include <vector>

#include "base/hash.h"

namespace kvant {
namespace {

// The value of the first line "key : value" of /proc/cpuinfo.
std::string CpuModel() {
  constexpr std::string_view kKey = "model name";
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(':');
    if (!line.starts_with(kKey) || colon == std::string::npos) continue;
    const size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

std::string HashOfProgram() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  if (!file) return "";
  Hash hash;
  std::vector<char> buffer(1 << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())), file.gcount() > 0) {
    hash.Add(buffer.data(), static_cast<size_t>(file.gcount()));
  }
  return hash.Hex();
}

}  // namespace

Environment ThisEnvironment() {
  Environment environment{.cpu = CpuModel(), .system = "", .program = HashOfProgram(), .device = "CPU"};
  utsname names;
  if (uname(&names) != 0) return environment;
  environment.system = std::string(names.sysname) + " " + names.release + " " + names.machine;
  if (environment.cpu.empty()) environment.cpu = names.machine;
  return environment;
}

}  // namespace kvant
