#include "text_input.h"

#include <utf8.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

namespace kvant {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const {
    if (file != stdin) std::fclose(file);
  }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

Result<File> OpenText(const std::string& path, const std::string& name) {
  if (path == "-") return File(stdin);
  if (std::filesystem::is_directory(path)) return Status::IoError(name + ": is a folder; accepted: a text file");
  File file(std::fopen(path.c_str(), "rb"));
  if (file) return file;
  const std::string message = name + ": " + std::strerror(errno);
  return errno == ENOENT ? Status::NotFound(message) : Status::IoError(message);
}

}  // namespace

Status CheckText(const std::string& text, const std::string& name) {
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    return Status::Corruption(name + ": the text is empty; accepted: UTF-8 text");
  }
  const auto invalid = utf8::find_invalid(text.begin(), text.end());
  if (invalid == text.end()) return Status::Ok();
  return Status::Corruption(StrFormat("%s: not UTF-8 text: byte 0x%02X at offset %td; accepted: UTF-8 text",
                                      name.c_str(), static_cast<unsigned char>(*invalid), invalid - text.begin()));
}

Result<std::string> ReadText(const std::string& path) {
  const std::string name = path == "-" ? "standard input" : path;
  Result<File> file = OpenText(path, name);
  if (!file.ok()) return file.status();
  std::string text;
  char buffer[1 << 16];
  while (const size_t n = std::fread(buffer, 1, sizeof(buffer), file->get())) text.append(buffer, n);
  if (std::ferror(file->get())) return Status::IoError(name + ": " + std::strerror(errno));
  KVANT_TRY(CheckText(text, name));
  return text;
}

}  // namespace kvant
