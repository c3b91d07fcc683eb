#include <cstdlib>

#include "check.h"

int main(int count, char** arguments) {
  const char* wanted = count > 1 ? arguments[1] : nullptr;
  bool found = false;
  for (test::Case* c = test::Case::first(); c; c = c->next) {
    if (wanted && std::strcmp(wanted, "--list") == 0) {
      std::printf("%s\n", c->name);
      found = true;
    } else if (!wanted || std::strcmp(wanted, c->name) == 0) {
      found = true;
      c->run();
    }
  }
  if (!found) std::printf("there is no test '%s'\n", wanted);
  return found && test::failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
