#include "eval/tool_calls.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/check.h"
#include "eval/generate.h"
#include "eval/item_task.h"
#include "eval/text_lines.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

// A call with a few arguments takes some 40 tokens.
constexpr int kMaxCallTokens = 160;

struct Type {
  std::string_view name;
  bool (*is)(const Json& value);
};
constexpr std::array kTypes = {Type{"string", [](const Json& v) { return v.is_string(); }},
                               Type{"number", [](const Json& v) { return v.is_number(); }},
                               Type{"integer", [](const Json& v) { return v.is_number_integer(); }},
                               Type{"boolean", [](const Json& v) { return v.is_boolean(); }}};

const Type* FindType(const Json& name) {
  const auto type = std::ranges::find_if(kTypes, [&](const Type& t) { return name.is_string() && name == t.name; });
  return type == kTypes.end() ? nullptr : &*type;
}

// One past the object that `text` starts with; npos: it is not complete. Braces in strings are none.
size_t EndOfObject(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{') ++depth;
    if (c == '}' && --depth == 0) return i + 1;
  }
  return std::string_view::npos;
}

bool FitsParameters(const Json& arguments, const Json& parameters) {
  if (!arguments.is_object() || arguments.size() != parameters.size()) return false;
  return std::ranges::all_of(parameters.items(), [&](const auto& parameter) {
    const auto value = arguments.find(parameter.key());
    return value != arguments.end() && FindType(parameter.value())->is(*value);
  });
}

// What cannot become a call any more, or is one.
bool IsOver(std::string_view written) {
  const std::string_view text = Trim(written);
  return !text.empty() && (text.front() != '{' || EndOfObject(text) != std::string_view::npos);
}

Status CheckTools(const Json& prompt, const std::string& where) {
  const auto refuse = [&](const char* what) { return Status::InvalidArgument(where + what); };
  const auto tools = prompt.find("tools");
  if (tools == prompt.end() || !tools->is_array() || tools->empty()) return refuse("no list of \"tools\"");
  for (const Json& tool : *tools) {
    if (!tool.is_object() || !tool.contains("name") || !tool["name"].is_string() || !tool.contains("parameters") ||
        !tool["parameters"].is_object()) {
      return refuse("a tool that is no {\"name\": text, \"parameters\": {name: type}}");
    }
    for (const Json& type : tool["parameters"]) {
      if (FindType(type) == nullptr) {
        return refuse("a parameter of an unknown type; accepted: string, number, integer, boolean");
      }
    }
  }
  return Status::Ok();
}

struct ToolPrompt {
  std::string text;
  Json tools;
};

class ToolCalls : public ItemTask {
 public:
  ToolCalls(std::vector<ToolPrompt> prompts, std::string hash, std::string name)
      : ItemTask({"tool-calls", "/tasks/tool_calls", "tool calls"}, "prompts", std::move(hash), std::move(name)),
        prompts_(std::move(prompts)) {}

 private:
  size_t num_items() const override { return prompts_.size(); }
  int PrepareItem(const Runner& model, size_t i) override {
    return static_cast<int>(model.Tokenize(prompts_[i].text, true).size()) + kMaxCallTokens;
  }
  Result<bool> IsRight(Runner& runner, size_t i) const override;

  const std::vector<ToolPrompt> prompts_;
};

Result<bool> ToolCalls::IsRight(Runner& runner, size_t i) const {
  KVANT_TRY(FeedPages(runner, runner.Tokenize(prompts_[i].text, true)));
  const Result<std::string> written = GenerateText(runner, kMaxCallTokens, IsOver);
  if (!written.ok()) return written.status();
  return IsToolCall(*written, prompts_[i].tools);
}

// ---- The prompts that come with kvant ----

struct BuiltInTool {
  const char* name;
  const char* parameters;
};
constexpr std::array kTools = {BuiltInTool{"get_weather", R"({"city": "string", "days": "integer"})"},
                               BuiltInTool{"send_message", R"({"to": "string", "text": "string"})"},
                               BuiltInTool{"set_alarm", R"({"hour": "integer", "minute": "integer"})"},
                               BuiltInTool{"convert", R"({"amount": "number", "unit": "string"})"},
                               BuiltInTool{"play_music", R"({"title": "string", "loud": "boolean"})"}};

constexpr const char* kExamples =
    "Request: What will the weather be in Lisbon for the next three days?\n"
    "Call: {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Lisbon\", \"days\": 3}}\n"
    "Request: Play the song Blue Danube, and not loud.\n"
    "Call: {\"name\": \"play_music\", \"arguments\": {\"title\": \"Blue Danube\", \"loud\": false}}\n";

constexpr std::array kRequests = {"Tell Martha that the train is late.",
                                  "Wake me up at half past six.",
                                  "Is it going to rain in Bergen tomorrow?",
                                  "How much are 12.5 miles in kilometres?",
                                  "Play Greensleeves as loud as you can.",
                                  "Write to the captain that we sail at noon.",
                                  "Set an alarm for 22:15.",
                                  "What is the weather in New Bedford this week?"};

Json BuiltInTools() {
  Json tools = Json::array();
  for (const BuiltInTool& tool : kTools) {
    tools.push_back({{"name", tool.name}, {"parameters", Json::parse(tool.parameters)}});
  }
  return tools;
}

std::string BuiltInPrompt(const std::string& request) {
  std::string text = "Tools, with the types of their parameters:\n";
  for (const BuiltInTool& tool : kTools) text += std::string("- ") + tool.name + " " + tool.parameters + "\n";
  return text + "Answer each request with one call as JSON and nothing else.\n\n" + kExamples + "Request: " + request +
         "\nCall:";
}

}  // namespace

bool IsToolCall(std::string_view written, const Json& tools) {
  const std::string_view text = Trim(written);
  if (text.empty() || text.front() != '{') return false;
  const Json call = Json::parse(text.substr(0, EndOfObject(text)), nullptr, /*allow_exceptions=*/false);
  if (!call.is_object() || call.size() != 2 || !call.contains("name") || !call.contains("arguments")) return false;
  return std::ranges::any_of(tools, [&](const Json& tool) {
    return tool["name"] == call["name"] && FitsParameters(call["arguments"], tool["parameters"]);
  });
}

Result<std::unique_ptr<Task>> MakeToolCalls(std::string_view text, std::string name) {
  const Result<std::vector<JsonLine>> lines = ParseJsonLines(text, name, {"prompt"});
  if (!lines.ok()) return lines.status();
  std::vector<ToolPrompt> prompts;
  for (const JsonLine& line : *lines) {
    KVANT_TRY(CheckTools(line.value, StrFormat("%s, line %d: ", name.c_str(), line.number)));
    prompts.push_back({line.value["prompt"], line.value["tools"]});
  }
  return std::unique_ptr<Task>(std::make_unique<ToolCalls>(std::move(prompts), HashText(text), std::move(name)));
}

std::unique_ptr<Task> MakeBuiltInToolCalls() {
  std::string lines;
  for (const char* request : kRequests) {
    lines += Json({{"prompt", BuiltInPrompt(request)}, {"tools", BuiltInTools()}}).dump() + "\n";
  }
  Result<std::unique_ptr<Task>> task = MakeToolCalls(lines, "tool-calls");
  KVANT_CHECK(task.ok());
  return std::move(*task);
}

}  // namespace kvant
