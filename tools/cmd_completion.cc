// kvant completion: scripts that teach a shell the command line.
#include <cstdio>
#include <map>
#include <memory>

#include "codec/registry.h"
#include "completion.h"
#include "kvant/scheme.h"
#include "verb.h"

namespace kvant {
namespace {

using MakeScript = std::string (*)(const CommandText& root, const CacheWords& caches);
const std::map<std::string, MakeScript> kShells = {
    {"bash", BashCompletion}, {"fish", FishCompletion}, {"zsh", ZshCompletion}};

CacheWords KnownCaches() {
  CacheWords words;
  for (const Preset& preset : Presets()) words.presets.emplace_back(preset.name);
  for (const char* host : {"f16", "llama:q8_0", "llama:q4_0"}) words.presets.emplace_back(host);
  for (const CodecInfo* info : AllCodecs()) words.codecs.emplace_back(info->name);
  return words;
}

}  // namespace

Verb AddCompletionVerb(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "Print the completion script of a shell");
  command->add_option("SHELL", *shell, "The shell: bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}).description("{bash,zsh,fish}"));
  return {command,
          [shell, &app] {
            std::fputs(kShells.at(*shell)(Describe(app), KnownCaches()).c_str(), stdout);
            return Status::Ok();
          },
          {{"source <(kvant completion bash)", "Complete verbs, options and presets in this bash"},
           {"kvant completion zsh > ~/.zfunc/_kvant", "The same for zsh, in a folder of fpath"},
           {"kvant completion fish > ~/.config/fish/completions/kvant.fish", "The same for fish"}}};
}

}  // namespace kvant
