// kvant man: the manual page.
#include <cstdio>

#include "man_page.h"
#include "verb.h"

namespace kvant {

Verb AddManVerb(CLI::App& app, const std::vector<Verb>& verbs) {
  CLI::App* command = app.add_subcommand("man", "Print the manual page");
  return {command,
          [&app, &verbs] {
            std::fputs(ManPage(Describe(app), verbs, "kvant " KVANT_VERSION).c_str(), stdout);
            return Status::Ok();
          },
          {{"kvant man | man -l -", "Read the manual"},
           {"kvant man > ~/.local/share/man/man1/kvant.1", "Install it, so that `man kvant` finds it"}}};
}

}  // namespace kvant
